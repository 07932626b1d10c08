// SPDX-License-Identifier: Apache-2.0
// PNG files: what their chunks say, and which of them no pixel depends on;
// deploy/python/hgdeploy/images/png.py.
#pragma once

#include <utility>
#include <vector>

#include "images/boxes.hpp"
#include "images/bytes.hpp"

namespace hgdeploy {

inline constexpr std::string_view png_signature = "\x89PNG\r\n\x1a\n"sv;

// Start and end of a part of a file.
using SpanOfFile = std::pair<std::size_t, std::size_t>;

struct PngHeader {
  Sides sides;
  bool whole = false;
  // Parts that cost time and that no pixel depends on, in order.
  std::vector<SpanOfFile> spare;
};

// Reads the names and lengths of all chunks; throws PastTheEnd and Damage.
PngHeader read_png_header(const Bytes& data);

// The file without these parts, which do not overlap.
std::vector<std::uint8_t> without_parts(const Bytes& data, const std::vector<SpanOfFile>& parts);

}  // namespace hgdeploy
