// SPDX-License-Identifier: Apache-2.0
#include "images/headers.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

#include "errors.hpp"
#include "images/pnm.hpp"
#include "images/tiff.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

ImageHeader read_jpeg(const Bytes& data) {
  JpegHeader jpeg = read_jpeg_header(data);
  ImageHeader header{"JPEG", jpeg.sides, jpeg.whole, std::nullopt, {}, jpeg.rare};
  header.jpeg = std::move(jpeg);
  return header;
}

ImageHeader read_png(const Bytes& data) {
  PngHeader png = read_png_header(data);
  return {"PNG", png.sides, png.whole, std::nullopt, std::move(png.spare), ""};
}

// A number of 32 bits with a sign.
std::int64_t signed_number(const Bytes& data, std::uint64_t at) {
  return static_cast<std::int32_t>(data.little_endian(at, 4));
}

// How 16-bit pixels with masks are stored, where OpenCV does not know that: it knows masks only
// behind a header of 40 bytes, and only two sets of them.
std::string rare_masks(const Bytes& data, std::uint64_t header_size) {
  using Masks = std::array<unsigned, 3>;
  Masks masks{};
  for (std::size_t i = 0; i < masks.size(); ++i) {
    masks.at(i) = static_cast<unsigned>(data.little_endian(54 + 4 * i, 4));
  }
  const bool known = masks == Masks{0xF800, 0x7E0, 0x1F} || masks == Masks{0x7C00, 0x3E0, 0x1F};
  if (known && header_size == 40) {
    return "";
  }
  std::array<char, 60> shown{};
  std::snprintf(shown.data(), shown.size(), "0x%x, 0x%x, 0x%x", masks[0], masks[1], masks[2]);
  return std::string("16-bit pixels of masks ") + shown.data() + " behind a header of " +
         std::to_string(header_size) + " bytes";
}

ImageHeader read_bmp(const Bytes& data) {
  const std::uint64_t pixels = data.little_endian(10, 4);
  const std::uint64_t header_size = data.little_endian(14, 4);
  const bool old = header_size == 12;
  const std::int64_t width = old ? static_cast<std::int64_t>(data.little_endian(18, 2))
                                 : std::abs(signed_number(data, 18));
  // A negative height only means: first row first.
  const std::int64_t height = old ? static_cast<std::int64_t>(data.little_endian(20, 2))
                                  : std::abs(signed_number(data, 22));
  const auto bits = static_cast<std::int64_t>(data.little_endian(old ? 24 : 28, 2));
  const std::uint64_t compression = old ? 0 : data.little_endian(30, 4);
  constexpr std::array<std::int64_t, 6> depths{1, 4, 8, 16, 24, 32};
  ImageHeader header;
  header.kind = "BMP";
  header.sides = {static_cast<std::uint64_t>(width), static_cast<std::uint64_t>(height)};
  if (bits == 16 && compression == 3) {
    header.rare = rare_masks(data, header_size);
  }
  if (header.rare.empty() && std::find(depths.begin(), depths.end(), bits) == depths.end()) {
    header.rare = std::to_string(bits) + "-bit pixels";
  } else if (header.rare.empty() && compression > 3) {
    header.rare = "compression " + std::to_string(compression);
  }
  const std::int64_t row = (width * bits + 31) / 32 * 4;
  const std::uint64_t end = pixels + static_cast<std::uint64_t>(row) * header.sides.height;
  if ((compression == 0 || compression == 3) && end <= data.size()) {
    header.whole = true;
  }
  return header;
}

ImageHeader read_gif(const Bytes& data) {
  return {"GIF", {data.little_endian(6, 2), data.little_endian(8, 2)}, {}, {}, {}, ""};
}

ImageHeader read_webp(const Bytes& data) {
  const std::uint64_t riff_size = data.little_endian(4, 4);
  const std::string_view chunk = data.slice(12, 4);
  Sides sides;
  if (chunk == "VP8X") {
    sides = {data.little_endian(24, 3) + 1, data.little_endian(27, 3) + 1};
  } else if (chunk == "VP8L") {
    const std::uint64_t bits = data.little_endian(21, 4);
    sides = {(bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1};
  } else if (chunk == "VP8 ") {
    const std::uint64_t height = data.little_endian(28, 2);
    sides = {data.little_endian(26, 2) & 0x3FFF, height & 0x3FFF};
  } else if (chunk.size() < 4) {
    throw PastTheEnd();
  } else {
    throw Damage("its first chunk is " +
                 repr_bytes(reinterpret_cast<const std::uint8_t*>(chunk.data()), chunk.size()));
  }
  return {"WebP", sides, riff_size + 8 <= data.size(), {}, {}, ""};
}

ImageHeader read_tiff(const Bytes& data) {
  TiffHeader tiff = read_tiff_header(data);
  return {"TIFF", tiff.sides, {}, {}, {}, std::move(tiff.rare)};
}

ImageHeader read_pnm(const Bytes& data) { return {"PNM", read_pnm_size(data), {}, {}, {}, ""}; }

ImageHeader read_avif(const Bytes& data) { return {"AVIF", read_avif_size(data), {}, {}, {}, ""}; }

ImageHeader read_jpeg2000(const Bytes& data) {
  return {"JPEG 2000", read_jpeg2000_size(data), {}, {}, {}, ""};
}

template <std::size_t count>
bool has_brand(const Bytes& data, const std::array<std::string_view, count>& known) {
  const std::set<std::string_view> found = brands(data);
  return std::any_of(known.begin(), known.end(),
                     [&](std::string_view brand) { return found.count(brand) != 0; });
}

bool is_tiff(const Bytes& data) {
  return data.starts_with("II*\0"sv) || data.starts_with("MM\0*"sv) ||
         data.starts_with("II+\0"sv) || data.starts_with("MM\0+"sv);
}

bool is_avif(const Bytes& data) {
  return has_brand(data, std::array<std::string_view, 2>{"avif", "avis"});
}

bool is_pnm(const Bytes& data) {
  const std::string_view start = data.slice(0, 3);
  return start.size() == 3 && start[0] == 'P' && start[1] >= '1' && start[1] <= '6' &&
         (is_space(start[2]) || start[2] == '#');
}

struct Format {
  const char* kind;
  bool (*matches)(const Bytes& data);
  ImageHeader (*read)(const Bytes& data);
};

constexpr std::array<Format, 9> formats{{
    {"JPEG", [](const Bytes& data) { return data.starts_with("\xff\xd8\xff"sv); }, read_jpeg},
    {"PNG", [](const Bytes& data) { return data.starts_with(png_signature); }, read_png},
    {"BMP", [](const Bytes& data) { return data.starts_with("BM"); }, read_bmp},
    {"WebP",
     [](const Bytes& data) { return data.starts_with("RIFF") && data.starts_with("WEBP", 8); },
     read_webp},
    {"TIFF", is_tiff, read_tiff},
    {"GIF",
     [](const Bytes& data) { return data.starts_with("GIF87a") || data.starts_with("GIF89a"); },
     read_gif},
    {"AVIF", is_avif, read_avif},
    {"JPEG 2000",
     [](const Bytes& data) {
       return data.starts_with(jp2_signature) || data.starts_with(codestream);
     },
     read_jpeg2000},
    {"PNM", is_pnm, read_pnm},
}};

bool is_heic(const Bytes& data) {
  return has_brand(data, std::array<std::string_view, 8>{"heic", "heix", "heim", "heis", "hevc",
                                                         "hevx", "mif1", "msf1"});
}

bool is_pam(const Bytes& data) {
  const std::string_view start = data.slice(0, 3);
  return start.size() == 3 && start[0] == 'P' && "7Ff"sv.find(start[1]) != std::string_view::npos &&
         is_space(start[2]);
}

bool is_icon(const Bytes& data) {
  const std::string_view start = data.slice(0, 6);
  return start.size() == 6 && start.substr(0, 2) == "\0\0"sv && (start[2] == 1 || start[2] == 2) &&
         start[3] == 0 && start[4] != 0 && start[5] == 0;
}

// Pictures that OpenCV does not read, or not as `cv::imread` does, by what users call them.
std::string unread_kind(const Bytes& data) {
  static constexpr std::array<std::pair<const char*, std::string_view>, 11> starts{{
      {"JPEG XL", "\xff\x0a"sv},
      {"JPEG XL", "\0\0\0\x0cJXL \r\n\x87\n"sv},
      {"a Photoshop file", "8BPS"sv},
      {"OpenEXR", "\x76\x2f\x31\x01"sv},
      {"a Sun raster file", "\x59\xa6\x6a\x95"sv},
      {"Radiance HDR", "#?RADIANCE"sv},
      {"Radiance HDR", "#?RGBE"sv},
      {"JPEG XR", "II\xbc"sv},
      {"DDS", "DDS "sv},
      {"QOI", "qoif"sv},
      {"a Git LFS pointer", "version https://git-lfs.github.com/spec/"sv},
  }};
  if (is_heic(data)) {
    return "HEIC";
  }
  const auto* found = std::find_if(starts.begin(), starts.end(),
                                   [&](const auto& each) { return data.starts_with(each.second); });
  if (found != starts.end()) {
    return found->first;
  }
  return is_pam(data) ? "PAM or PFM" : is_icon(data) ? "a Windows icon" : "";
}

[[noreturn]] void refuse_unknown(const Bytes& data) {
  const std::string kind = unread_kind(data);
  if (kind == "a Git LFS pointer") {
    throw ImageError("is a Git LFS pointer, and no image yet; fetch it with: git lfs pull");
  }
  if (!kind.empty()) {
    throw ImageError("is " + kind + ", which is not read; convert it to JPEG or PNG");
  }
  std::vector<std::string> known;
  for (const Format& format : formats) {
    known.emplace_back(format.kind);
  }
  throw ImageError("is not an image (starts with " +
                   repr_bytes(data.data(), std::min<std::size_t>(data.size(), 8)) +
                   "; known formats: " + join(known, ", ") + ")");
}

}  // namespace

ImageHeader read_header(const Bytes& data) {
  if (data.size() == 0) {
    throw ImageError("is empty");
  }
  for (const Format& format : formats) {
    if (!format.matches(data)) {
      continue;
    }
    try {
      return format.read(data);
    } catch (const PastTheEnd&) {
      throw ImageError(std::string("is truncated (") + format.kind + ")");
    } catch (const Damage& damage) {
      throw ImageError(std::string("is corrupt (") + format.kind + "): " + damage.what());
    }
  }
  refuse_unknown(data);
}

}  // namespace hgdeploy
