// SPDX-License-Identifier: Apache-2.0
#include "system/text.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace hgdeploy {
namespace {

constexpr char32_t first_undecodable = 0xDC00;  // plus the byte, which is 0x80 or more

constexpr std::pair<char32_t, char32_t> unprintable[] = {
#include "system/unprintable.inc"
};

// The length of the UTF-8 character at `at`, or 0 where there is none.
std::size_t length_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) -> unsigned { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(at);
  const std::size_t length = first < 0x80   ? 1
                             : first < 0xC2 ? 0
                             : first < 0xE0 ? 2
                             : first < 0xF0 ? 3
                             : first < 0xF5 ? 4
                                            : 0;
  if (length == 0 || at + length > text.size()) {
    return 0;
  }
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) {
      return 0;
    }
  }
  const unsigned second = length > 1 ? byte(at + 1) : 0;
  const bool overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
  const bool outside = (first == 0xED && second >= 0xA0) || (first == 0xF4 && second >= 0x90);
  return overlong || outside ? 0 : length;
}

char32_t decoded(std::string_view character) {
  static constexpr std::array<unsigned, 5> masks{0, 0x7F, 0x1F, 0x0F, 0x07};
  char32_t value = static_cast<unsigned char>(character[0]) & masks[character.size()];
  for (const char next : character.substr(1)) {
    value = value << 6 | (static_cast<unsigned char>(next) & 0x3F);
  }
  return value;
}

void append(std::string& text, char32_t c) {
  const auto add = [&](char32_t byte) { text += static_cast<char>(byte); };
  if (c >= first_undecodable + 0x80 && c <= first_undecodable + 0xFF) {
    add(c - first_undecodable);
  } else if (c < 0x80) {
    add(c);
  } else if (c < 0x800) {
    add(0xC0 | c >> 6);
    add(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    add(0xE0 | c >> 12);
    add(0x80 | (c >> 6 & 0x3F));
    add(0x80 | (c & 0x3F));
  } else {
    add(0xF0 | c >> 18);
    add(0x80 | (c >> 12 & 0x3F));
    add(0x80 | (c >> 6 & 0x3F));
    add(0x80 | (c & 0x3F));
  }
}

bool is_printable(char32_t c) {
  const auto after =
      std::upper_bound(std::begin(unprintable), std::end(unprintable), c,
                       [](char32_t value, const std::pair<char32_t, char32_t>& range) {
                         return value < range.first;
                       });
  return after == std::begin(unprintable) || c > std::prev(after)->second;
}

std::string escape(char32_t c) {
  switch (c) {
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    default: break;
  }
  std::array<char, 12> shown{};
  const char* format = c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x";
  std::snprintf(shown.data(), shown.size(), format, static_cast<unsigned>(c));
  return shown.data();
}

// Whether a character would break or turn a line: Cc, Cs, Zl, Zp, and what changes the direction of
// writing (https://www.unicode.org/reports/tr9/#Directional_Formatting_Codes).
bool is_unsafe(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0xD800 && c < 0xE000) || c == 0x61C ||
         c == 0x200E || c == 0x200F || (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

}  // namespace

std::u32string characters(std::string_view text) {
  std::u32string result;
  result.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = length_at(text, at);
    result += length == 0 ? first_undecodable + static_cast<unsigned char>(text[at])
                          : decoded(text.substr(at, length));
    at += std::max<std::size_t>(length, 1);
  }
  return result;
}

std::string bytes_of(std::u32string_view text) {
  std::string result;
  for (const char32_t c : text) {
    append(result, c);
  }
  return result;
}

bool is_utf8(std::string_view text, std::size_t* at) {
  for (std::size_t place = 0; place < text.size();) {
    const std::size_t length = length_at(text, place);
    if (length == 0) {
      if (at != nullptr) {
        *at = place;
      }
      return false;
    }
    place += length;
  }
  return true;
}

std::string repr(std::string_view text) {
  const bool single = text.find('\'') != std::string_view::npos;
  const char quote = single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string result(1, quote);
  for (const char32_t c : characters(text)) {
    if (c == '\\' || c == static_cast<char32_t>(quote)) {
      result += '\\';
      result += static_cast<char>(c);
    } else if (is_printable(c)) {
      append(result, c);
    } else {
      result += escape(c);
    }
  }
  return result + quote;
}

std::string repr_bytes(const std::uint8_t* data, std::size_t size) {
  const bool single = std::find(data, data + size, '\'') != data + size;
  const bool both = single && std::find(data, data + size, '"') != data + size;
  const char quote = single && !both ? '"' : '\'';
  std::string result = std::string("b") + quote;
  for (const std::uint8_t* at = data; at != data + size; ++at) {
    if (*at == '\\' || *at == static_cast<std::uint8_t>(quote)) {
      result += '\\';
      result += static_cast<char>(*at);
    } else {
      result += *at >= 0x20 && *at < 0x7F ? std::string(1, static_cast<char>(*at)) : escape(*at);
    }
  }
  return result + quote;
}

std::string repr(double value) {
  if (std::isnan(value)) {
    return "nan";
  }
  if (std::isinf(value)) {
    return value < 0 ? "-inf" : "inf";
  }
  std::array<char, 40> room{};
  const auto end =
      std::to_chars(room.data(), room.data() + room.size(), value, std::chars_format::scientific)
          .ptr;
  std::string digits(room.data(), end);
  const std::string sign = digits[0] == '-' ? "-" : "";
  digits.erase(0, sign.size());
  const std::size_t e = digits.find('e');
  const int exponent = static_cast<int>(std::strtol(digits.c_str() + e + 1, nullptr, 10));
  digits.resize(e);
  digits.erase(std::remove(digits.begin(), digits.end(), '.'), digits.end());
  if (exponent < -4 || exponent >= 16) {
    if (digits.size() > 1) {
      digits.insert(1, ".");
    }
    std::array<char, 8> shown{};
    std::snprintf(shown.data(), shown.size(), "e%+03d", exponent);
    return sign + digits + shown.data();
  }
  if (exponent < 0) {
    return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  }
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= whole) {
    return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  }
  return sign + digits.insert(whole, ".");
}

std::string printable(std::string_view text) {
  std::string result;
  for (const char32_t c : characters(text)) {
    if (is_unsafe(c)) {
      result += escape(c);
    } else {
      append(result, c);
    }
  }
  return result;
}

bool is_printable(std::string_view text) {
  const std::u32string all = characters(text);
  return std::all_of(all.begin(), all.end(), [](char32_t c) { return is_printable(c); });
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return result;
}

std::string strip(std::string_view text) {
  const std::u32string all = characters(text);
  std::u32string_view kept = all;
  while (!kept.empty() && is_space(kept.front())) {
    kept.remove_prefix(1);
  }
  while (!kept.empty() && is_space(kept.back())) {
    kept.remove_suffix(1);
  }
  return bytes_of(kept);
}

std::string join(const std::vector<std::string>& parts, std::string_view between) {
  std::string result;
  for (const std::string& part : parts) {
    if (&part != &parts.front()) {
      result += between;
    }
    result += part;
  }
  return result;
}

}  // namespace hgdeploy
