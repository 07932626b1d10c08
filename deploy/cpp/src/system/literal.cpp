// SPDX-License-Identifier: Apache-2.0
// The part of Python's literals that a config may hold: numbers, texts, lists, None, True and
// False.
#include <algorithm>
#include <cstdlib>
#include <optional>

#include "system/text.hpp"
#include "system/value.hpp"

namespace hgdeploy {
namespace {

constexpr int most_depth = 50;

class Literal {
 public:
  explicit Literal(std::string_view text) : left_(text) {}

  std::optional<Value> read() {
    std::optional<Value> value = open_tuple();
    skip();
    return left_.empty() ? value : std::nullopt;
  }

 private:
  void skip() {
    while (!left_.empty() && (left_[0] == ' ' || left_[0] == '\t')) {
      left_.remove_prefix(1);
    }
  }

  bool take(std::string_view token) {
    skip();
    if (left_.substr(0, token.size()) != token) {
      return false;
    }
    left_.remove_prefix(token.size());
    return true;
  }

  // One value, or several with commas between them, which Python makes a tuple of.
  std::optional<Value> open_tuple() {
    std::optional<Value> first = value(0);
    if (!first || !take(",")) {
      return first;
    }
    Value all;
    all.kind = Value::Kind::list;
    all.tuple = true;
    all.items.push_back(*first);
    skip();
    while (!left_.empty()) {
      const std::optional<Value> next = value(0);
      if (!next) {
        return std::nullopt;
      }
      all.items.push_back(*next);
      if (!take(",")) {
        break;
      }
      skip();
    }
    return all;
  }

  std::optional<Value> value(int depth) {
    skip();
    if (left_.empty() || depth > most_depth) {
      return std::nullopt;
    }
    if (left_[0] == '[' || left_[0] == '(') {
      return list(depth);
    }
    if (left_[0] == '\'' || left_[0] == '"') {
      return quoted();
    }
    for (const auto& [word, truth] : {std::pair{"True", true}, std::pair{"False", false}}) {
      if (take(word)) {
        return Value::of(truth);
      }
    }
    if (take("None")) {
      Value none;
      none.kind = Value::Kind::null;
      return none;
    }
    return number();
  }

  std::optional<Value> list(int depth) {
    const bool round = left_[0] == '(';
    const std::string_view close = round ? ")" : "]";
    left_.remove_prefix(1);
    Value all;
    all.kind = Value::Kind::list;
    all.tuple = round;
    bool comma = true;
    while (!take(close)) {
      const std::optional<Value> next = comma ? value(depth + 1) : std::nullopt;
      if (!next) {
        return std::nullopt;
      }
      all.items.push_back(*next);
      comma = take(",");
      if (round && !comma && all.items.size() == 1) {  // only brackets
        return take(close) ? next : std::nullopt;
      }
    }
    return all;
  }

  std::optional<Value> quoted() {
    const char quote = left_[0];
    const std::size_t end = left_.find(quote, 1);
    if (end == std::string_view::npos) {
      return std::nullopt;
    }
    const std::string_view inside = left_.substr(1, end - 1);
    if (inside.find_first_of("\\\n") != std::string_view::npos) {
      return std::nullopt;
    }
    left_.remove_prefix(end + 1);
    return Value::of(std::string(inside));
  }

  std::string_view run_of_digits() {
    std::size_t end = 0;
    const auto is_digit = [&](std::size_t at) {
      return at < left_.size() && left_[at] >= '0' && left_[at] <= '9';
    };
    while (is_digit(end) ||
           (end > 0 && end < left_.size() && left_[end] == '_' && is_digit(end + 1))) {
      ++end;
    }
    const std::string_view run = left_.substr(0, end);
    left_.remove_prefix(end);
    return run;
  }

  bool take_one(std::string_view letters) {
    if (left_.empty() || letters.find(left_[0]) == std::string_view::npos) {
      return false;
    }
    left_.remove_prefix(1);
    return true;
  }

  std::optional<Value> number() {
    bool negative = false;
    for (skip(); !left_.empty() && (left_[0] == '-' || left_[0] == '+'); skip()) {
      negative = negative != (left_[0] == '-');
      left_.remove_prefix(1);
    }
    const std::string_view start = left_;
    const std::string_view whole = run_of_digits();
    bool real = take_one(".");
    if (run_of_digits().empty() && whole.empty()) {
      return std::nullopt;
    }
    if (take_one("eE")) {
      real = true;
      take_one("+-");
      if (run_of_digits().empty()) {
        return std::nullopt;
      }
    }
    const bool ends = left_.empty() || left_.find_first_not_of(" \t,])") != 0;
    const bool octal = !real && whole[0] == '0' &&  // which Python refuses
                       whole.find_first_not_of("0_") != std::string_view::npos;
    if (!ends || octal) {
      return std::nullopt;
    }
    std::string digits(start.substr(0, start.size() - left_.size()));
    digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
    if (real) {
      const double size = std::strtod(digits.c_str(), nullptr);
      return Value::of(negative ? -size : size);
    }
    const Value size =
        scalar_of((negative ? "-" : "") +
                  digits.substr(std::min(digits.find_first_not_of('0'), digits.size() - 1)));
    return size;
  }

  std::string_view left_;
};

}  // namespace

Value parse_literal(const Value& value) {
  if (!value.is(Value::Kind::text)) {
    return value;
  }
  const std::string word = lower(value.text);
  if (word == "true" || word == "false") {
    return Value::of(word == "true");
  }
  // Python takes away what stands before the value.
  const std::size_t start = value.text.find_first_not_of(" \t");
  if (start == std::string::npos) {
    return value;
  }
  return Literal(std::string_view(value.text).substr(start)).read().value_or(value);
}

}  // namespace hgdeploy
