// SPDX-License-Identifier: Apache-2.0
#include "system/value.hpp"

#include <algorithm>
#include <iterator>

#include <yaml-cpp/yaml.h>

#include "errors.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

using Kind = Value::Kind;

constexpr int most_depth = 64;
constexpr long most_values = 1'000'000;

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
    return scalar_of("");
  }

 private:
  static bool is_plain(const YAML::Node& node) { return node.Tag() == "?"; }

  // yaml-cpp makes single bytes of the escapes \N and \_; all else of a checked file is UTF-8.
  static std::string text_of(const YAML::Node& node) {
    if (is_utf8(node.Scalar())) return node.Scalar();
    std::u32string text = characters(node.Scalar());
    for (char32_t& c : text)
      if (c == 0xDC85 || c == 0xDCA0) c -= 0xDC00;
    return bytes_of(text);
  }

  static Value scalar(const YAML::Node& node) {
    const std::string& tag = node.Tag();
    const bool made = tag == "?" || tag.rfind("tag:yaml.org,2002:", 0) == 0;
    return made && tag != "tag:yaml.org,2002:str" ? scalar_of(text_of(node))
                                                  : Value::of(text_of(node));
  }

  static Value as_written(const YAML::Node& node) {
    Value value = scalar(node);
    Value text = Value::of(node.IsNull() ? node.Tag() : text_of(node));  // yaml_of noted it
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
