// SPDX-License-Identifier: Apache-2.0
#include "system/arithmetic.hpp"

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace hgdeploy {
namespace {

constexpr std::size_t most_letters = 100;
constexpr std::string_view digits = "0123456789";

class Expression {
 public:
  explicit Expression(const std::string& text) : text_(text) {}

  std::optional<double> value() {
    const std::optional<double> found = product();
    return skip() == '\0' ? found : std::nullopt;
  }

 private:
  // The next character that is no space.
  char skip() {
    while (at_ < text_.size() && text_[at_] == ' ') {
      ++at_;
    }
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  std::optional<double> product() {
    std::optional<double> left = factor();
    while (left) {
      const char sign = skip();
      if (sign != '*' && sign != '/') {
        return left;
      }
      ++at_;
      const std::optional<double> right = factor();
      if (!right || (sign == '/' && *right == 0)) {
        return std::nullopt;
      }
      left = sign == '*' ? *left * *right : *left / *right;
    }
    return left;
  }

  std::optional<double> factor() {
    const char next = skip();
    if (next == '+' || next == '-') {
      ++at_;
      const std::optional<double> value = factor();
      return value && next == '-' ? std::optional(-*value) : value;
    }
    if (next != '(') {
      return number();
    }
    ++at_;
    const std::optional<double> value = product();
    if (skip() != ')') {
      return std::nullopt;
    }
    ++at_;
    return value;
  }

  std::string_view run_of_digits() {
    const std::size_t start = at_;
    at_ = std::min(text_.find_first_not_of(digits, at_), text_.size());
    return std::string_view(text_).substr(start, at_ - start);
  }

  bool take(std::string_view letters) {
    if (at_ < text_.size() && letters.find(text_[at_]) != std::string_view::npos) {
      ++at_;
      return true;
    }
    return false;
  }

  std::optional<double> number() {
    const std::size_t start = at_;
    const std::string_view whole = run_of_digits();
    bool real = take(".");
    if (run_of_digits().empty() && whole.empty()) {
      return std::nullopt;
    }
    if (take("eE")) {
      real = true;
      take("+-");
      if (run_of_digits().empty()) {
        return std::nullopt;
      }
    }
    const bool octal = !real && whole[0] == '0' &&  // which Python refuses
                       whole.find_first_not_of('0') != std::string_view::npos;
    if (octal || (at_ < text_.size() && text_[at_] == '.')) {
      return std::nullopt;
    }
    return std::strtod(text_.substr(start, at_ - start).c_str(), nullptr);
  }

  const std::string& text_;
  std::size_t at_ = 0;
};

}  // namespace

std::optional<double> arithmetic(const std::string& text) {
  const bool fits = text.size() <= most_letters &&
                    text.find_first_not_of("0123456789.eE+-*/() ") == std::string::npos;
  return fits ? Expression(text).value() : std::nullopt;
}

}  // namespace hgdeploy
