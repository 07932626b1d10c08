// SPDX-License-Identifier: Apache-2.0
#include "images/webp.hpp"

#include <string>

namespace hgdeploy {
namespace {

constexpr unsigned animation_flag = 0x02;
constexpr char alpha_flag = 0x10;
constexpr std::size_t frame_header = 16;

std::string little_endian(std::uint64_t value, int bytes) {
  std::string result;
  for (int i = 0; i < bytes; ++i) {
    result += static_cast<char>(value >> 8 * i & 0xFF);
  }
  return result;
}

std::string chunk(const std::string& name, const std::string& body) {
  return name + little_endian(body.size(), 4) + body + std::string(body.size() % 2, '\0');
}

}  // namespace

std::optional<WebpFrame> first_webp_frame(const Bytes& data) {
  if (data.slice(12, 4) != "VP8X" || (data.byte(20) & animation_flag) == 0) {
    return std::nullopt;
  }
  std::uint64_t at = 12;
  while (at + 8 + frame_header <= data.size()) {
    const std::uint64_t length = data.little_endian(at + 4, 4);
    if (data.text(at, 4) != "ANMF") {
      at += 8 + length + length % 2;
      continue;
    }
    if (length < frame_header || length > data.size() - at - 8) {
      return std::nullopt;
    }
    WebpFrame frame;
    frame.left = static_cast<int>(2 * data.little_endian(at + 8, 3));
    frame.top = static_cast<int>(2 * data.little_endian(at + 11, 3));
    const std::string sides = little_endian(data.little_endian(at + 14, 6), 6);
    const std::string picture(
        data.text(at + 8 + frame_header, static_cast<std::size_t>(length) - frame_header));
    const bool alpha = picture.rfind("ALPH", 0) == 0 || picture.rfind("VP8L", 0) == 0;
    const std::string flags{alpha ? alpha_flag : '\0', '\0', '\0', '\0'};
    const std::string body = "WEBP" + chunk("VP8X", flags + sides) + picture;
    const std::string file = "RIFF" + little_endian(body.size(), 4) + body;
    frame.file.assign(file.begin(), file.end());
    return frame;
  }
  return std::nullopt;
}

}  // namespace hgdeploy
