// SPDX-License-Identifier: Apache-2.0
// libFuzzer on the decoding door: whatever the bytes, `decode` gives uint8 pixels of no more than are
// allowed, or an ImageError of one line. See docs/cpp.md.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "errors.hpp"
#include "images/decode.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  hgdeploy::DecodeOptions options;
  options.max_pixels = 1'000'000;
  for (const int shrink_to : {0, 8}) {
    options.shrink_to = shrink_to;
    try {
      const cv::Mat image = hgdeploy::decode(data, size, "", options);
      const bool fits = image.type() == CV_8UC3 && image.isContinuous() && !image.empty() &&
                        image.total() <= options.max_pixels;
      if (!fits) {
        std::abort();
      }
    } catch (const hgdeploy::ImageError& error) {
      if (std::string(error.what()).find('\n') != std::string::npos) {
        std::abort();
      }
    }
  }
  return 0;
}
