// SPDX-License-Identifier: Apache-2.0
// The lines of a run: PaddleClas's, and rows of JSON: deploy/python/hgdeploy/results/rows.py and
// transforms/prediction.py.
#pragma once

#include <optional>
#include <string>

#include "transforms/prediction.hpp"

namespace hgdeploy {

// An image's file as it was when it was read; nothing where it could not be accessed.
struct FileFacts {
  std::optional<long long> size;
  std::optional<long long> mtime_ns;
};

FileFacts file_facts(const std::string& path);

// PaddleClas's line for a classified image, without the line's end.
std::string text_line(const Prediction& prediction);

// A prediction as a line of JSON, without the line's end: scores rounded to five decimals; ASCII,
// so that no name can break the line.
std::string json_line(const Prediction& prediction, const FileFacts& facts);

}  // namespace hgdeploy
