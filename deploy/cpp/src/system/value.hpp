// SPDX-License-Identifier: Apache-2.0
// A value from a YAML file as PyYAML makes it: YAML 1.1, where `no` is false and `010` is 8.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace YAML {
class Node;
}

namespace hgdeploy {

struct Value {
  enum class Kind { missing, null, boolean, integer, real, text, list, mapping };

  Kind kind = Kind::missing;
  // A tuple, where Python shows it otherwise than a list.
  bool tuple = false;
  // A text that YAML would have made a number or a switch of, and that is shown without quotes.
  bool bare = false;
  bool truth = false;
  std::int64_t whole = 0;  // of a whole number beyond 64 bits: the nearest
  double real = 0;         // of whole numbers too
  std::string text;        // of whole numbers: their digits
  std::vector<Value> items;
  std::vector<std::pair<Value, Value>> entries;

  static Value of(bool truth);
  static Value of(std::int64_t whole);
  static Value of(double real);
  static Value of(std::string text);

  bool is(Kind other) const { return kind == other; }
  bool is_number() const { return kind == Kind::integer || kind == Kind::real; }
  // What stands at a key of this mapping; a missing value where nothing does.
  const Value& at(const std::string& key) const;
};

// Python's repr of it.
std::string repr(const Value& value);
// Python's str of it: texts without quotes.
std::string str(const Value& value);

// Resolves a node. Under the keys `texts`, at any depth, nothing is made of numbers, switches, null
// or dates: they stay texts, as they are written. Throws ConfigError: a number of too many digits,
// values nested too deep, or one key twice; the text is the reason alone.
Value value_of(const YAML::Node& node, const std::set<std::string>& texts = {});
// The keys that hold names of classes.
const std::set<std::string>& label_keys();

// What YAML 1.1 makes of a scalar without quotes. Throws ConfigError: a number of too many digits.
Value scalar_of(const std::string& text);

// What a Python literal in a text means; a text that is none, and no text, as it is.
Value parse_literal(const Value& value);

}  // namespace hgdeploy
