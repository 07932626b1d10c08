// SPDX-License-Identifier: Apache-2.0
#include "system/checks.hpp"

#include <algorithm>
#include <cmath>

#include "system/text.hpp"

namespace hgdeploy {
namespace {

constexpr std::size_t most_shown = 60;
constexpr std::size_t most_id_digits = 18;
constexpr std::int64_t no_limit = std::numeric_limits<std::int64_t>::max();

// The text on one line, with one space where there were several.
std::string on_one_line(const std::string& text) {
  std::string result;
  for (const char c : strip(text)) {
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    if (!space) {
      result += c;
    } else if (result.back() != ' ') {
      result += ' ';
    }
  }
  return result;
}

}  // namespace

std::string cut(const Value& value) {
  Value shown = value;
  shown.tuple = false;
  const std::u32string all = characters(on_one_line(repr(shown)));
  return all.size() <= most_shown ? bytes_of(all) : bytes_of(all.substr(0, most_shown - 3)) + "...";
}

std::string joined(const std::string& where, const Value& key) {
  const std::size_t size = characters(key.text).size();
  const bool plain =
      key.is(Value::Kind::text) && is_printable(key.text) && size > 0 && size <= most_shown;
  std::string name = plain ? key.text : cut(key);
  if (where.empty()) {
    return name;
  }
  return where.back() == ':' ? where + " " + name : where + "." + name;
}

ConfigError Given::refused(const std::string& expected) const {
  std::string place = where;
  if (!place.empty() && place.back() == ':') {
    place.pop_back();
  }
  return wrong(place + " is " + (shown.empty() ? cut(value) : shown) + ", expected " + expected);
}

ConfigError Given::unknown(const std::vector<std::string>& names) const {
  return wrong("unknown " + where + " " + cut(value) + ", " + nearest(str(value), names));
}

ConfigError Given::wrong(const std::string& text) const {
  return ConfigError(hint.empty() ? text : text + "; " + hint);
}

Given Given::at(const std::string& key) const {
  check_mapping(*this);
  return Given{joined(where, Value::of(key)), value.at(key), hint, ""};
}

Given Given::or_empty() const {
  Given result = *this;
  if (value.is(Value::Kind::null)) {
    result.value = Value();
    result.value.kind = Value::Kind::mapping;
  }
  return result;
}

Given Given::item(std::size_t index) const {
  return Given{where + "[" + std::to_string(index) + "]", value.items.at(index), hint, ""};
}

Given Given::as_literal() const { return Given{where, parse_literal(value), hint, cut(value)}; }

Given Given::rounded() const { return Given{where, as_whole(value), hint, shown}; }

std::int64_t whole(const Given& given, std::int64_t least, std::int64_t most) {
  const Value& value = given.value;
  if (!value.is(Value::Kind::integer) || value.whole < least || value.whole > most) {
    const std::string end = most == no_limit ? "" : " to " + std::to_string(most);
    throw given.refused("a whole number from " + std::to_string(least) + end);
  }
  return value.whole;
}

double number(const Given& given, double least, bool finite) {
  const double value = given.value.real;
  // A whole number that is too large for a float is none.
  const bool fits = given.value.is_number() && !std::isnan(value) && value >= least &&
                    (std::isfinite(value) || (!finite && given.value.is(Value::Kind::real)));
  if (!fits) {
    std::string start;
    if (std::isfinite(least)) {
      start = " from " + std::to_string(static_cast<std::int64_t>(least));
    }
    throw given.refused("a number" + start);
  }
  return value;
}

bool flag(const Given& given) {
  if (!given.value.is(Value::Kind::boolean)) {
    throw given.refused("true or false");
  }
  return given.value.truth;
}

bool as_switch(const Given& given) {
  const Value::Kind kind = given.value.kind;
  if (kind == Value::Kind::boolean || kind == Value::Kind::integer || kind == Value::Kind::text) {
    const std::string word = lower(strip(str(given.value)));
    for (const char* yes : {"true", "yes", "on", "1"}) {
      if (word == yes) {
        return true;
      }
    }
    for (const char* no : {"false", "no", "off", "0"}) {
      if (word == no) {
        return false;
      }
    }
  }
  throw given.refused("true or false");
}

std::string text(const Given& given) {
  if (!given.value.is(Value::Kind::text) || given.value.text.empty()) {
    throw given.refused("a text");
  }
  return given.value.text;
}

std::string exactly(const Given& given, const std::vector<std::string>& texts) {
  const bool known = given.value.is(Value::Kind::text) &&
                     std::find(texts.begin(), texts.end(), given.value.text) != texts.end();
  if (!known) {
    std::vector<std::string> first;
    std::transform(texts.begin(), texts.end() - 1, std::back_inserter(first),
                   [](const std::string& each) { return repr(each); });
    throw given.refused((first.empty() ? "" : join(first, ", ") + " or ") + repr(texts.back()));
  }
  return given.value.text;
}

void check_mapping(const Given& given) {
  if (!given.value.is(Value::Kind::mapping)) {
    throw given.refused("a mapping of keys to values");
  }
}

void check_keys(const Given& given, const std::vector<std::string>& names) {
  check_mapping(given);
  for (const auto& [key, value] : given.value.entries) {
    if (!key.is(Value::Kind::text) ||
        std::find(names.begin(), names.end(), key.text) == names.end()) {
      const std::string near = names.empty() ? "there are none" : nearest(str(key), names);
      throw given.wrong("unknown key " + joined(given.where, key) + ", " + near);
    }
  }
}

bool is_class_id(const std::string& written) {
  return !written.empty() && written.size() <= most_id_digits &&
         written.find_first_not_of("0123456789") == std::string::npos;
}

Value as_whole(const Value& value) {
  if (!value.is(Value::Kind::real) || value.real != std::floor(value.real) ||
      !std::isfinite(value.real)) {
    return value;
  }
  if (std::abs(value.real) < 9e18) {
    return Value::of(static_cast<std::int64_t>(value.real));
  }
  Value large = Value::of(value.real < 0 ? std::numeric_limits<std::int64_t>::min() : no_limit);
  large.real = value.real;
  char digits[330];
  std::snprintf(digits, sizeof(digits), "%.0f", value.real);
  large.text = digits;
  return large;
}

}  // namespace hgdeploy
