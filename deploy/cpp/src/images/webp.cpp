// SPDX-License-Identifier: Apache-2.0
#include "images/webp.hpp"

#include <string>
#include <utility>

namespace hgdeploy {
namespace {

constexpr unsigned animation_flag = 0x02;
constexpr unsigned known_flags = 0x3E;
constexpr std::uint64_t frame_header = 16;

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

// A frame, which begins with its place and size, as a file of its own. Its alpha is left out, as no
// colour depends on it; so is its size, as libwebp believes the picture's own.
WebpFrame alone(const Bytes& frame) {
  WebpFrame result;
  result.left = static_cast<int>(2 * frame.little_endian(0, 3));
  result.top = static_cast<int>(2 * frame.little_endian(3, 3));
  for (std::uint64_t at = frame_header; result.file.empty();) {
    const std::uint64_t length = frame.little_endian(at + 4, 4);
    const std::string name(frame.text(at, 4));
    if (name == "VP8 " || name == "VP8L") {
      const std::string picture(frame.text(at + 8, static_cast<std::size_t>(length)));
      const std::string body = "WEBP" + chunk(name, picture);
      const std::string file = "RIFF" + little_endian(body.size(), 4) + body;
      result.file.assign(file.begin(), file.end());
    }
    at += 8 + length + length % 2;
  }
  return result;
}

}  // namespace

std::optional<WebpFrame> first_webp_frame(const Bytes& file) {
  if (file.slice(12, 4) != "VP8X" || (file.byte(20) & animation_flag) == 0) {
    return std::nullopt;
  }
  if ((file.byte(20) & ~known_flags) != 0) {
    throw PastTheEnd();
  }
  const Bytes data(file.slice(0, static_cast<std::size_t>(file.little_endian(4, 4)) + 8));
  std::optional<WebpFrame> first;
  // All of them, since libwebp refuses a file that ends early or has a part that is none.
  for (std::uint64_t at = 12; at < data.size();) {
    const std::uint64_t length = data.little_endian(at + 4, 4);
    const std::string_view part = data.text(at + 8, static_cast<std::size_t>(length));
    if (data.text(at, 4) == "ANMF") {
      const Bytes frame(part);
      first = first ? std::move(first) : alone(frame);
    }
    at += 8 + length + length % 2;
  }
  return first ? std::move(first) : throw PastTheEnd();
}

}  // namespace hgdeploy
