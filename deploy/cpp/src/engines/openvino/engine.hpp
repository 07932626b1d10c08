// SPDX-License-Identifier: Apache-2.0
// OpenVINO on CPU, and on Intel GPU or NPU by device name; reads ONNX and Paddle 2's `.pdmodel`:
// deploy/python/hgdeploy/engines/openvino/engine.py, with the same settings, so that results are
// equal.
#pragma once

#include "engines/engine.hpp"

namespace hgdeploy {

std::vector<std::string> openvino_artifacts(const std::string& precision);
std::unique_ptr<Engine> load_openvino(const std::filesystem::path& source,
                                      const EngineOptions& options);

}  // namespace hgdeploy
