// SPDX-License-Identifier: Apache-2.0
#include "images/orientation.hpp"

#include <cstdint>

#include "images/png.hpp"

namespace hgdeploy {
namespace {

constexpr std::uint64_t required_mark = 42;
constexpr std::uint64_t orientation_tag = 0x112;
constexpr std::uint32_t entry_size = 12;

}  // namespace

int exif_orientation(std::string_view exif) {
  const Bytes data(exif);
  const bool little = exif.substr(0, 2) == "II";
  const auto number = [&](std::uint64_t at, std::size_t count) {
    return little ? data.little_endian(at, count) : data.big_endian(at, count);
  };
  try {
    if (number(2, 2) != required_mark) {
      return 0;
    }
    auto at = static_cast<std::uint32_t>(number(4, 4));
    const std::uint64_t entries = number(at, 2);
    at += 2;  // may wrap around, as OpenCV's does
    for (std::uint64_t i = 0; i < entries; ++i, at += entry_size) {
      if (number(at, 2) == orientation_tag) {
        return static_cast<int>(number(std::uint64_t{at} + 8, 2));
      }
    }
  } catch (const PastTheEnd&) {
  }
  return 0;
}

int exif_orientation_of_jpeg(std::string_view segments) {
  constexpr std::size_t marker_and_length = 4;
  constexpr std::size_t name = 6;  // "Exif\0\0", which OpenCV does not look at
  if (segments.size() < marker_and_length) {
    return 0;
  }
  const auto length = static_cast<std::size_t>(Bytes(segments).big_endian(2, 2));
  const std::string_view body = segments.substr(0, length + 2).substr(marker_and_length);
  return body.size() > name ? exif_orientation(body.substr(name)) : 0;
}

int exif_orientation_of_png(const Bytes& data) {
  std::uint64_t at = png_signature.size();
  while (at + 12 <= data.size()) {
    const std::uint64_t length = data.big_endian(at, 4);
    const std::string_view chunk = data.text(at + 4, 4);
    if (chunk == "eXIf" && length <= data.size() - at - 12) {
      return exif_orientation(data.text(at + 8, static_cast<std::size_t>(length)));
    }
    at += length + 12;
  }
  return 0;
}

int exif_orientation_of_webp(const Bytes& data) {
  constexpr unsigned exif_flag = 0x08;
  if (data.slice(12, 4) != "VP8X" || (data.byte(20) & exif_flag) == 0) {
    return 0;
  }
  std::uint64_t at = 12;
  while (at + 8 <= data.size()) {
    const std::uint64_t length = data.little_endian(at + 4, 4);
    if (data.text(at, 4) == "EXIF" && length <= data.size() - at - 8) {
      return exif_orientation(data.text(at + 8, static_cast<std::size_t>(length)));
    }
    at += 8 + length + length % 2;
  }
  return 0;
}

cv::Mat turned(const cv::Mat& image, int orientation) {
  cv::Mat result = image;
  if (orientation >= 5 && orientation <= 8) {
    cv::transpose(image, result);
  }
  cv::Mat flipped;
  switch (orientation) {
    case 2:
    case 6:
      cv::flip(result, flipped, 1);
      return flipped;
    case 3:
    case 7:
      cv::flip(result, flipped, -1);
      return flipped;
    case 4:
    case 8:
      cv::flip(result, flipped, 0);
      return flipped;
    default:
      return result;
  }
}

}  // namespace hgdeploy
