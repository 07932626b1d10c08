// SPDX-License-Identifier: Apache-2.0
#include "transforms/operators_config.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "system/arithmetic.hpp"
#include "system/checks.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

using Kind = Value::Kind;
using Names = std::vector<std::string>;
using Values = OpValues;

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

// How a config writes what an operator takes otherwise.

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
    return make_op(name, std::move(values));
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
    ops.push_back(read_op(Given{where + "." + std::to_string(index), config.items[index], "", ""}));
  }
  check_sequence(ops, where);
  return ops;
}

}  // namespace hgdeploy
