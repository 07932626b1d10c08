// SPDX-License-Identifier: Apache-2.0
// PaddleClas's operators as records that check their own values:
// deploy/python/hgdeploy/transforms/operators.py.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "system/value.hpp"

namespace hgdeploy {

inline constexpr long max_resized_pixels = 1L << 27;

struct Size {
  long width = 0;
  long height = 0;
};

// How the model wants its colours.
struct DecodeImage {
  static constexpr const char* name = "DecodeImage";
  bool to_rgb = true;
};

// Resize to a fixed size, or so that the short side has a given length; one of the two is set.
struct ResizeImage {
  static constexpr const char* name = "ResizeImage";
  std::optional<Size> size;
  std::optional<double> resize_short;
  // How errors show `resize_short`: a whole number stays one.
  std::string short_text;
  std::string interpolation = "bilinear";
  bool pillow = false;
};

// Cut the middle out of the image.
struct CropImage {
  static constexpr const char* name = "CropImage";
  Size size;
};

// (pixel * scale - mean) / std, in float32, per channel.
struct NormalizeImage {
  static constexpr const char* name = "NormalizeImage";
  double scale = 1.0 / 255.0;
  std::array<double, 3> mean{0.485, 0.456, 0.406};
  std::array<double, 3> std{0.229, 0.224, 0.225};
  std::string order = "chw";
  int channel_num = 3;
  bool output_fp16 = false;
};

// Move the channels to the front: HWC becomes CHW.
struct ToCHWImage {
  static constexpr const char* name = "ToCHWImage";
};

using Op = std::variant<DecodeImage, ResizeImage, CropImage, NormalizeImage, ToCHWImage>;

// The name of the operator as configs write it.
const char* name_of(const Op& op);

// The parameters of an operator, by name, as a config's values are read.
using OpValues = std::map<std::string, Value>;
// Makes an operator of its name and parameters, and checks them. Throws ConfigError: a value that
// the operator does not take.
Op make_op(const std::string& name, OpValues values);

// What each of the three channels makes of each value 0..255, in float32: PaddleClas's roundings.
std::vector<float> table(const NormalizeImage& op);

}  // namespace hgdeploy
