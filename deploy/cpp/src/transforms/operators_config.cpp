// SPDX-License-Identifier: Apache-2.0
#include "transforms/operators_config.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "system/arithmetic.hpp"
#include "system/checks.hpp"
#include "system/text.hpp"
#include "transforms/float16.hpp"

namespace hgdeploy {
namespace {

using Kind = Value::Kind;
using Names = std::vector<std::string>;
// The parameters of an operator, by name.
using Values = std::map<std::string, Value>;

const std::map<std::string, std::string>& not_served() {
  static const std::string random =
      "is a random training augmentation, which a deployed model cannot use; remove it";
  static const std::string detection =
      "belongs to object detection, not to classification; remove it";
  static const std::map<std::string, std::string> reasons{
      {"RandCropImage", random},
      {"RandFlipImage", random},
      {"AutoAugment", random},
      {"DetResize", detection},
      {"DetNormalizeImage", detection},
      {"DetPermute", detection},
      {"DetPadStride", detection},
      {"ToTensor", "is not served; use NormalizeImage and ToCHWImage"},
      {"Normalize", "is not served; use NormalizeImage"},
      {"Resize", "is not served; use ResizeImage"},
      {"CenterCrop", "is not served; use CropImage"},
  };
  return reasons;
}

Names interpolations(bool pillow) {
  return pillow ? Names{"nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"}
                : Names{"nearest", "bilinear", "bicubic", "area", "lanczos"};
}

// --- How a config writes what an operator takes otherwise.

Value as_number(const Given& given) { return as_whole(parse_literal(given.value)); }

// A list of numbers, each of which may stand in quotes; so may the list.
Value as_numbers(const Given& given) {
  Value value = parse_literal(given.value);
  if (value.is(Kind::list)) {
    value.tuple = false;
    for (Value& item : value.items) {
      item = parse_literal(item);
    }
  }
  return value;
}

Value as_pair(const Given& given) {
  Value size = as_numbers(given);
  if (size.is(Kind::list)) {
    for (Value& item : size.items) {
      item = as_whole(item);
    }
    return size;
  }
  size = as_whole(size);
  if (!size.is(Kind::integer)) {
    return size;
  }
  Value pair;
  pair.kind = Kind::list;
  pair.items = {size, size};
  return pair;
}

Value as_lower(const Given& given) {
  return given.value.is(Kind::text) ? Value::of(lower(given.value.text)) : given.value;
}

// PaddleClas computes on HWC where anything but 'chw' stands.
Value as_order(const Given& given) {
  if (given.value.is(Kind::null)) {
    return Value::of(std::string());
  }
  const bool upper = given.value.is(Kind::text) && given.value.text == "HWC";
  return upper ? Value::of(std::string("hwc")) : given.value;
}

Value as_scale(const Given& given) {
  if (!given.value.is(Kind::text)) {
    return given.value;
  }
  const std::optional<double> value = arithmetic(given.value.text);
  if (!value) {
    throw given.refused("a number, or a product or quotient of numbers, such as 1.0/255.0");
  }
  return Value::of(*value);
}

// The library that decodes images: OpenCV, which PaddleClas's predict_cls.py takes.
Value as_decoder(Given given) {
  given.hint = "images are decoded as OpenCV does, which predict_cls.py uses too";
  given.value = as_lower(given);
  return Value::of(exactly(given, {"cv2"}));
}

Value converted(const std::string& op, const std::string& key, const Given& given) {
  if (op == DecodeImage::name && key == "backend") {
    return as_decoder(given);
  }
  if (key == "to_rgb" || key == "channel_first" || key == "output_fp16" || key == "to_np" ||
      key == "return_numpy") {
    return Value::of(as_switch(given));
  }
  if (key == "size") {
    return as_pair(given);
  }
  if (key == "resize_short" || key == "channel_num") {
    return as_number(given);
  }
  if (key == "interpolation" || key == "backend") {
    return as_lower(given);
  }
  if (key == "mean" || key == "std") {
    return as_numbers(given);
  }
  return key == "scale" ? as_scale(given) : as_order(given);
}

// --- The operators check their values themselves.

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

Op decode_image(const Values& values) {
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
void settle_resize(Values& values) {
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

Op resize_image(const Values& values) {
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

Op normalize_image(const Values& values) {
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
    const bool known = channels->is(Kind::integer) && (channels->whole == 3 || channels->whole == 4);
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

// The parameters that an operator has; the last ones change nothing here.
const std::map<std::string, Names>& parameters() {
  static const std::map<std::string, Names> all{
      {DecodeImage::name, {"to_rgb", "channel_first", "to_np", "backend"}},
      {ResizeImage::name, {"size", "resize_short", "interpolation", "backend", "return_numpy"}},
      {CropImage::name, {"size"}},
      {NormalizeImage::name, {"scale", "mean", "std", "order", "channel_num", "output_fp16"}},
      {ToCHWImage::name, {}},
  };
  return all;
}

// A YAML null stands for the default in these, as PaddleClas has it.
bool is_nullable(const std::string& key) {
  static const Names nullable{"size", "resize_short", "interpolation", "scale", "mean", "std"};
  return std::find(nullable.begin(), nullable.end(), key) != nullable.end();
}

Op made(const std::string& name, Values values) {
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

Op build_op(const std::string& name, const Given& given) {
  check_keys(given, parameters().at(name));
  Values values;
  for (const auto& [key, value] : given.value.entries) {
    Value read = converted(name, key.text, given.at(key.text));
    if (!read.is(Kind::null) || !is_nullable(key.text)) {
      values.emplace(key.text, std::move(read));
    }
  }
  if (name == CropImage::name && values.count("size") == 0) {
    throw given.at("size").refused("a size such as 224");
  }
  try {
    return made(name, std::move(values));
  } catch (const ConfigError& error) {
    throw ConfigError(given.where.substr(0, given.where.size() - name.size()) + error.what());
  }
}

Op read_op(const Given& given) {
  if (!given.value.is(Kind::mapping) || given.value.entries.size() != 1) {
    throw given.refused("one operator with its parameters, such as `CropImage: {size: 224}`");
  }
  const Value& key = given.value.entries.front().first;
  if (key.is(Kind::text) && not_served().count(key.text) != 0) {
    throw ConfigError(given.where + "." + key.text + ": " + not_served().at(key.text));
  }
  Names names;
  for (const auto& each : parameters()) {
    names.push_back(each.first);
  }
  check_keys(given, names);
  return build_op(key.text, given.at(key.text).or_empty());
}

}  // namespace

std::vector<Op> parse_ops(const Value& config, const std::string& where) {
  const Given given{where, config, "", ""};
  if (!config.is(Kind::list)) {
    throw given.refused("a list of operators");
  }
  std::vector<Op> ops;
  for (std::size_t index = 0; index < config.items.size(); ++index) {
    ops.push_back(
        read_op(Given{where + "." + std::to_string(index), config.items[index], "", ""}));
  }
  check_sequence(ops, where);
  return ops;
}

}  // namespace hgdeploy
