// SPDX-License-Identifier: Apache-2.0
#include "images/pnm.hpp"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>

namespace hgdeploy {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Reads the words of a PNM's header.
class PnmReader {
 public:
  explicit PnmReader(std::string_view text) : text_(text) {}

  // A number behind spaces and comments; nothing where there is none.
  std::optional<std::uint64_t> number() {
    const std::size_t before = at_;
    while (skip_space() || skip_comment()) {
    }
    const std::size_t start = at_;
    while (at_ < text_.size() && is_digit(text_[at_])) {
      ++at_;
    }
    const std::size_t digits = at_ - start;
    if (start == before || digits < 1 || digits > 10) {
      return std::nullopt;
    }
    return std::strtoull(std::string(text_.substr(start, digits)).c_str(), nullptr, 10);
  }

  bool at_space() const { return at_ < text_.size() && is_space(text_[at_]); }

 private:
  bool skip_space() {
    if (!at_space()) {
      return false;
    }
    ++at_;
    return true;
  }

  bool skip_comment() {
    if (at_ >= text_.size() || text_[at_] != '#') {
      return false;
    }
    const std::size_t end = text_.find_first_of("\r\n", at_);
    if (end == std::string_view::npos) {
      return false;
    }
    at_ = end + 1;
    return true;
  }

  std::string_view text_;
  std::size_t at_ = 2;
};

}  // namespace

Sides read_pnm_size(const Bytes& data) {
  PnmReader reader(data.view());
  const std::optional<std::uint64_t> width = reader.number();
  const std::optional<std::uint64_t> height = width ? reader.number() : std::nullopt;
  if (height && reader.at_space()) {
    return {*width, *height};
  }
  const std::string_view rest = data.view().substr(2);
  if (std::all_of(rest.begin(), rest.end(), [](char c) { return is_space(c) || is_digit(c); })) {
    throw PastTheEnd();
  }
  throw Damage("its size is missing");
}

}  // namespace hgdeploy
