// SPDX-License-Identifier: Apache-2.0
// Animated WebP files: their first picture as a file of its own.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "images/bytes.hpp"

namespace hgdeploy {

struct WebpFrame {
  // Where it lies in the whole picture.
  int left = 0;
  int top = 0;
  // A WebP of this picture alone.
  std::vector<std::uint8_t> file;
};

// The first picture of an animation; nothing of a file that is none. Throws
// PastTheEnd where its parts make no sense.
std::optional<WebpFrame> first_webp_frame(const Bytes& data);

}  // namespace hgdeploy
