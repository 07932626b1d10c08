// SPDX-License-Identifier: Apache-2.0
// PaddleClas's preprocessing, in the same bits as deploy/python/hgdeploy/transforms/preprocess.py.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <opencv2/core.hpp>

#include "transforms/operators.hpp"

namespace YAML {
class Node;
}

namespace hgdeploy {

enum class DType { uint8, float16, float32 };

// The size of one element in bytes.
std::size_t size_of(DType type);
// NumPy's name of it.
const char* name_of(DType type);

// One preprocessed image, without a batch axis: CHW after ToCHWImage, else HWC.
struct Tensor {
  DType type = DType::float32;
  std::array<long, 3> shape{};
  std::vector<std::uint8_t> bytes;

  const float* floats() const { return reinterpret_cast<const float*>(bytes.data()); }
};

// Runs a sequence of operators on one image; safe to call from many threads at once.
class Preprocessor {
 public:
  // Throws ConfigError: an order of operators that cannot work.
  explicit Preprocessor(std::vector<Op> ops);

  // Reads PaddleClas's `transform_ops`; `where` names the list in errors. Throws ConfigError: an
  // operator, parameter, value or sequence that cannot be served.
  static Preprocessor from_config(const YAML::Node& operators,
                                  const std::string& where = "PreProcess.transform_ops");

  const std::vector<Op>& ops() const { return ops_; }
  // float32; float16 (`output_fp16`); uint8 unnormalised.
  DType dtype() const;
  // Shape of every result, or nothing where it depends on the image.
  std::optional<std::array<long, 3>> output_shape() const;
  int channels() const;
  bool channels_first() const;

  // Preprocesses one image: uint8 BGR pixels, as `decode` gives them. Throws ImageError: not such
  // pixels, smaller than the crop, or too long to be resized.
  Tensor operator()(const cv::Mat& bgr) const;
  // Writes the result into `out`, which has room for `output_shape` of `dtype`. Throws TensorError
  // where the result has another shape or type.
  void operator()(const cv::Mat& bgr, void* out, DType type,
                  const std::array<long, 3>& shape) const;
  void operator()(const cv::Mat& bgr, float* out) const;

 private:
  cv::Mat prepared(const cv::Mat& bgr) const;
  std::array<long, 3> shape_of(const Size& size) const;
  void write(const cv::Mat& image, void* out) const;
  // The channel of a BGR picture that is the model's c-th.
  int place(int c) const { return rgb_ ? 2 - c : c; }

  std::vector<Op> ops_;
  bool rgb_ = true;
  std::optional<NormalizeImage> normalize_;
  std::size_t at_ = 0;  // the place of NormalizeImage, or the number of operators
  std::vector<float> table_;
  std::vector<std::uint16_t> halves_;
};

}  // namespace hgdeploy
