// SPDX-License-Identifier: Apache-2.0
#include "bundle/names.hpp"

#include <filesystem>

namespace hgdeploy {

std::string onnx_name(const std::string& precision) {
  return precision == "fp32" ? onnx_file : "inference." + precision + ".onnx";
}

std::string mnn_name(const std::string& precision) {
  return precision == "fp32" ? "inference.mnn" : "inference." + precision + ".mnn";
}

bool needs_sidecar(const std::string& name) {
  const auto suffix = std::filesystem::path(name).extension();
  return suffix == ".mnn" || suffix == ".param";
}

std::string made_by(const std::string& name) {
  std::string precision;
  for (const char* one : {"fp16", "bf16", "int8"})
    if (name.find("." + std::string(one) + ".") != std::string::npos) precision = one;
  if (needs_sidecar(name)) {  // these are made in fp32 only
    if (!precision.empty()) return "";
    return std::string("hgdeploy convert --to ") +
           (std::filesystem::path(name).extension() == ".mnn" ? "mnn" : "ncnn");
  }
  if (std::filesystem::path(name).extension() != ".onnx") return "";
  if (precision == "int8") return "hgdeploy quantize";
  return "hgdeploy convert" + (precision.empty() ? "" : " --precision " + precision);
}

}  // namespace hgdeploy
