// SPDX-License-Identifier: Apache-2.0
// Checks values from outside: deploy/python/hgdeploy/system/checks.py and kinds.py, whose words the
// errors have.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "errors.hpp"
#include "system/value.hpp"

namespace hgdeploy {

// How errors show a value: on one line, and not too long.
std::string cut(const Value& value);
// The place of a mapping's key.
std::string joined(const std::string& where, const Value& key);

// A value from outside, and how to refuse it.
struct Given {
  std::string where;
  Value value;
  std::string hint;
  std::string shown;  // where the value was written otherwise than it is now

  ConfigError refused(const std::string& expected) const;
  ConfigError unknown(const std::vector<std::string>& names) const;
  ConfigError wrong(const std::string& text) const;
  // What stands at a key of this mapping, which may be missing.
  Given at(const std::string& key) const;
  // An empty mapping for null.
  Given or_empty() const;
  Given item(std::size_t index) const;
  // This with the value that a literal in it means.
  Given as_literal() const;
  // This with a float that is a whole number as one.
  Given rounded() const;
};

// Each returns the value, or throws ConfigError.
std::int64_t whole(const Given& given, std::int64_t least,
                   std::int64_t most = std::numeric_limits<std::int64_t>::max());
// A number that is not not-a-number; infinity is one where `finite` is false.
double number(const Given& given, double least = -std::numeric_limits<double>::infinity(),
              bool finite = true);
bool flag(const Given& given);
// Also 0, 1, yes, no, on and off, as texts too.
bool as_switch(const Given& given);
// A text that is not empty.
std::string text(const Given& given);
std::string exactly(const Given& given, const std::vector<std::string>& texts);
void check_mapping(const Given& given);
// A mapping with some of these keys.
void check_keys(const Given& given, const std::vector<std::string>& names);

// Whether a text is a class id: some digits, though not thousands of them.
bool is_class_id(const std::string& written);
Value as_whole(const Value& value);

}  // namespace hgdeploy
