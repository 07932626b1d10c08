// SPDX-License-Identifier: Apache-2.0
#include "transforms/preprocess.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include <yaml-cpp/yaml.h>

#include "errors.hpp"
#include "transforms/float16.hpp"
#include "transforms/operators_config.hpp"
#include "transforms/resize.hpp"

namespace hgdeploy {
namespace {

using Shape = std::array<long, 3>;

std::string shown(const Size& size) {
  return std::to_string(size.width) + "x" + std::to_string(size.height);
}

Size size_of(const cv::Mat& image) { return {image.cols, image.rows}; }

// What `resize_short` makes of a size.
Size resized(const Size& size, double length) {
  const double ratio = length / static_cast<double>(std::min(size.width, size.height));
  const auto side = [&](long old) {
    const double made = std::nearbyint(static_cast<double>(old) * ratio);
    return static_cast<long>(std::min(made, 1e15));
  };
  return {side(size.width), side(size.height)};
}

cv::Mat resize(const ResizeImage& op, const cv::Mat& image) {
  const Size size = size_of(image);
  const Size target = op.size ? *op.size : resized(size, *op.resize_short);
  const double pixels = static_cast<double>(target.width) * static_cast<double>(target.height);
  if (pixels > static_cast<double>(max_resized_pixels)) {
    throw ImageError(shown(size) + " (width x height) is too long for resize_short " +
                     op.short_text + ": the result would have more than " +
                     std::to_string(max_resized_pixels) + " pixels");
  }
  if (op.pillow) {
    return resize_as_pillow(image, target, op.interpolation);
  }
  try {
    return resize_as_opencv(image, target, op.interpolation);
  } catch (const cv::Exception& error) {
    if (error.code == cv::Error::StsNoMem) {
      throw ResourceError("there is no memory for a picture of " + shown(target) + " pixels");
    }
    throw ImageError("cannot be resized from " + shown(size) + " to " + shown(target) + ": " +
                     error.err);
  }
}

cv::Mat crop(const CropImage& op, const cv::Mat& image) {
  const Size size = size_of(image);
  if (size.width < op.size.width || size.height < op.size.height) {
    throw ImageError("crop " + shown(op.size) + " is larger than the image " + shown(size) +
                     " (width x height); resize to at least the crop before it (ResizeImage)");
  }
  const auto left = static_cast<int>((size.width - op.size.width) / 2);
  const auto top = static_cast<int>((size.height - op.size.height) / 2);
  return image(
      cv::Rect(left, top, static_cast<int>(op.size.width), static_cast<int>(op.size.height)));
}

cv::Mat run(const Op& op, const cv::Mat& image) {
  if (const auto* resizing = std::get_if<ResizeImage>(&op)) {
    return resize(*resizing, image);
  }
  if (const auto* cropping = std::get_if<CropImage>(&op)) {
    return crop(*cropping, image);
  }
  return image;
}

std::string shown_depth(const cv::Mat& image) {
  static const char* const names[] = {"uint8", "int8",    "uint16",  "int16",
                                      "int32", "float32", "float64", "float16"};
  return names[image.depth()];
}

void check_image(const cv::Mat& image) {
  if (image.dims == 2 && image.type() == CV_8UC3 && !image.empty()) {
    return;
  }
  throw ImageError("expected a uint8 array of height x width x 3, got " + shown_depth(image) +
                   " of shape (" + std::to_string(image.rows) + ", " + std::to_string(image.cols) +
                   ", " + std::to_string(image.channels()) + ")");
}

std::string shown_shape(const Shape& shape) {
  return "(" + std::to_string(shape[0]) + ", " + std::to_string(shape[1]) + ", " +
         std::to_string(shape[2]) + ")";
}

// Writes an image of a few channels as planes or pixels; `place(c)` is the channel that becomes the
// c-th, and `convert(c, value)` what becomes of its values.
template <class In, class Out, class Place, class Convert>
void write_channels(const cv::Mat& image, Out* out, bool planes, int channels, const Place& place,
                    const Convert& convert) {
  const auto width = static_cast<std::size_t>(image.cols);
  const auto area = width * static_cast<std::size_t>(image.rows);
  const auto in_step = static_cast<std::size_t>(image.channels());
  const std::size_t out_step = planes ? 1 : static_cast<std::size_t>(channels);
  for (int channel = 0; channel < image.channels(); ++channel) {
    const auto c = static_cast<std::size_t>(channel);
    for (int y = 0; y < image.rows; ++y) {
      const In* in = image.ptr<In>(y) + place(channel);
      const std::size_t row = static_cast<std::size_t>(y) * width;
      Out* to = planes ? out + c * area + row : out + row * out_step + c;
      for (std::size_t x = 0; x < width; ++x) {
        to[x * out_step] = convert(channel, in[x * in_step]);
      }
    }
  }
}

}  // namespace

std::size_t size_of(DType type) {
  return type == DType::uint8 ? 1 : type == DType::float16 ? 2 : 4;
}

const char* name_of(DType type) {
  return type == DType::uint8 ? "uint8" : type == DType::float16 ? "float16" : "float32";
}

Preprocessor::Preprocessor(std::vector<Op> ops) : ops_(std::move(ops)) {
  check_sequence(ops_, "ops");
  at_ = ops_.size();
  for (std::size_t i = 0; i < ops_.size(); ++i) {
    if (const auto* decode = std::get_if<DecodeImage>(&ops_[i])) {
      rgb_ = decode->to_rgb;
    } else if (const auto* normalize = std::get_if<NormalizeImage>(&ops_[i])) {
      normalize_ = *normalize;
      at_ = i;
      table_ = table(*normalize);
    }
  }
  for (const float value : table_) {
    halves_.push_back(to_half(value));
  }
}

Preprocessor Preprocessor::from_config(const YAML::Node& operators, const std::string& where) {
  return Preprocessor(parse_ops(value_of(operators), where));
}

DType Preprocessor::dtype() const {
  if (!normalize_) {
    return DType::uint8;
  }
  return normalize_->output_fp16 ? DType::float16 : DType::float32;
}

int Preprocessor::channels() const { return normalize_ ? normalize_->channel_num : 3; }

bool Preprocessor::channels_first() const {
  return std::any_of(ops_.begin(), ops_.end(),
                     [](const Op& op) { return std::holds_alternative<ToCHWImage>(op); });
}

std::optional<Shape> Preprocessor::output_shape() const {
  std::optional<Size> size;
  for (const Op& op : ops_) {
    if (const auto* cropping = std::get_if<CropImage>(&op)) {
      size = cropping->size;
    } else if (const auto* resizing = std::get_if<ResizeImage>(&op)) {
      size = resizing->size ? resizing->size
             : size         ? std::optional(resized(*size, *resizing->resize_short))
                            : std::nullopt;
    }
  }
  if (!size) {
    return std::nullopt;
  }
  return shape_of(*size);
}

Shape Preprocessor::shape_of(const Size& size) const {
  const long count = channels();
  return channels_first() ? Shape{count, size.height, size.width}
                          : Shape{size.height, size.width, count};
}

Tensor Preprocessor::operator()(const cv::Mat& bgr) const {
  const cv::Mat image = prepared(bgr);
  Tensor result;
  result.type = dtype();
  result.shape = shape_of(size_of(image));
  const auto count = static_cast<std::size_t>(result.shape[0] * result.shape[1] * result.shape[2]);
  result.bytes.resize(count * size_of(result.type));
  write(image, result.bytes.data());
  return result;
}

void Preprocessor::operator()(const cv::Mat& bgr, void* out, DType type, const Shape& shape) const {
  const cv::Mat image = prepared(bgr);
  const Shape made = shape_of(size_of(image));
  if (type != dtype() || shape != made) {
    throw TensorError(std::string("out is ") + name_of(type) + " of shape " + shown_shape(shape) +
                      ", but the preprocessing makes " + name_of(dtype()) + " of shape " +
                      shown_shape(made) + "; give a contiguous, writable array like that");
  }
  write(image, out);
}

void Preprocessor::operator()(const cv::Mat& bgr, float* out) const {
  const std::optional<Shape> shape = output_shape();
  if (!shape) {
    throw TensorError(
        "the preprocessing makes a shape that depends on the image; ask for a Tensor");
  }
  (*this)(bgr, out, DType::float32, *shape);
}

// The image after the operators up to NormalizeImage as uint8 in BGR order; where others follow it,
// as float32 in the model's order.
cv::Mat Preprocessor::prepared(const cv::Mat& bgr) const {
  check_image(bgr);
  cv::Mat image = bgr;
  for (std::size_t i = 0; i < at_; ++i) {
    image = run(ops_[i], image);
  }
  const bool more = std::any_of(
      ops_.begin() + static_cast<std::ptrdiff_t>(std::min(at_ + 1, ops_.size())), ops_.end(),
      [](const Op& op) {
        return std::holds_alternative<ResizeImage>(op) || std::holds_alternative<CropImage>(op);
      });
  if (!more) {
    return image;
  }
  cv::Mat normal = cv::Mat::zeros(image.rows, image.cols, CV_32FC(channels()));
  write_channels<std::uint8_t>(
      image, normal.ptr<float>(), false, channels(), [&](int c) { return place(c); },
      [&](int c, std::uint8_t value) { return table_[256 * static_cast<std::size_t>(c) + value]; });
  for (std::size_t i = at_ + 1; i < ops_.size(); ++i) {
    normal = run(ops_[i], normal);
  }
  return normal;
}

void Preprocessor::write(const cv::Mat& image, void* out) const {
  const bool planes = channels_first();
  const auto same = [](int c) { return c; };
  const auto from_bgr = [&](int c) { return place(c); };
  const auto index = [](int c, std::uint8_t value) {
    return 256 * static_cast<std::size_t>(c) + value;
  };
  const auto count = static_cast<std::size_t>(image.rows) * static_cast<std::size_t>(image.cols) *
                     static_cast<std::size_t>(channels());
  if (image.channels() < channels()) {
    std::memset(out, 0, count * size_of(dtype()));
  }
  switch (dtype()) {
    case DType::uint8:
      write_channels<std::uint8_t>(image, static_cast<std::uint8_t*>(out), planes, 3, from_bgr,
                                   [](int, std::uint8_t value) { return value; });
      return;
    case DType::float16: {
      auto* halves = static_cast<std::uint16_t*>(out);
      if (image.depth() == CV_32F) {
        write_channels<float>(image, halves, planes, channels(), same,
                              [](int, float value) { return to_half(value); });
      } else {
        write_channels<std::uint8_t>(
            image, halves, planes, channels(), from_bgr,
            [&](int c, std::uint8_t value) { return halves_[index(c, value)]; });
      }
      return;
    }
    case DType::float32: {
      auto* floats = static_cast<float*>(out);
      if (image.depth() == CV_32F) {
        write_channels<float>(image, floats, planes, channels(), same,
                              [](int, float value) { return value; });
      } else {
        write_channels<std::uint8_t>(
            image, floats, planes, channels(), from_bgr,
            [&](int c, std::uint8_t value) { return table_[index(c, value)]; });
      }
      return;
    }
  }
}

}  // namespace hgdeploy
