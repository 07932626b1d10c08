// SPDX-License-Identifier: Apache-2.0
// The part of Python's literals that a config may hold: numbers, texts, lists, None, True and False.
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>
#include <regex>

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

  std::optional<Value> number() {
    static const std::regex form(
        "([-+ ]*)(?:(0|[1-9](?:_?[0-9])*|0(?:_?0)*)(?![.eE_0-9xXoObB])"
        "|((?:[0-9](?:_?[0-9])*)?\\.?(?:[0-9](?:_?[0-9])*)?(?:[eE][-+]?[0-9]+)?))");
    std::cmatch found;
    const std::string held(left_.substr(0, 400));
    if (!std::regex_search(held.c_str(), found, form, std::regex_constants::match_continuous)) {
      return std::nullopt;
    }
    std::string digits = found[2].matched ? found[2].str() : found[3].str();
    digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
    if (digits.find_first_of("0123456789") == std::string::npos ||
        digits.find_first_of("0123456789") > digits.find_first_of("eE")) {
      return std::nullopt;
    }
    left_.remove_prefix(static_cast<std::size_t>(found.length(0)));
    if (!left_.empty() && (std::isalnum(static_cast<unsigned char>(left_[0])) || left_[0] == '_')) {
      return std::nullopt;
    }
    const std::string signs = found[1].str();
    const bool negative = std::count(signs.begin(), signs.end(), '-') % 2 != 0;
    if (!found[2].matched) {
      const bool leading_zero =
          digits.size() > 1 && digits.find_first_not_of("0123456789") == std::string::npos;
      if (leading_zero) {  // 010, which Python refuses
        return std::nullopt;
      }
      const double real = std::strtod(digits.c_str(), nullptr);
      return Value::of(negative ? -real : real);
    }
    if (digits.size() > 18) {
      Value large = Value::of(std::strtod(digits.c_str(), nullptr) * (negative ? -1 : 1));
      large.kind = Value::Kind::integer;
      large.whole = negative ? INT64_MIN : INT64_MAX;
      large.text = (negative ? "-" : "") + digits;
      return large;
    }
    const std::int64_t whole = std::strtoll(digits.c_str(), nullptr, 10);
    return Value::of(negative ? -whole : whole);
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
