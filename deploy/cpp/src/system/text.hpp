// SPDX-License-Identifier: Apache-2.0
// Text as Python shows it. Texts are UTF-8; a byte that is not UTF-8 is kept, and shown as the half
// of a surrogate pair that Python makes of it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hgdeploy {

// The characters of a text; a byte that is no UTF-8 is U+DC80..U+DCFF, as Python's surrogateescape.
std::u32string characters(std::string_view text);
// The inverse of `characters`.
std::string bytes_of(std::u32string_view text);
// Whether all of it is UTF-8; otherwise `at` is the first byte that is not.
bool is_utf8(std::string_view text, std::size_t* at = nullptr);

// `repr` of a str, of bytes, and of a float.
std::string repr(std::string_view text);
std::string repr_bytes(const std::uint8_t* data, std::size_t size);
std::string repr(double value);

// The text with what would break or turn a line, and undecodable bytes, escaped:
// hgdeploy.transforms.prediction.printable.
std::string printable(std::string_view text);

// Python's str.isprintable.
bool is_printable(std::string_view text);
// Lower case of ASCII letters; others stay.
std::string lower(std::string_view text);
// Without what Python's str.strip takes away.
std::string strip(std::string_view text);
std::string join(const std::vector<std::string>& parts, std::string_view between);
// `did you mean 'x'?` if one name is close, else `expected one of: a, b`: hgdeploy.errors.nearest.
std::string nearest(const std::string& name, std::vector<std::string> allowed);

}  // namespace hgdeploy
