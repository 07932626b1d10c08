// SPDX-License-Identifier: Apache-2.0
#include "transforms/operators.hpp"

namespace hgdeploy {

const char* name_of(const Op& op) {
  return std::visit([](const auto& each) { return each.name; }, op);
}

std::vector<float> table(const NormalizeImage& op) {
  std::vector<float> result;
  result.reserve(3 * 256);
  const auto scale = static_cast<float>(op.scale);
  for (std::size_t channel = 0; channel < 3; ++channel) {
    const auto mean = static_cast<float>(op.mean[channel]);
    const auto std = static_cast<float>(op.std[channel]);
    for (int value = 0; value < 256; ++value) {
      // Each step rounds to float32, as NumPy's do.
      const volatile float scaled = static_cast<float>(value) * scale;
      const volatile float centred = scaled - mean;
      result.push_back(centred / std);
    }
  }
  return result;
}

}  // namespace hgdeploy
