// SPDX-License-Identifier: Apache-2.0
// How a picture is turned: EXIF's orientation, as OpenCV 5 reads it. OpenCV 4.6 reads other fields
// too, and gives up on files whose other fields are damaged.
#pragma once

#include <string_view>

#include <opencv2/core.hpp>

#include "images/bytes.hpp"

namespace hgdeploy {

// The orientation that a file's EXIF data says; 0 where it says none. Of a JPEG: its APP1 segments.
int exif_orientation_of_jpeg(std::string_view segments);
int exif_orientation_of_png(const Bytes& data);
int exif_orientation_of_webp(const Bytes& data);

// The picture as it is meant to be seen.
cv::Mat turned(const cv::Mat& image, int orientation);

}  // namespace hgdeploy
