// SPDX-License-Identifier: Apache-2.0
// JPEG files: what their headers say, and a faster way to the pixels that OpenCV gives;
// deploy/python/hgdeploy/images/jpeg.py.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <opencv2/core.hpp>

#include "images/boxes.hpp"
#include "images/bytes.hpp"

namespace hgdeploy {

struct JpegHeader {
  // Of the stored picture, before EXIF orientation.
  Sides sides;
  // Whether the file has its end marker.
  bool whole = false;
  // 8 bits, one or three colours and no rare coding.
  bool plain = false;
  // The APP1 segments, which may hold the orientation.
  std::string exif;
  // How it is coded, where OpenCV may not read it.
  std::string rare;
};

// Reads the segments before the first scan; throws PastTheEnd and Damage.
JpegHeader read_jpeg_header(const Bytes& data);

// 1, 2, 4 or 8: the most that both sides can be divided by, down to `shrink_to`; 0 for the full
// size.
int scale_divisor(const JpegHeader& header, int shrink_to);

// Decodes a plain and faultless JPEG to BGR; nothing if OpenCV has to decode the file itself.
std::optional<cv::Mat> decode_plain_jpeg(const Bytes& data, const JpegHeader& header, int divisor);

}  // namespace hgdeploy
