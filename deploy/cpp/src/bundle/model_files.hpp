// SPDX-License-Identifier: Apache-2.0
// All files of a model, and the digest that tells it from every other:
// deploy/python/hgdeploy/bundle/model_files.py.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace hgdeploy {

// The files that a model consists of, itself first: a Paddle program has its parameters beside it,
// an ONNX file every file of weights that it names. Throws BundleError: it cannot be read, or names
// weights that are missing or lie outside its folder.
std::vector<std::filesystem::path> model_files(const std::filesystem::path& artifact);

// The SHA-256 that stands for all files of a model, by their content. Throws BundleError.
std::string model_digest(const std::filesystem::path& artifact);

// What an ONNX file computes in, whatever its name: fp32, fp16, bf16 or int8. Its sidecar says so,
// or its operators and weights. Throws BundleError: it cannot be read.
std::string onnx_precision(const std::filesystem::path& onnx);

}  // namespace hgdeploy
