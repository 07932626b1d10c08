// SPDX-License-Identifier: Apache-2.0
// This model's images are resized by OpenCV.
#pragma once

#include <opencv2/imgproc.hpp>

// `filter` is one of OpenCV's own, such as cv::INTER_LINEAR.
inline Image resized(const Image& image, int width, int height, int filter) {
    Image result{width, height, std::vector<uint8_t>(size_t(width) * height * 3)};
    const cv::Mat from(image.height, image.width, CV_8UC3, const_cast<uint8_t*>(image.rgb.data()));
    cv::Mat to(height, width, CV_8UC3, result.rgb.data());
    cv::resize(from, to, to.size(), 0, 0, filter);
    return result;
}
