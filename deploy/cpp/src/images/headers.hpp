// SPDX-License-Identifier: Apache-2.0
// The headers of image files: kind and size, read before any memory is spent on pixels;
// deploy/python/hgdeploy/images/headers.py.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "images/boxes.hpp"
#include "images/bytes.hpp"
#include "images/jpeg.hpp"
#include "images/png.hpp"

namespace hgdeploy {

struct ImageHeader {
  // The format's name.
  std::string kind;
  // Of the stored picture, before EXIF orientation.
  Sides sides;
  // Whether the file goes on to its end; nothing if that takes too long to find out.
  std::optional<bool> whole;
  std::optional<JpegHeader> jpeg;
  // Parts of the file that no pixel depends on.
  std::vector<SpanOfFile> spare;
  // How its pixels are stored, where OpenCV may not read them.
  std::string rare;
};

// Throws ImageError: the format is not known, or the header is damaged or incomplete.
ImageHeader read_header(const Bytes& data);

}  // namespace hgdeploy
