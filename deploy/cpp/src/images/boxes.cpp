// SPDX-License-Identifier: Apache-2.0
#include "images/boxes.hpp"

#include <algorithm>
#include <optional>

namespace hgdeploy {
namespace {

// OpenCV reads no more. A decoder takes four bytes for each pixel of each of them, and a header of
// a few bytes may declare thousands.
constexpr std::uint64_t most_components = 4;

// Start and end of the contents of a box.
struct Part {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
};

// Goes through the boxes of one kind in a part of a file.
class Boxes {
 public:
  Boxes(const Bytes& data, std::string_view kind, Part part)
      : data_(data), kind_(kind), at_(part.start), end_(part.end) {}

  std::optional<Part> next() {
    while (at_ < end_) {
      std::uint64_t size = data_.big_endian(at_, 4);
      const std::string_view found = data_.text(at_ + 4, 4);
      std::uint64_t head = 8;
      if (size == 1) {
        size = data_.big_endian(at_ + head, 8);
        head = 16;
      } else if (size == 0) {  // it goes on to the end
        size = end_ - at_;
      }
      if (size < head) {
        throw Damage("a box has " + std::to_string(size) + " bytes");
      }
      if (size > data_.size() - at_) {
        throw PastTheEnd();
      }
      const Part part{at_ + head, std::min(at_ + size, end_)};
      at_ += size;
      if (found == kind_) {
        return part;
      }
    }
    return std::nullopt;
  }

 private:
  const Bytes& data_;
  std::string_view kind_;
  std::uint64_t at_;
  std::uint64_t end_;
};

Part first(const Bytes& data, std::string_view kind, Part part) {
  const std::optional<Part> found = Boxes(data, kind, part).next();
  if (!found) {
    throw Damage("it has no box " + std::string(kind));
  }
  return *found;
}

}  // namespace

std::set<std::string_view> brands(const Bytes& data) {
  std::set<std::string_view> result;
  if (data.slice(4, 4) != "ftyp") {
    return result;
  }
  result.insert(data.slice(8, 4));
  const std::uint64_t end = std::min<std::uint64_t>(data.big_endian(0, 4), 256);
  for (std::size_t at = 16; at < end; at += 4) {
    result.insert(data.slice(at, 4));
  }
  return result;
}

Sides read_avif_size(const Bytes& data) {
  const Part meta = first(data, "meta", {0, data.size()});
  const Part properties = first(data, "iprp", {meta.start + 4, meta.end});
  const Part container = first(data, "ipco", properties);
  Boxes sizes(data, "ispe", container);
  std::optional<Sides> largest;
  while (const std::optional<Part> size = sizes.next()) {
    const Sides sides{data.big_endian(size->start + 4, 4), data.big_endian(size->start + 8, 4)};
    if (!largest || sides.width * sides.height > largest->width * largest->height) {
      largest = sides;
    }
  }
  if (!largest) {
    throw Damage("its size is missing");
  }
  return *largest;
}

Sides read_jpeg2000_size(const Bytes& data) {
  std::uint64_t start = 0;
  std::uint64_t components = 0;
  if (data.starts_with(jp2_signature)) {
    const Part header = first(data, "jp2h", {0, data.size()});
    Boxes palettes(data, "pclr", header);
    while (const std::optional<Part> palette = palettes.next()) {
      components = std::max<std::uint64_t>(components, data.byte(palette->start + 2));
    }
    start = first(data, "jp2c", {0, data.size()}).start;
  }
  if (!data.starts_with(codestream, static_cast<std::size_t>(start))) {
    throw Damage("its picture does not begin with a size");
  }
  const auto side = [&](std::uint64_t end, std::uint64_t begin) {
    const std::uint64_t last = data.big_endian(start + end, 4);
    const std::uint64_t before = data.big_endian(start + begin, 4);
    return last > before ? last - before : 0;
  };
  const Sides sides{side(8, 16), side(12, 20)};
  components = std::max(components, data.big_endian(start + 40, 2));
  if (components > most_components) {
    throw Damage("it has " + std::to_string(components) + " colours, more than the limit of " +
                 std::to_string(most_components));
  }
  return sides;
}

}  // namespace hgdeploy
