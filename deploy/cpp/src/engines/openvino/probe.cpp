// SPDX-License-Identifier: Apache-2.0
#include "engines/openvino/probe.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include <openvino/opsets/opset13.hpp>

namespace hgdeploy {
namespace {

constexpr std::size_t channels = 32, kernels = 16, pixels = 16;
// Any values but 1: OpenVINO drops a multiplication by 1.
constexpr float scale = 0.02F, weight_scale = 0.01F;

// Quantizes, concatenates that with itself, and convolves it, as an ONNX file in QDQ form.
std::shared_ptr<ov::Model> network(const std::vector<std::int8_t>& weights, int low, int high) {
  namespace op = ov::opset13;
  const auto f32 = ov::element::f32;
  const auto constant = [&](float value) {
    return op::Constant::create(f32, ov::Shape{}, std::vector<float>{value});
  };
  const auto steps = [](int value) { return static_cast<float>(value); };
  const auto given = std::make_shared<op::Parameter>(f32, ov::Shape{1, channels, 4, 4});
  const auto rounded = std::make_shared<op::FakeQuantize>(
      given, constant(steps(low) * scale), constant(steps(high) * scale), constant(steps(low)),
      constant(steps(high)), 256);
  const auto quantized =
      std::make_shared<op::Convert>(rounded, low < 0 ? ov::element::i8 : ov::element::u8);
  const auto dequantized = std::make_shared<op::Multiply>(
      std::make_shared<op::Convert>(quantized, f32), constant(scale));
  const auto kernel = std::make_shared<op::Multiply>(
      std::make_shared<op::Convert>(
          op::Constant::create(ov::element::i8, ov::Shape{kernels, 2 * channels, 1, 1}, weights),
          f32),
      op::Constant::create(f32, ov::Shape{kernels, 1, 1, 1},
                           std::vector<float>(kernels, weight_scale)));
  const auto both = std::make_shared<op::Concat>(ov::OutputVector{dequantized, dequantized}, 1);
  const auto result =
      std::make_shared<op::Convolution>(both, kernel, ov::Strides{1, 1}, ov::CoordinateDiff{0, 0},
                                        ov::CoordinateDiff{0, 0}, ov::Strides{1, 1});
  return std::make_shared<ov::Model>(ov::OutputVector{result}, ov::ParameterVector{given});
}

}  // namespace

double int8_error(ov::Core& core, bool is_signed) {
  const int low = is_signed ? -128 : 0, high = is_signed ? 127 : 255;
  std::mt19937 random(0);
  std::uniform_int_distribution<int> values(low, high), any_weight(-127, 127);
  std::vector<float> input(channels * pixels);
  std::vector<std::int8_t> weights(kernels * 2 * channels);
  for (float& value : input) value = static_cast<float>(values(random)) * scale;
  for (std::int8_t& weight : weights) weight = static_cast<std::int8_t>(any_weight(random));
  auto compiled =
      core.compile_model(network(weights, low, high), "CPU",
                         {{"INFERENCE_PRECISION_HINT", "f32"}, {"INFERENCE_NUM_THREADS", 1}});
  ov::InferRequest request = compiled.create_infer_request();
  request.set_input_tensor(ov::Tensor(ov::element::f32, {1, channels, 4, 4}, input.data()));
  request.infer();
  const float* found = request.get_output_tensor().data<float>();
  double error = 0, largest = 0;
  for (std::size_t k = 0; k < kernels; ++k)
    for (std::size_t p = 0; p < pixels; ++p) {
      double exact = 0;
      for (std::size_t c = 0; c < 2 * channels; ++c)
        exact += std::round(static_cast<double>(input[(c % channels) * pixels + p]) / scale) *
                 weights[k * 2 * channels + c];
      const double given = static_cast<double>(found[k * pixels + p]) / (scale * weight_scale);
      error = std::max(error, std::abs(given - exact));
      largest = std::max(largest, std::abs(exact));
    }
  return error / largest;
}

}  // namespace hgdeploy
