// SPDX-License-Identifier: Apache-2.0
#include "images/png.hpp"

#include <algorithm>
#include <array>
#include <cctype>

#include "system/text.hpp"

namespace hgdeploy {
namespace {

// `cv::imread` gives an animation's default image, so its chunks are left out; compressed text is,
// because libpng unpacks it: up to 8 MB from 8 KB, and up to a thousand times in a file.
constexpr std::array<std::string_view, 5> spare{"acTL", "fcTL", "fdAT", "zTXt", "iTXt"};

std::string shown(std::string_view chunk) {
  return repr_bytes(reinterpret_cast<const std::uint8_t*>(chunk.data()), chunk.size());
}

bool is_letter(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

}  // namespace

PngHeader read_png_header(const Bytes& data) {
  PngHeader header;
  header.sides = {data.big_endian(16, 4), data.big_endian(20, 4)};
  const std::string_view first = data.text(12, 4);
  if (first == "CgBI") {
    throw Damage("it is Apple's own kind, as Xcode packs it into apps; convert it first");
  }
  if (first != "IHDR") {
    throw Damage("its first chunk is " + shown(first));
  }
  std::uint64_t position = png_signature.size();
  std::string_view chunk;
  while (chunk != "IEND") {
    const std::uint64_t length = data.big_endian(position, 4);
    chunk = data.text(position + 4, 4);
    if (!std::all_of(chunk.begin(), chunk.end(), is_letter)) {
      throw Damage("a chunk is called " + shown(chunk));
    }
    const std::uint64_t end = position + 12 + length;
    if (std::find(spare.begin(), spare.end(), chunk) != spare.end()) {
      header.spare.emplace_back(position, end);
    }
    position = end;
  }
  header.whole = position <= data.size();
  return header;
}

std::vector<std::uint8_t> without_parts(const Bytes& data, const std::vector<SpanOfFile>& parts) {
  std::vector<std::uint8_t> result;
  result.reserve(data.size());
  std::size_t start = 0;
  const auto keep = [&](std::size_t end) {
    result.insert(result.end(), data.data() + start, data.data() + end);
  };
  for (const auto& [left, right] : parts) {
    keep(left);
    start = std::min(right, data.size());
  }
  keep(data.size());
  return result;
}

}  // namespace hgdeploy
