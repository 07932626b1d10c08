// SPDX-License-Identifier: Apache-2.0
// The tags of a TIFF's first page; deploy/python/hgdeploy/images/headers.py.
#pragma once

#include <string>

#include "images/boxes.hpp"
#include "images/bytes.hpp"

namespace hgdeploy {

struct TiffHeader {
  Sides sides;
  // How its pixels are stored, where OpenCV may not read them.
  std::string rare;
};

// Reads classic TIFF and BigTIFF of either byte order; throws PastTheEnd and Damage.
TiffHeader read_tiff_header(const Bytes& data);

}  // namespace hgdeploy
