// SPDX-License-Identifier: Apache-2.0
#include "images/tiff.hpp"

#include <algorithm>
#include <array>
#include <map>

namespace hgdeploy {
namespace {

constexpr std::uint64_t width_tag = 256;
constexpr std::uint64_t height_tag = 257;
constexpr std::uint64_t bits_tag = 258;
constexpr std::uint64_t compression_tag = 259;
constexpr std::uint64_t colours_tag = 277;
constexpr std::uint64_t sample_format_tag = 339;
constexpr std::array<std::uint64_t, 6> tags{width_tag,       height_tag,  bits_tag,
                                            compression_tag, colours_tag, sample_format_tag};
using Tags = std::map<std::uint64_t, std::uint64_t>;

const char* sample_name(std::uint64_t format) {
  switch (format) {
    case 2: return "signed";
    case 3: return "floating-point";
    case 5: return "complex";
    case 6: return "complex floating-point";
    default: return "";
  }
}

// Those that libtiff unpacks without any other library, and JPEG and Deflate.
bool is_usual(std::uint64_t compression) {
  return (compression >= 1 && compression <= 8) || compression == 32773 || compression == 32809 ||
         compression == 32946;
}

std::string compression_name(std::uint64_t compression) {
  switch (compression) {
    case 33003:
    case 34712: return "JPEG 2000";
    case 34661: return "JBIG";
    case 34887: return "LERC";
    case 34925: return "LZMA";
    case 50000: return "Zstandard";
    case 50001: return "WebP";
    case 50002: return "JPEG XL";
    default: return std::to_string(compression);
  }
}

std::uint64_t value_or(const Tags& values, std::uint64_t tag, std::uint64_t usual) {
  const auto found = values.find(tag);
  return found == values.end() ? usual : found->second;
}

std::string rare_of(const Tags& values) {
  const std::uint64_t bits = value_or(values, bits_tag, 1);
  const std::uint64_t sample = value_or(values, sample_format_tag, 1);
  const std::uint64_t compression = value_or(values, compression_tag, 1);
  const std::uint64_t colours = value_or(values, colours_tag, 1);
  std::string rare;
  const auto add = [&](const std::string& text) { rare += (rare.empty() ? "" : " and ") + text; };
  if (sample != 1 || (bits != 1 && bits != 2 && bits != 4 && bits != 8 && bits != 16)) {
    const std::string name = sample_name(sample);
    add(std::to_string(bits) + "-bit " + (name.empty() ? "" : name + " ") + "samples");
  }
  if (colours > 4) {
    add(std::to_string(colours) + " samples for each pixel");
  }
  if (!is_usual(compression)) {
    add(compression_name(compression) + " compression");
  }
  return rare;
}

// Bytes of a value of a tag's form; 0 of a form that is no whole number.
std::size_t size_of_form(std::uint64_t form) {
  switch (form) {
    case 1: return 1;
    case 3: return 2;
    case 4: return 4;
    case 16: return 8;
    default: return 0;
  }
}

class Directory {
 public:
  explicit Directory(const Bytes& data) : data_(data), little_(data.starts_with("II")) {
    big_ = data.slice(2, 2) == "+\0"sv || data.slice(2, 2) == "\0+"sv;
    room_ = big_ ? 8 : 4;
  }

  Tags read() const {
    const std::uint64_t directory = number(big_ ? 8 : 4, room_);
    const std::size_t count_size = big_ ? 8 : 2;
    const std::uint64_t count = number(directory, count_size);
    if (count > 0xFFFF) {  // BigTIFF has room for 2**64
      throw Damage("its directory has " + std::to_string(count) + " entries");
    }
    Tags values;
    const std::uint64_t entry_size = 4 + 2 * room_;
    std::uint64_t entry = directory + count_size;
    for (std::uint64_t i = 0; i < count; ++i, entry += entry_size) {
      read_entry(entry, values);
    }
    return values;
  }

 private:
  std::uint64_t number(std::uint64_t at, std::size_t count) const {
    return little_ ? data_.little_endian(at, count) : data_.big_endian(at, count);
  }

  void read_entry(std::uint64_t entry, Tags& values) const {
    data_.text(entry, 4 + room_);  // all of it has to be there
    const std::uint64_t tag = number(entry, 2);
    const std::size_t size = size_of_form(number(entry + 2, 2));
    const std::uint64_t count = number(entry + 4, room_);
    const bool known = std::find(tags.begin(), tags.end(), tag) != tags.end();
    if (!known || values.count(tag) != 0) {  // libtiff takes the first of two
      return;
    }
    if (size == 0) {
      if (tag == width_tag || tag == height_tag) {
        throw Damage("its size is not a whole number");
      }
      return;
    }
    const std::uint64_t place = entry + 4 + room_;
    // Several values lie elsewhere.
    values[tag] = number(count > room_ / size ? number(place, room_) : place, size);
  }

  const Bytes& data_;
  bool little_;
  bool big_;
  std::size_t room_;
};

}  // namespace

TiffHeader read_tiff_header(const Bytes& data) {
  const Tags values = Directory(data).read();
  if (values.count(width_tag) == 0 || values.count(height_tag) == 0) {
    throw Damage("its size is missing");
  }
  return {{values.at(width_tag), values.at(height_tag)}, rare_of(values)};
}

}  // namespace hgdeploy
