// SPDX-License-Identifier: Apache-2.0
// Resizes as Python's libraries do, in every bit.
#pragma once

#include <string>

#include <opencv2/core.hpp>

#include "transforms/operators.hpp"

namespace hgdeploy {

// As `cv2.resize`: uint8 or float32 of three or four channels; nearest, bilinear, bicubic, area or
// lanczos. Throws cv::Exception.
cv::Mat resize_as_opencv(const cv::Mat& image, const Size& size, const std::string& interpolation);

// As Pillow's `Image.resize`: uint8 of three channels; nearest, lanczos, bilinear, bicubic, box or
// hamming.
cv::Mat resize_as_pillow(const cv::Mat& image, const Size& size, const std::string& interpolation);

}  // namespace hgdeploy
