// SPDX-License-Identifier: Apache-2.0
#include "images/decode.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <opencv2/core/utility.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>

#include "errors.hpp"
#include "images/headers.hpp"
#include "images/orientation.hpp"
#include "images/webp.hpp"
#include "system/access.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

// OpenCV indexes the encoded bytes with a 32-bit int.
constexpr std::uint64_t most_bytes = 0x7FFFFFFF;

using Wide = unsigned __int128;

std::string shown(Wide number) {
  std::string digits;
  do {
    digits += static_cast<char>('0' + static_cast<int>(number % 10));
    number /= 10;
  } while (number != 0);
  std::reverse(digits.begin(), digits.end());
  return digits;
}

std::string shown(const Sides& sides) {
  return std::to_string(sides.width) + "x" + std::to_string(sides.height);
}

// Whether OpenCV was built with a decoder; it may lack those of newer formats.
bool has_decoder(const std::string& kind) {
  if (kind != "GIF" && kind != "AVIF" && kind != "JPEG 2000") {
    return true;
  }
  const std::string& built = cv::getBuildInformation();
  const std::size_t at = built.find(" " + kind + ":");
  if (at == std::string::npos) {
    return false;
  }
  const std::size_t end = built.find('\n', at);
  return strip(built.substr(at + kind.size() + 2, end - at - kind.size() - 2)) != "NO";
}

// Why OpenCV gives no pixels of a file whose header is right.
std::string why_none(const ImageHeader& header) {
  const std::string version = CV_VERSION;
  if (!has_decoder(header.kind)) {
    return "is " + header.kind + ", which this build of OpenCV " + version + " cannot read";
  }
  if (!header.rare.empty()) {
    return "is a " + header.kind + " with " + header.rare + ", which OpenCV " + version +
           " does not read; convert it to PNG";
  }
  return std::string(header.whole.value_or(false) ? "is corrupt" : "is truncated or corrupt") +
         " (" + header.kind + ")";
}

// The picture as it is stored.
cv::Mat decode_with_opencv(const Bytes& data, const ImageHeader& header, int divisor, int flags) {
  static const auto silenced =
      cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
  (void)silenced;
  flags |= divisor == 1 ? 0 : 8 * divisor;  // its flags are 16, 32 and 64
  const cv::Mat encoded(1, static_cast<int>(data.size()), CV_8U,
                        const_cast<std::uint8_t*>(data.data()));
  cv::Mat image;
  try {
    image = cv::imdecode(encoded, flags);
  } catch (const cv::Exception& error) {
    if (error.code == cv::Error::StsNoMem) {
      throw ResourceError("there is no memory for a picture of " + shown(header.sides) +
                          " pixels; use fewer --workers");
    }
    throw ImageError("cannot be decoded (" + header.kind + "): " + error.err);
  }
  if (image.empty()) {
    throw ImageError(why_none(header));
  }
  return image;
}

void check_size(const ImageHeader& header, const DecodeOptions& options) {
  const Wide pixels = static_cast<Wide>(header.sides.width) * header.sides.height;
  if (pixels > options.max_pixels) {
    throw ImageError("has " + shown(pixels) + " pixels (" + shown(header.sides) +
                     "), more than the limit of " + std::to_string(options.max_pixels));
  }
  if (pixels == 0) {
    throw ImageError("is corrupt (" + header.kind + "): its size is " + shown(header.sides));
  }
  if (header.whole == false) {
    throw ImageError("is truncated (" + header.kind + ")");
  }
}

// OpenCV 4 reads no animations, of which the first picture is taken: it lies on black.
cv::Mat decode_webp(const Bytes& data, const ImageHeader& header, int flags) {
  std::optional<WebpFrame> frame;
  try {
    frame = first_webp_frame(data);
  } catch (const PastTheEnd&) {
    throw ImageError(why_none(header));
  }
  if (!frame) {
    return decode_with_opencv(data, header, 1, flags);
  }
  const cv::Mat picture =
      decode_with_opencv(Bytes(frame->file.data(), frame->file.size()), header, 1, flags);
  const auto side = [](std::uint64_t pixels) { return static_cast<int>(pixels); };
  const cv::Rect place(frame->left, frame->top, picture.cols, picture.rows);
  cv::Mat canvas = cv::Mat::zeros(side(header.sides.height), side(header.sides.width), CV_8UC3);
  if (place.x + place.width > canvas.cols || place.y + place.height > canvas.rows) {
    throw ImageError(why_none(header));
  }
  picture.copyTo(canvas(place));
  return canvas;
}

cv::Mat decode_checked(const Bytes& data, const ImageHeader& header, const DecodeOptions& options) {
  constexpr int as_stored = cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION;
  if (header.jpeg) {
    const int divisor = scale_divisor(*header.jpeg, options.shrink_to);
    if (std::optional<cv::Mat> image = decode_plain_jpeg(data, *header.jpeg, divisor)) {
      return *image;
    }
    return turned(decode_with_opencv(data, header, divisor, as_stored),
                  exif_orientation_of_jpeg(header.jpeg->exif));
  }
  if (header.kind == "PNG") {
    const std::vector<std::uint8_t> rest = without_parts(data, header.spare);
    return turned(decode_with_opencv(Bytes(rest.data(), rest.size()), header, 1, as_stored),
                  exif_orientation_of_png(data));
  }
  if (header.kind == "WebP") {
    return turned(decode_webp(data, header, as_stored), exif_orientation_of_webp(data));
  }
  return decode_with_opencv(data, header, 1, cv::IMREAD_COLOR);
}

struct FileCloser {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

}  // namespace

cv::Mat decode(const std::uint8_t* data, std::size_t size, const std::string&,
               const DecodeOptions& options) {
  const Bytes bytes(data, size);
  const ImageHeader header = read_header(bytes);
  check_size(header, options);
  return decode_checked(bytes, header, options);
}

std::vector<std::uint8_t> read_file(const std::string& path) {
  if (path.find('\0') != std::string::npos) {
    throw ImageError("cannot be read: embedded null byte");
  }
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    throw access_error(errno);
  }
  // Only a regular file: opening a pipe or a device could block forever.
  if (S_ISDIR(status.st_mode)) {
    DIR* folder = ::opendir(path.c_str());
    if (folder == nullptr) {
      throw access_error(errno);
    }
    ::closedir(folder);
    throw ImageError("is a directory");
  }
  if (!S_ISREG(status.st_mode)) {
    throw ImageError("is not a regular file but a pipe, socket or device");
  }
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size > most_bytes) {
    throw ImageError("has " + std::to_string(size) + " bytes, more than the limit of " +
                     std::to_string(most_bytes));
  }
  const std::unique_ptr<std::FILE, FileCloser> file(std::fopen(path.c_str(), "rbe"));
  if (file == nullptr) {
    throw access_error(errno);
  }
  std::vector<std::uint8_t> data(static_cast<std::size_t>(size) + 1);
  std::size_t count = 0;
  while (count <= most_bytes) {
    const std::size_t got = std::fread(data.data() + count, 1, data.size() - count, file.get());
    count += got;
    if (std::ferror(file.get()) != 0) {
      throw access_error(errno);
    }
    if (got == 0 || count < data.size()) {
      break;
    }
    data.resize(2 * data.size());  // it has grown since
  }
  data.resize(count);
  return data;
}

cv::Mat read_image(const std::string& path, const DecodeOptions& options) {
  const std::vector<std::uint8_t> data = read_file(path);
  return decode(data.data(), data.size(), path, options);
}

}  // namespace hgdeploy
