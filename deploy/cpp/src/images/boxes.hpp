// SPDX-License-Identifier: Apache-2.0
// AVIF and JPEG 2000 files, whose parts are boxes: how large their pictures are;
// deploy/python/hgdeploy/images/boxes.py.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "images/bytes.hpp"

namespace hgdeploy {

using namespace std::string_view_literals;

inline constexpr std::string_view jp2_signature = "\0\0\0\x0cjP  \r\n\x87\n"sv;
inline constexpr std::string_view codestream = "\xff\x4f\xff\x51"sv;

struct Sides {
  std::uint64_t width = 0;
  std::uint64_t height = 0;
};

// The brands of a file whose first box is `ftyp`; none of another file.
std::set<std::string_view> brands(const Bytes& data);
// Width and height of a file's largest picture. Both throw PastTheEnd and Damage.
Sides read_avif_size(const Bytes& data);
Sides read_jpeg2000_size(const Bytes& data);

}  // namespace hgdeploy
