// SPDX-License-Identifier: Apache-2.0
#include "engines/engine.hpp"

#include <utility>

#include "bundle/names.hpp"
#include "errors.hpp"
#include "system/text.hpp"
#ifdef HGDEPLOY_WITH_OPENVINO
#include "engines/openvino/engine.hpp"
#endif
#ifdef HGDEPLOY_WITH_MNN
#include "engines/mnn/engine.hpp"
#endif

namespace hgdeploy {
namespace {

std::vector<std::string> none(const std::string&) { return {}; }

}  // namespace

std::string shown(const Shape& shape) {
  std::vector<std::string> sizes;
  for (const long size : shape) sizes.push_back(std::to_string(size));
  return "[" + join(sizes, ", ") + "]";
}

Engine::Engine(TensorSpec input, TensorSpec output, RuntimeInfo runtime, int concurrency)
    : input_(std::move(input)),
      output_(std::move(output)),
      runtime_(std::move(runtime)),
      concurrency_(concurrency) {}

Scores Engine::infer(const void* rows, const Shape& shape) {
  bool fits = shape.size() == input_.shape.size();
  bool any = false;
  for (std::size_t i = 0; fits && i < shape.size(); ++i) {
    any = any || input_.shape[i] == -1;
    fits = shape[i] == input_.shape[i] || (input_.shape[i] == -1 && shape[i] > 0);
  }
  if (!fits)
    throw TensorError("input " + repr(input_.name) + " has shape " + shown(shape) + ", expected " +
                      shown(input_.shape) + (any ? " (-1 stands for any size from 1)" : ""));
  return run(rows, shape);
}

const std::vector<EngineKind>& engine_kinds() {
  static const std::vector<EngineKind> kinds{
#ifdef HGDEPLOY_WITH_OPENVINO
      {"openvino", openvino_artifacts, load_openvino},
#else
      {"openvino", none, nullptr},
#endif
#ifdef HGDEPLOY_WITH_MNN
      {"mnn", mnn_artifacts, load_mnn},
#else
      {"mnn", none, nullptr},
#endif
      {"paddle", none, nullptr},
      {"onnxruntime", none, nullptr},
      {"tensorrt", none, nullptr},
      {"ncnn", none, nullptr},
  };
  return kinds;
}

std::vector<std::string> built_engines() {
  std::vector<std::string> names;
  for (const EngineKind& kind : engine_kinds())
    if (kind.load != nullptr) names.emplace_back(kind.name);
  return names;
}

}  // namespace hgdeploy
