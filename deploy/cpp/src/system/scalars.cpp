// SPDX-License-Identifier: Apache-2.0
// What YAML 1.1 makes of a scalar without quotes, as PyYAML reads it.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string_view>

#include "errors.hpp"
#include "system/text.hpp"
#include "system/value.hpp"

namespace hgdeploy {
namespace {

constexpr std::size_t most_digits = 1000;
constexpr std::string_view decimal = "0123456789";
constexpr std::string_view decimal_ = "0123456789_";

using Found = std::optional<Value>;

bool is_all(std::string_view text, std::string_view allowed) {
  return !text.empty() && text.find_first_not_of(allowed) == std::string_view::npos;
}

bool starts_with_digit(std::string_view text) {
  return !text.empty() && decimal.find(text[0]) != std::string_view::npos;
}

std::string without_underscores(std::string_view text) {
  std::string result(text);
  result.erase(std::remove(result.begin(), result.end(), '_'), result.end());
  return result;
}

// A whole number of some base; its digits may have underscores between them.
Found whole_number(std::string_view written, int base, bool negative) {
  const std::string digits = without_underscores(written);
  std::uint64_t size = 0;
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, size, base);
  if (digits.empty() || stop != end) {
    return std::nullopt;
  }
  constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (error != std::errc::result_out_of_range && size <= most) {
    const auto value = static_cast<std::int64_t>(size);
    return Value::of(negative ? -value : value);
  }
  Value value = Value::of(negative ? std::numeric_limits<std::int64_t>::min()
                                   : std::numeric_limits<std::int64_t>::max());
  value.text = (negative ? "-" : "") + digits.substr(digits.find_first_not_of('0'));
  value.real = std::strtod(value.text.c_str(), nullptr);
  return value;
}

// Parts of a number of base 60 behind its first: each has one or two digits and is below 60.
bool are_sixtieths(std::string_view rest) {
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find(':', 1), rest.size());
    const std::string_view part = rest.substr(1, end - 1);
    const bool fits =
        part.size() <= 2 && is_all(part, decimal) && (part.size() == 1 || part[0] <= '5');
    if (rest[0] != ':' || !fits) {
      return false;
    }
    rest.remove_prefix(end);
  }
  return true;
}

double base60(std::string_view text) {
  double size = 0;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t colon = std::min(text.find(':', at), text.size());
    const std::string part = without_underscores(text.substr(at, colon - at));
    size = size * 60 + std::strtod(part.c_str(), nullptr);
    at = colon + 1;
  }
  return size;
}

Found integer(std::string_view text, bool negative) {
  if (text.substr(0, 2) == "0b" && is_all(text.substr(2), "01_")) {
    return whole_number(text.substr(2), 2, negative);
  }
  if (text.substr(0, 2) == "0x" && is_all(text.substr(2), "0123456789abcdefABCDEF_")) {
    return whole_number(text.substr(2), 16, negative);
  }
  if (text.size() > 1 && text[0] == '0') {
    return is_all(text, "01234567_") ? whole_number(text, 8, negative) : std::nullopt;
  }
  const std::size_t colon = std::min(text.find(':'), text.size());
  if (!starts_with_digit(text) || !is_all(text.substr(0, colon), decimal_)) {
    return std::nullopt;
  }
  if (colon == text.size()) {
    return whole_number(text, 10, negative);
  }
  if (!are_sixtieths(text.substr(colon))) {
    return std::nullopt;
  }
  const auto size = static_cast<std::int64_t>(base60(text));
  return Value::of(negative ? -size : size);
}

// What stands behind the point: digits, and an exponent with a sign.
bool is_fraction(std::string_view text) {
  const std::size_t e = std::min(text.find_first_of("eE"), text.size());
  const std::string_view digits = text.substr(0, e);
  const std::string_view exponent = text.substr(e);
  const bool fits =
      exponent.empty() || (exponent.size() > 2 && (exponent[1] == '-' || exponent[1] == '+') &&
                           is_all(exponent.substr(2), decimal));
  return fits && (digits.empty() || is_all(digits, decimal_));
}

Found real_number(std::string_view text, bool negative, bool has_sign) {
  const std::string_view word = text.substr(0, 1) == "." ? text.substr(1) : "";
  std::optional<double> size;
  if (word == "inf" || word == "Inf" || word == "INF") {
    size = std::numeric_limits<double>::infinity();
  } else if (!has_sign && (word == "nan" || word == "NaN" || word == "NAN")) {
    size = std::numeric_limits<double>::quiet_NaN();
  } else if (!has_sign && starts_with_digit(word) && is_fraction(word)) {
    size = std::strtod(without_underscores(text).c_str(), nullptr);
  }
  const std::size_t point = text.find('.');
  if (!size && starts_with_digit(text) && point != std::string_view::npos) {
    const std::size_t colon = std::min(text.find(':'), point);
    const bool whole = is_all(text.substr(0, colon), decimal_);
    if (whole && colon == point && is_fraction(text.substr(point + 1))) {
      size = std::strtod(without_underscores(text).c_str(), nullptr);
    } else if (whole && colon != point && are_sixtieths(text.substr(colon, point - colon)) &&
               (point + 1 == text.size() || is_all(text.substr(point + 1), decimal_))) {
      size = base60(text);
    }
  }
  return size ? Found(Value::of(negative ? -*size : *size)) : std::nullopt;
}

template <std::size_t count>
bool is_among(std::string_view text, const std::string_view (&words)[count]) {
  return std::find(std::begin(words), std::end(words), text) != std::end(words);
}

}  // namespace

Value scalar_of(const std::string& text) {
  static constexpr std::string_view nulls[] = {"~", "null", "Null", "NULL", ""};
  static constexpr std::string_view yes[] = {"yes",  "Yes", "YES", "true", "True",
                                             "TRUE", "on",  "On",  "ON"};
  static constexpr std::string_view no[] = {"no",    "No",  "NO",  "false", "False",
                                            "FALSE", "off", "Off", "OFF"};
  if (is_among(text, nulls)) {
    Value value;
    value.kind = Value::Kind::null;
    return value;
  }
  if (is_among(text, yes) || is_among(text, no)) {
    return Value::of(is_among(text, yes));
  }
  std::string_view digits = text;
  const bool has_sign = digits[0] == '-' || digits[0] == '+';
  digits.remove_prefix(has_sign ? 1 : 0);
  Found found = integer(digits, text[0] == '-');
  if (!found) {
    found = real_number(digits, text[0] == '-', has_sign);
  }
  if (found && text.size() > most_digits) {
    throw ConfigError("it holds a number of " + std::to_string(text.size()) + " digits");
  }
  return found.value_or(Value::of(text));
}

}  // namespace hgdeploy
