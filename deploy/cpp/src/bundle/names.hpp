// SPDX-License-Identifier: Apache-2.0
// What a bundle's files are called: deploy/python/hgdeploy/bundle/names.py.
#pragma once

#include <string>

namespace hgdeploy {

inline constexpr const char* description_file = "inference.yml";
inline constexpr const char* sidecar_file = "inference.meta.json";
inline constexpr const char* onnx_file = "inference.onnx";
// Paddle's program in either format, best first.
inline constexpr const char* paddle_programs[] = {"inference.json", "inference.pdmodel"};

// `inference.onnx`, or `inference.fp16.onnx`.
std::string onnx_name(const std::string& precision);
// `inference.mnn`, or `inference.int8.mnn`.
std::string mnn_name(const std::string& precision);
// Whether a file of this name cannot be run without its sidecar: MNN's and ncnn's.
bool needs_sidecar(const std::string& name);
// The command that makes a bundle's file of this name; empty where none does.
std::string made_by(const std::string& name);

}  // namespace hgdeploy
