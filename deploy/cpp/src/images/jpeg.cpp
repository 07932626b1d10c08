// SPDX-License-Identifier: Apache-2.0
#include "images/jpeg.hpp"

#include <algorithm>
#include <memory>

#include <turbojpeg.h>

#include "images/orientation.hpp"

namespace hgdeploy {
namespace {

constexpr std::string_view end_marker = "\xff\xd9"sv;
// Progressive files have about ten. Each one may cost a pass over the whole picture and only a few
// bytes, so that a file of some kilobytes could keep a decoder busy for hours.
constexpr std::uint64_t most_scans = 100;
constexpr std::uint64_t most_scans_of_any = 20;
constexpr std::uint64_t most_scanned_pixels = std::uint64_t{1} << 30;

bool is_frame(unsigned marker) {
  return (marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC) ||
         marker == 0xF7;
}

// What libjpeg-turbo, as OpenCV uses it, does not read; nothing where it reads all.
std::string rare_of(unsigned frame, unsigned precision, unsigned colours) {
  std::vector<std::string> rare;
  const bool read = (frame >= 0xC0 && frame <= 0xC2) || frame == 0xC9 || frame == 0xCA;
  if (frame != 0 && !read) {
    rare.emplace_back(frame == 0xC3 || frame == 0xCB ? "lossless coding"
                      : frame == 0xF7                ? "JPEG-LS coding"
                                                     : "hierarchical coding");
  }
  if (frame != 0 && (precision == 12 || precision == 16)) {
    rare.push_back(std::to_string(precision) + "-bit samples");
  }
  if (frame != 0 && colours == 2) {
    rare.emplace_back("two colours");
  }
  std::string text;
  for (const std::string& each : rare) {
    text += (text.empty() ? "" : " and ") + each;
  }
  return text;
}

// Refuses too many scans; returns whether all EXIF data comes before the first of several.
bool check_scans(const Bytes& data, std::size_t start, std::uint64_t pixels) {
  const std::size_t end = std::min(data.find(end_marker, start), data.size());
  std::uint64_t scans = 1;
  constexpr std::string_view scan = "\xff\xda"sv;
  for (std::size_t at = data.find(scan, start); at != Bytes::none && at + scan.size() <= end;
       at = data.find(scan, at + scan.size())) {
    ++scans;
  }
  const std::uint64_t few = most_scanned_pixels / std::max<std::uint64_t>(pixels, 1);
  const std::uint64_t limit = std::min(most_scans, std::max(most_scans_of_any, few));
  if (scans > limit) {
    throw Damage("its picture comes in " + std::to_string(scans) +
                 " scans, more than the limit of " + std::to_string(limit) + " for " +
                 std::to_string(pixels) + " pixels (each may cost a pass over all of them)");
  }
  return data.find("\xff\xe1"sv, start) == Bytes::none;
}

// Goes through the markers up to the end of the image.
class Segments {
 public:
  explicit Segments(const Bytes& data) : data_(data) {}

  // The next marker, with the place of its length field; nothing at the end of the image.
  std::optional<std::pair<unsigned, std::size_t>> next() {
    if (open_) {
      at_ += static_cast<std::size_t>(data_.big_endian(at_, 2));
    }
    for (;;) {
      at_ = data_.find("\xff"sv, at_);
      // Any number of them may come before a marker.
      while (at_ < data_.size() && data_.byte(at_) == 0xFF) {
        ++at_;
      }
      if (at_ >= data_.size()) {
        throw PastTheEnd();
      }
      const unsigned marker = data_.byte(at_++);
      if (marker == 0xD9) {
        return std::nullopt;
      }
      const bool alone = marker <= 0x01 || (marker >= 0xD0 && marker <= 0xD8);
      if (!alone) {
        open_ = true;
        return std::pair(marker, at_);
      }
    }
  }

 private:
  const Bytes& data_;
  std::size_t at_ = 2;
  bool open_ = false;
};

struct Closer {
  void operator()(void* handle) const { tjDestroy(handle); }
};

}  // namespace

JpegHeader read_jpeg_header(const Bytes& data) {
  unsigned frame = 0;
  unsigned precision = 0;
  unsigned colours = 0;
  int frames = 0;
  JpegHeader header;
  Segments segments(data);
  while (const auto found = segments.next()) {
    const auto [marker, at] = *found;
    if (is_frame(marker)) {
      frame = marker;
      ++frames;
      colours = static_cast<unsigned>(data.byte(at + 7));
      precision = static_cast<unsigned>(data.byte(at + 2));
      header.sides = {data.big_endian(at + 5, 2), data.big_endian(at + 3, 2)};
    } else if (marker == 0xE1) {
      header.exif += data.slice(at - 2, static_cast<std::size_t>(data.big_endian(at, 2)) + 2);
    } else if (marker == 0xDA) {
      header.plain = frames == 1 && frame >= 0xC0 && frame <= 0xC2 && precision == 8 &&
                     (colours == 1 || colours == 3);
      if (frame != 0xC0 || data.byte(at + 2) != colours) {
        header.plain =
            check_scans(data, at, header.sides.width * header.sides.height) && header.plain;
      }
      const std::size_t end = data.view().rfind(end_marker);
      header.whole = end != Bytes::none && end > at;
      header.rare = rare_of(frame, precision, colours);
      return header;
    }
  }
  throw Damage("it ends before the picture begins");
}

int scale_divisor(const JpegHeader& header, int shrink_to) {
  if (shrink_to <= 0) {
    return 1;
  }
  const auto shorter = static_cast<std::int64_t>(std::min(header.sides.width, header.sides.height));
  for (const int divisor : {8, 4, 2}) {
    if ((shorter + divisor - 1) / divisor >= shrink_to) {
      return divisor;
    }
  }
  return 1;
}

std::optional<cv::Mat> decode_plain_jpeg(const Bytes& data, const JpegHeader& header, int divisor) {
  if (!header.plain || !header.whole) {
    return std::nullopt;
  }
  // A decompressor keeps the tables of one file for the next, so each file has its own.
  const std::unique_ptr<void, Closer> decompressor(tjInitDecompress());
  const tjhandle handle = decompressor.get();
  if (handle == nullptr) {
    return std::nullopt;
  }
  int width = 0;
  int height = 0;
  int subsampling = 0;
  int colourspace = 0;
  const auto size = static_cast<unsigned long>(data.size());
  if (tjDecompressHeader3(handle, data.data(), size, &width, &height, &subsampling, &colourspace) !=
      0) {
    return std::nullopt;
  }
  const tjscalingfactor factor{1, divisor};
  cv::Mat image(TJSCALED(height, factor), TJSCALED(width, factor), CV_8UC3);
  const auto expected = [&](std::uint64_t side) { return (side + divisor - 1) / divisor; };
  if (expected(header.sides.width) != static_cast<std::uint64_t>(image.cols) ||
      expected(header.sides.height) != static_cast<std::uint64_t>(image.rows)) {
    return std::nullopt;
  }
  // What libjpeg-turbo only warns of is left to OpenCV.
  if (tjDecompress2(handle, data.data(), size, image.data, image.cols, static_cast<int>(image.step),
                    image.rows, TJPF_BGR, 0) != 0) {
    return std::nullopt;
  }
  return turned(image, exif_orientation_of_jpeg(header.exif));
}

}  // namespace hgdeploy
