// SPDX-License-Identifier: Apache-2.0
// From a file or its bytes to BGR pixels: the pixels of deploy/python/hgdeploy/images/decode.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <opencv2/core.hpp>

namespace hgdeploy {

// More than any camera makes and than WebP can hold, yet 0.8 GB at most once decoded.
inline constexpr std::uint64_t default_max_pixels = std::uint64_t{1} << 28;

struct DecodeOptions {
  // A picture of more pixels is refused before it is decoded.
  std::uint64_t max_pixels = default_max_pixels;
  // Decode a JPEG at a half, a quarter or an eighth of its size: the smallest whose short side
  // still has this many pixels. It changes pixels a little; 0 for full size.
  int shrink_to = 0;
};

// Decodes one image file; safe to call from many threads at once. `name` is not part of the reason,
// and may be empty.
//
// Returns contiguous uint8 pixels in BGR order, of shape height x width x 3: EXIF orientation is
// applied, alpha is dropped, gray and palette become three channels, 16 bits become 8, and of
// several frames or pages the first is taken.
//
// Throws ImageError: a short reason, such as `is truncated (JPEG)`; ResourceError: no memory.
cv::Mat decode(const std::uint8_t* data, std::size_t size, const std::string& name = "",
               const DecodeOptions& options = {});

// Reads a whole file; throws ImageError with the reason, such as `is a directory`, and
// ResourceError where the system has no more open files or memory.
std::vector<std::uint8_t> read_file(const std::string& path);

// `decode` of `read_file`.
cv::Mat read_image(const std::string& path, const DecodeOptions& options = {});

}  // namespace hgdeploy
