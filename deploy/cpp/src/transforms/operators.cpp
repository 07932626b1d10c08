// SPDX-License-Identifier: Apache-2.0
#include "transforms/operators.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "errors.hpp"
#include "system/checks.hpp"
#include "system/text.hpp"
#include "transforms/float16.hpp"

namespace hgdeploy {
namespace {

using Kind = Value::Kind;
using Names = std::vector<std::string>;

Names interpolations(bool pillow) {
  return pillow ? Names{"nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"}
                : Names{"nearest", "bilinear", "bicubic", "area", "lanczos"};
}

// (width, height).
Size size_from(const std::string& where, const Value& value) {
  const Given given{where, value, "", ""};
  try {
    if (value.is(Kind::list) && value.items.size() == 2) {
      return {whole(given.item(0), 1), whole(given.item(1), 1)};
    }
  } catch (const ConfigError&) {  // named as a whole, since one number stands for both
  }
  throw given.refused("a whole number from 1, or [width, height]");
}

double float32(const Given& given) {
  const double value = number(given, -std::numeric_limits<double>::infinity(), false);
  if (std::abs(value) > static_cast<double>(std::numeric_limits<float>::max())) {
    throw given.refused("a number that is finite in float32");
  }
  return value;
}

std::array<double, 3> three(const std::string& where, const Value& value) {
  const Given given{where, value, "", ""};
  if (!value.is(Kind::list) || value.items.size() != 3) {
    throw given.refused("a list of 3 numbers");
  }
  return {float32(given.item(0)), float32(given.item(1)), float32(given.item(2))};
}

Op decode_image(const OpValues& values) {
  const auto channel_first = values.find("channel_first");
  if (channel_first != values.end() && channel_first->second.truth) {
    throw ConfigError(
        "DecodeImage.channel_first is true, expected false, because resize and crop need HWC; put "
        "ToCHWImage at the end instead");
  }
  const auto to_rgb = values.find("to_rgb");
  return DecodeImage{to_rgb == values.end() || to_rgb->second.truth};
}

// PaddleClas's precedence of `resize_short`, and names for the codes of interpolations.
void settle_resize(OpValues& values) {
  const auto given = values.find("resize_short");
  if (given != values.end()) {
    const Value& value = given->second;
    const bool positive = (value.is_number() && value.real > 0) || value.truth;
    if (positive) {
      values.erase("size");
    } else if (value.is_number() && values.count("size") != 0) {
      values.erase(given);
    }
  }
  const auto backend = values.find("backend");
  const std::string library = backend == values.end() ? "cv2" : str(backend->second);
  const auto code = values.find("interpolation");
  if (code == values.end() || !code->second.is(Kind::integer) ||
      (library != "cv2" && library != "pil")) {
    return;
  }
  const Names names = interpolations(library == "pil");
  const std::int64_t number = code->second.whole;
  if (number >= 0 && number < static_cast<std::int64_t>(names.size())) {
    code->second = Value::of(names[static_cast<std::size_t>(number)]);
  }
}

std::string interpolation_from(const Value& value, bool pillow) {
  const Names names = interpolations(pillow);
  const std::string where = "ResizeImage.interpolation";
  if (!value.is(Kind::text)) {
    whole(Given{where, value, "or name it, such as bilinear", ""}, 0,
          static_cast<std::int64_t>(names.size()) - 1);
  }
  if (std::find(names.begin(), names.end(), value.text) != names.end()) {
    return value.text;
  }
  if (value.text == "random") {
    throw ConfigError(where +
                      " is 'random', a training augmentation, which a deployed model cannot use; "
                      "name the one that the model is tested with, such as bilinear");
  }
  throw ConfigError(where + " is " + repr(value.text) + ", which " + (pillow ? "pil" : "cv2") +
                    " lacks; " + nearest(value.text, names));
}

Op resize_image(const OpValues& values) {
  ResizeImage op;
  const auto size = values.find("size");
  const auto length = values.find("resize_short");
  if ((size == values.end()) == (length == values.end())) {
    throw ConfigError(
        "ResizeImage needs one of `size` and `resize_short`, such as resize_short: 256");
  }
  double pixels = 0;
  if (size != values.end()) {
    op.size = size_from("ResizeImage.size", size->second);
    pixels = static_cast<double>(op.size->width) * static_cast<double>(op.size->height);
  } else {
    const Given given{"ResizeImage.resize_short", length->second, "", ""};
    const bool real = length->second.is(Kind::real);
    op.resize_short = real ? number(given, 1) : static_cast<double>(whole(given, 1));
    op.short_text = repr(length->second);
    pixels = *op.resize_short * *op.resize_short;
  }
  if (const auto backend = values.find("backend"); backend != values.end()) {
    const Given given{"ResizeImage.backend", backend->second, "", ""};
    op.pillow = exactly(given, {"cv2", "pil"}) == "pil";
  }
  if (pixels > static_cast<double>(max_resized_pixels)) {
    throw ConfigError("ResizeImage gives more than " + std::to_string(max_resized_pixels) +
                      " pixels");
  }
  if (const auto found = values.find("interpolation"); found != values.end()) {
    op.interpolation = interpolation_from(found->second, op.pillow);
  }
  return op;
}

void check_range(const NormalizeImage& op) {
  if (static_cast<float>(op.scale) == 0) {
    throw ConfigError("NormalizeImage.scale is 0 in float32, expected another number");
  }
  for (const double each : op.std) {
    if (static_cast<float>(each) == 0) {
      throw ConfigError("NormalizeImage.std is 0 in float32, expected another number");
    }
  }
  for (const float value : table(op)) {
    if (!std::isfinite(value) || (op.output_fp16 && !is_finite_half(to_half(value)))) {
      throw ConfigError(
          std::string("NormalizeImage's scale, mean and std give values outside of ") +
          (op.output_fp16 ? "float16" : "float32"));
    }
  }
}

Op normalize_image(const OpValues& values) {
  NormalizeImage op;
  const auto find = [&](const char* key) {
    const auto found = values.find(key);
    return found == values.end() ? nullptr : &found->second;
  };
  if (const Value* scale = find("scale")) {
    op.scale = float32(Given{"NormalizeImage.scale", *scale, "", ""});
  }
  if (const Value* mean = find("mean")) {
    op.mean = three("NormalizeImage.mean", *mean);
  }
  if (const Value* std = find("std")) {
    op.std = three("NormalizeImage.std", *std);
  }
  if (const Value* order = find("order")) {
    op.order = exactly(Given{"NormalizeImage.order", *order, "", ""}, {"", "hwc", "chw"});
  }
  if (const Value* channels = find("channel_num")) {
    const bool known =
        channels->is(Kind::integer) && (channels->whole == 3 || channels->whole == 4);
    if (!known) {
      throw Given{"NormalizeImage.channel_num", *channels, "", ""}.refused("3 or 4");
    }
    op.channel_num = static_cast<int>(channels->whole);
  }
  if (const Value* half = find("output_fp16")) {
    op.output_fp16 = half->truth;
  }
  check_range(op);
  return op;
}

}  // namespace

const char* name_of(const Op& op) {
  return std::visit([](const auto& each) { return each.name; }, op);
}

Op make_op(const std::string& name, OpValues values) {
  if (name == DecodeImage::name) {
    return decode_image(values);
  }
  if (name == ResizeImage::name) {
    settle_resize(values);
    return resize_image(values);
  }
  if (name == CropImage::name) {
    return CropImage{size_from("CropImage.size", values.at("size"))};
  }
  return name == NormalizeImage::name ? normalize_image(values) : ToCHWImage{};
}

std::vector<float> table(const NormalizeImage& op) {
  std::vector<float> result;
  result.reserve(std::size_t{3} * 256);
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
