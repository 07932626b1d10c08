// SPDX-License-Identifier: Apache-2.0
#include "system/value.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>
#include <regex>

#include <yaml-cpp/yaml.h>

#include "errors.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

using Kind = Value::Kind;

constexpr int most_depth = 64;
constexpr std::size_t most_digits = 1000;
constexpr long most_values = 1'000'000;

std::string without(std::string text, char unwanted) {
  text.erase(std::remove(text.begin(), text.end(), unwanted), text.end());
  return text;
}

// A whole number of some base from its digits.
std::optional<Value> integer(const std::string& digits, int base, bool negative) {
  if (digits.empty() || digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) {
    return std::nullopt;
  }
  Value value;
  value.kind = Kind::integer;
  std::uint64_t size = 0;
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, size, base);
  if (stop != end) {
    return std::nullopt;
  }
  const bool large = error == std::errc::result_out_of_range ||
                     size > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (large) {
    value.whole = negative ? std::numeric_limits<std::int64_t>::min()
                           : std::numeric_limits<std::int64_t>::max();
    const std::size_t first = std::min(digits.find_first_not_of('0'), digits.size() - 1);
    value.text = (negative ? "-" : "") + digits.substr(first);
    value.real = std::strtod(value.text.c_str(), nullptr);
    return value;
  }
  value.whole = negative ? -static_cast<std::int64_t>(size) : static_cast<std::int64_t>(size);
  value.real = static_cast<double>(value.whole);
  value.text = std::to_string(value.whole);
  return value;
}

// 1:30:00 and 1:30.5, numbers of base 60.
std::optional<Value> base60(std::string digits, bool negative, bool whole) {
  double size = 0;
  for (std::size_t at = 0; at <= digits.size();) {
    const std::size_t colon = std::min(digits.find(':', at), digits.size());
    size = size * 60 + std::strtod(digits.substr(at, colon - at).c_str(), nullptr);
    at = colon + 1;
  }
  size = negative ? -size : size;
  return whole ? Value::of(static_cast<std::int64_t>(size)) : Value::of(size);
}

std::optional<Value> yaml_integer(const std::string& text) {
  static const std::regex form(
      "[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+"
      "|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+");
  if (!std::regex_match(text, form)) {
    return std::nullopt;
  }
  std::string digits = without(text, '_');
  const bool negative = digits[0] == '-';
  if (negative || digits[0] == '+') {
    digits.erase(0, 1);
  }
  if (digits.find(':') != std::string::npos) {
    return base60(digits, negative, true);
  }
  if (digits.rfind("0b", 0) == 0) {
    return integer(digits.substr(2), 2, negative);
  }
  if (digits.rfind("0x", 0) == 0) {
    return integer(digits.substr(2), 16, negative);
  }
  return digits.size() > 1 && digits[0] == '0' ? integer(digits, 8, negative)
                                               : integer(digits, 10, negative);
}

std::optional<Value> yaml_float(const std::string& text) {
  static const std::regex form(
      "[-+]?(?:[0-9][0-9_]*)\\.[0-9_]*(?:[eE][-+][0-9]+)?|\\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
      "|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\\.[0-9_]*|[-+]?\\.(?:inf|Inf|INF)|\\.(?:nan|NaN|NAN)");
  if (!std::regex_match(text, form)) {
    return std::nullopt;
  }
  std::string digits = lower(without(text, '_'));
  const bool negative = digits[0] == '-';
  if (negative || digits[0] == '+') {
    digits.erase(0, 1);
  }
  if (digits.find(':') != std::string::npos) {
    return base60(digits, negative, false);
  }
  double size = digits == ".inf"   ? std::numeric_limits<double>::infinity()
                : digits == ".nan" ? std::numeric_limits<double>::quiet_NaN()
                                   : std::strtod(digits.c_str(), nullptr);
  return Value::of(negative ? -size : size);
}

// What YAML 1.1 makes of a scalar without quotes.
Value resolved(const std::string& text) {
  static const std::set<std::string> nulls{"~", "null", "Null", "NULL", ""};
  static const std::set<std::string> yes{"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"};
  static const std::set<std::string> no{"no",    "No",  "NO",  "false", "False",
                                        "FALSE", "off", "Off", "OFF"};
  if (nulls.count(text) != 0) {
    Value value;
    value.kind = Kind::null;
    return value;
  }
  if (yes.count(text) != 0 || no.count(text) != 0) {
    return Value::of(yes.count(text) != 0);
  }
  if (std::string("-+.0123456789").find(text[0]) != std::string::npos && text.size() <= 10'000) {
    if (std::optional<Value> found = yaml_integer(text); found || (found = yaml_float(text))) {
      if (text.size() > most_digits) {
        throw ConfigError("it holds a number of " + std::to_string(text.size()) + " digits");
      }
      return *found;
    }
  }
  return Value::of(text);
}

// Walks a tree of nodes.
class Reader {
 public:
  explicit Reader(const std::set<std::string>& texts) : texts_(texts) {}

  Value read(const YAML::Node& node, int depth = 0) {
    if (depth >= most_depth) {
      throw ConfigError("it is nested deeper than " + std::to_string(most_depth) + " levels");
    }
    if (++count_ > most_values) {
      throw ConfigError("its aliases make more than 1,000,000 values of it");
    }
    if (node.IsScalar()) {
      return scalar(node);
    }
    if (node.IsSequence()) {
      Value value;
      value.kind = Kind::list;
      for (const YAML::Node& item : node) {
        value.items.push_back(read(item, depth + 1));
      }
      return value;
    }
    if (node.IsMap()) {
      return mapping(node, depth);
    }
    return resolved("");
  }

 private:
  static bool is_plain(const YAML::Node& node) { return node.Tag() == "?"; }

  static Value scalar(const YAML::Node& node) {
    const std::string tag = node.Tag();
    const bool made = tag == "?" || tag.rfind("tag:yaml.org,2002:", 0) == 0;
    return made && tag != "tag:yaml.org,2002:str" ? resolved(node.Scalar())
                                                  : Value::of(node.Scalar());
  }

  static Value as_written(const YAML::Node& node) {
    Value value = scalar(node);
    Value text = Value::of(node.IsNull() ? std::string() : node.Scalar());
    if (node.IsNull() && node.Tag() == "?") {
      text.text = node.Scalar();
    }
    const bool printed = value.is(Kind::boolean) || value.is_number();
    text.bare = printed && str(value) == text.text;
    return text;
  }

  Value labels(const YAML::Node& node, int depth) {
    if (node.IsSequence()) {
      Value value;
      value.kind = Kind::list;
      for (const YAML::Node& item : node) {
        value.items.push_back(item.IsScalar() || item.IsNull() ? as_written(item)
                                                               : read(item, depth + 1));
      }
      return value;
    }
    return node.IsScalar() || node.IsNull() ? as_written(node) : read(node, depth);
  }

  void merge(Value& value, const YAML::Node& from, int depth) {
    if (from.IsSequence()) {
      for (const YAML::Node& each : from) {
        merge(value, each, depth + 1);
      }
      return;
    }
    if (!from.IsMap()) {
      throw ConfigError("expected a mapping or list of mappings for merging");
    }
    const Value other = mapping(from, depth + 1);
    for (const auto& entry : other.entries) {
      if (value.at(str(entry.first)).is(Kind::missing)) {
        value.entries.push_back(entry);
      }
    }
  }

  Value mapping(const YAML::Node& node, int depth) {
    Value value;
    value.kind = Kind::mapping;
    std::set<std::string> seen;
    std::vector<YAML::Node> merged;
    for (const auto& pair : node) {
      if (pair.first.IsScalar() && is_plain(pair.first) && pair.first.Scalar() == "<<") {
        merged.push_back(pair.second);
        continue;
      }
      Value key = read(pair.first, depth + 1);
      const std::string shown = repr(key);
      if (!seen.insert(shown).second) {
        throw ConfigError("the key " + shown + " stands twice");
      }
      const bool written = pair.first.IsScalar() && texts_.count(pair.first.Scalar()) != 0;
      Value inner = written ? labels(pair.second, depth + 1) : read(pair.second, depth + 1);
      value.entries.emplace_back(std::move(key), std::move(inner));
    }
    for (const YAML::Node& each : merged) {
      merge(value, each, depth);
    }
    return value;
  }

  const std::set<std::string>& texts_;
  long count_ = 0;
};

}  // namespace

Value Value::of(bool truth) {
  Value value;
  value.kind = Kind::boolean;
  value.truth = truth;
  return value;
}

Value Value::of(std::int64_t whole) {
  Value value;
  value.kind = Kind::integer;
  value.whole = whole;
  value.real = static_cast<double>(whole);
  value.text = std::to_string(whole);
  return value;
}

Value Value::of(double real) {
  Value value;
  value.kind = Kind::real;
  value.real = real;
  return value;
}

Value Value::of(std::string text) {
  Value value;
  value.kind = Kind::text;
  value.text = std::move(text);
  return value;
}

const Value& Value::at(const std::string& key) const {
  static const Value missing;
  for (const auto& [name, value] : entries) {
    if (name.is(Kind::text) && name.text == key) {
      return value;
    }
  }
  return missing;
}

std::string str(const Value& value) { return value.is(Kind::text) ? value.text : repr(value); }

std::string repr(const Value& value) {
  switch (value.kind) {
    case Kind::missing: return "missing";
    case Kind::null: return "None";
    case Kind::boolean: return value.truth ? "True" : "False";
    case Kind::integer: return value.text;
    case Kind::real: return repr(value.real);
    case Kind::text: return value.bare ? value.text : repr(value.text);
    case Kind::list: {
      std::vector<std::string> parts;
      std::transform(value.items.begin(), value.items.end(), std::back_inserter(parts),
                     [](const Value& item) { return repr(item); });
      if (value.tuple) {
        return "(" + join(parts, ", ") + (parts.size() == 1 ? ",)" : ")");
      }
      return "[" + join(parts, ", ") + "]";
    }
    case Kind::mapping: {
      std::vector<std::string> parts;
      for (const auto& [key, inner] : value.entries) {
        parts.push_back(repr(key) + ": " + repr(inner));
      }
      return "{" + join(parts, ", ") + "}";
    }
  }
  return "";
}

Value value_of(const YAML::Node& node, const std::set<std::string>& texts) {
  return Reader(texts).read(node);
}

const std::set<std::string>& label_keys() {
  static const std::set<std::string> keys{"label_list", "label_0", "label_1"};
  return keys;
}

}  // namespace hgdeploy
