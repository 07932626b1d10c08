// SPDX-License-Identifier: Apache-2.0
#include "images/orientation.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

#include "images/png.hpp"

namespace hgdeploy {
namespace {

constexpr std::uint64_t required_mark = 42;
constexpr std::uint32_t entry_size = 12;
constexpr std::uint64_t orientation_tag = 0x112;

// OpenCV reads some other fields too, and stops at one that it cannot read.
constexpr std::array<std::uint64_t, 6> text_tags{0x10E, 0x10F, 0x110, 0x131, 0x132, 0x8298};
constexpr std::array<std::uint64_t, 2> number_tags{0x128, 0x213};

// How many fractions the other tags hold that OpenCV reads.
std::uint64_t fractions_of(std::uint64_t tag) {
  switch (tag) {
    case 0x11A:
    case 0x11B: return 1;
    case 0x13E: return 2;
    case 0x211: return 3;
    case 0x13F:
    case 0x214: return 6;
    default: return 0;
  }
}

template <std::size_t count>
bool is_among(std::uint64_t tag, const std::array<std::uint64_t, count>& tags) {
  return std::find(tags.begin(), tags.end(), tag) != tags.end();
}

class ExifReader {
 public:
  explicit ExifReader(std::string_view exif) : data_(exif), little_(exif.substr(0, 2) == "II") {}

  // Nothing where it does not say any.
  std::optional<int> orientation() const {
    if (number(2, 2) != required_mark) {
      return std::nullopt;
    }
    auto at = static_cast<std::uint32_t>(number(4, 4));
    const std::uint64_t entries = number(at, 2);
    at += 2;  // may wrap around, as OpenCV's does
    for (std::uint64_t i = 0; i < entries; ++i, at += entry_size) {
      const std::uint64_t tag = number(at, 2);
      if (tag == orientation_tag) {
        return static_cast<int>(number(std::uint64_t{at} + 8, 2));
      }
      read_other(tag, at);
    }
    return std::nullopt;
  }

 private:
  std::uint64_t number(std::uint64_t at, std::size_t count) const {
    return little_ ? data_.little_endian(at, count) : data_.big_endian(at, count);
  }

  void read_other(std::uint64_t tag, std::uint64_t at) const {
    if (is_among(tag, number_tags)) {
      number(at + 8, 2);
    } else if (is_among(tag, text_tags)) {
      const std::uint64_t size = number(at + 4, 4);
      const std::uint64_t place = size > 4 ? number(at + 8, 4) : 8;
      if (place + size > data_.size()) {
        throw PastTheEnd();
      }
    } else if (const std::uint64_t fractions = fractions_of(tag); fractions != 0) {
      const std::uint64_t place = number(at + 8, 4);
      for (std::uint64_t i = 0; i < 2 * fractions; ++i) {
        // The offset of each is one of 32 bits.
        number(static_cast<std::uint32_t>(place + 4 * i), 4);
      }
    }
  }

  Bytes data_;
  bool little_;
};

std::optional<int> orientation_of(std::string_view exif) {
  try {
    return ExifReader(exif).orientation();
  } catch (const PastTheEnd&) {
    return std::nullopt;
  }
}

std::uint32_t crc_of(std::string_view bytes) {
  std::uint32_t crc = 0xFFFFFFFF;
  for (const char byte : bytes) {
    crc ^= static_cast<std::uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) {
      crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xEDB88320 : 0);
    }
  }
  return ~crc;
}

}  // namespace

int exif_orientation_of_jpeg(std::string_view segments) {
  constexpr std::string_view name = "Exif\0\0"sv;
  const Bytes data(segments);
  std::size_t at = 0;
  while (at + 4 <= data.size()) {
    const auto end = at + 2 + static_cast<std::size_t>(data.big_endian(at + 2, 2));
    const std::string_view body = data.slice(at + 4, end - std::min(end, at + 4));
    if (body.size() > name.size() && body.substr(0, name.size()) == name) {
      if (const std::optional<int> found = orientation_of(body.substr(name.size()))) {
        return *found;
      }
    }
    at = std::max(end, at + 4);
  }
  return 0;
}

int exif_orientation_of_png(const Bytes& data) {
  std::uint64_t at = png_signature.size();
  while (at + 12 <= data.size()) {
    const std::uint64_t length = data.big_endian(at, 4);
    if (length > data.size() - at - 12) {
      return 0;
    }
    const std::string_view exif = data.text(at + 8, static_cast<std::size_t>(length));
    const std::string_view order = exif.substr(0, 2);
    // libpng takes the first that is right.
    if (data.text(at + 4, 4) == "eXIf" && length >= 4 && (order == "II" || order == "MM") &&
        crc_of(data.text(at + 4, static_cast<std::size_t>(length) + 4)) ==
            data.big_endian(at + 8 + length, 4)) {
      return orientation_of(exif).value_or(0);
    }
    at += length + 12;
  }
  return 0;
}

int exif_orientation_of_webp(const Bytes& file) {
  constexpr unsigned exif_flag = 0x08;
  constexpr unsigned unknown_flags = 0xC1;  // with which libwebp reads no parts
  const auto end = static_cast<std::size_t>(file.little_endian(4, 4)) + 8;
  const Bytes data(file.slice(0, end));
  if (data.slice(12, 4) != "VP8X" || (data.byte(20) & (exif_flag | unknown_flags)) != exif_flag) {
    return 0;
  }
  std::uint64_t at = 12;
  while (at + 8 <= data.size()) {
    const std::uint64_t length = data.little_endian(at + 4, 4);
    if (data.text(at, 4) == "EXIF" && length <= data.size() - at - 8) {
      return orientation_of(data.text(at + 8, static_cast<std::size_t>(length))).value_or(0);
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
    case 6: cv::flip(result, flipped, 1); return flipped;
    case 3:
    case 7: cv::flip(result, flipped, -1); return flipped;
    case 4:
    case 8: cv::flip(result, flipped, 0); return flipped;
    default: return result;
  }
}

}  // namespace hgdeploy
