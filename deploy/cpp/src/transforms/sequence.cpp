// SPDX-License-Identifier: Apache-2.0
// Which orders of operators make sense: deploy/python/hgdeploy/transforms/sequence.py.
#include <algorithm>
#include <cmath>

#include "errors.hpp"
#include "system/text.hpp"
#include "transforms/operators_config.hpp"

namespace hgdeploy {
namespace {

using Before = std::vector<Op>;

template <class Kind>
const Kind* first(const Before& ops) {
  for (const Op& op : ops) {
    if (const auto* found = std::get_if<Kind>(&op)) {
      return found;
    }
  }
  return nullptr;
}

std::string shown(const Size& size) {
  return std::to_string(size.width) + "x" + std::to_string(size.height);
}

// Finds the crops that no image can satisfy, rather than fail on every image.
std::string impossible_crop(const CropImage& op, const Before& before) {
  for (auto last = before.rbegin(); last != before.rend(); ++last) {
    const auto* resize = std::get_if<ResizeImage>(&*last);
    const auto* crop = std::get_if<CropImage>(&*last);
    if (resize == nullptr && crop == nullptr) {
      continue;
    }
    const std::optional<Size> left = crop != nullptr ? crop->size : resize->size;
    if (left && (op.size.width > left->width || op.size.height > left->height)) {
      return "size " + shown(op.size) + " is larger than the " + shown(*left) + " that " +
             name_of(*last) + " leaves (width x height)";
    }
    const auto least = static_cast<double>(std::min(op.size.width, op.size.height));
    if (resize != nullptr && resize->resize_short &&
        least > std::nearbyint(*resize->resize_short)) {
      return "size " + shown(op.size) + " is larger than ResizeImage.resize_short " +
             resize->short_text;
    }
    return "";
  }
  return "";
}

std::string misplaced_normalize(const NormalizeImage& op, const Before& before, bool planar) {
  if (first<NormalizeImage>(before) != nullptr) {
    return "stands there twice; remove one";
  }
  if (planar && op.order != "chw") {
    return "order " + repr(op.order) + " does not fit after ToCHWImage; use order: 'chw'";
  }
  if (!planar && op.order == "chw") {
    return "order 'chw' (the default) does not fit before ToCHWImage; use order: ''";
  }
  return "";
}

// Why an operator cannot follow those before it; nothing where it can.
std::string misplaced(const Op& op, const Before& before) {
  const bool planar = first<ToCHWImage>(before) != nullptr;
  if (std::holds_alternative<DecodeImage>(op)) {
    return before.empty() ? "" : "must be the first operator";
  }
  if (std::holds_alternative<ToCHWImage>(op)) {
    return planar ? "stands there twice; remove one" : "";
  }
  if (const auto* normalize = std::get_if<NormalizeImage>(&op)) {
    return misplaced_normalize(*normalize, before, planar);
  }
  if (planar) {
    return "must come before ToCHWImage";
  }
  if (const auto* crop = std::get_if<CropImage>(&op)) {
    return impossible_crop(*crop, before);
  }
  const auto* normalize = first<NormalizeImage>(before);
  if (normalize != nullptr && (std::get<ResizeImage>(op).pillow || normalize->output_fp16)) {
    return "cannot resize what NormalizeImage made; put it before NormalizeImage";
  }
  return "";
}

}  // namespace

void check_sequence(const std::vector<Op>& ops, const std::string& where) {
  for (std::size_t index = 0; index < ops.size(); ++index) {
    const Before before(ops.begin(), ops.begin() + static_cast<std::ptrdiff_t>(index));
    const std::string problem = misplaced(ops[index], before);
    if (!problem.empty()) {
      throw ConfigError(where + "." + std::to_string(index) + "." + name_of(ops[index]) + ": " +
                        problem);
    }
  }
}

}  // namespace hgdeploy
