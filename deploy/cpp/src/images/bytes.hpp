// SPDX-License-Identifier: Apache-2.0
// The bytes of a file, read within their bounds.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string_view>

namespace hgdeploy {

// A position past the end of a file.
struct PastTheEnd : std::out_of_range {
  PastTheEnd() : std::out_of_range("past the end") {}
};

// What is wrong with a picture.
struct Damage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Bytes {
 public:
  static constexpr std::size_t none = std::string_view::npos;

  Bytes(const std::uint8_t* data, std::size_t size)
      : view_(reinterpret_cast<const char*>(data), size) {}
  explicit Bytes(std::string_view view) : view_(view) {}

  std::size_t size() const { return view_.size(); }
  const std::uint8_t* data() const { return reinterpret_cast<const std::uint8_t*>(view_.data()); }
  std::string_view view() const { return view_; }

  bool starts_with(std::string_view start, std::size_t at = 0) const {
    return slice(at, start.size()) == start;
  }
  // As much of these bytes as there is.
  std::string_view slice(std::size_t at, std::size_t count) const {
    return at >= view_.size() ? std::string_view() : view_.substr(at, count);
  }
  std::size_t find(std::string_view what, std::size_t from = 0) const {
    return from > view_.size() ? none : view_.find(what, from);
  }

  std::uint8_t byte(std::uint64_t at) const {
    return static_cast<std::uint8_t>(view_[checked(at, 1)]);
  }
  // A number of some bytes at a place; throws PastTheEnd.
  std::uint64_t big_endian(std::uint64_t at, std::size_t count) const {
    std::uint64_t value = 0;
    const std::size_t start = checked(at, count);
    for (std::size_t i = 0; i < count; ++i) {
      value = value << 8 | static_cast<std::uint8_t>(view_[start + i]);
    }
    return value;
  }
  std::uint64_t little_endian(std::uint64_t at, std::size_t count) const {
    std::uint64_t value = 0;
    const std::size_t start = checked(at, count);
    for (std::size_t i = count; i > 0; --i) {
      value = value << 8 | static_cast<std::uint8_t>(view_[start + i - 1]);
    }
    return value;
  }
  std::string_view text(std::uint64_t at, std::size_t count) const {
    return view_.substr(checked(at, count), count);
  }

 private:
  std::size_t checked(std::uint64_t at, std::size_t count) const {
    if (at > view_.size() || view_.size() - at < count) {
      throw PastTheEnd();
    }
    return static_cast<std::size_t>(at);
  }

  std::string_view view_;
};

}  // namespace hgdeploy
