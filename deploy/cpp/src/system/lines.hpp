// SPDX-License-Identifier: Apache-2.0
// Text files and paths as Python reads and shows them.
#pragma once

#include <string>
#include <vector>

namespace hgdeploy {

// A path as pathlib shows it: without double slashes and single dots.
std::string path_text(const std::string& path);
// A path in a folder, as pathlib joins them.
std::string joined_path(const std::string& folder, const std::string& path);
// The last part of a path.
std::string base_name(const std::string& path);

// Why a text file cannot be read.
struct UnreadableText {
  enum class Kind { system, not_utf8, too_large };
  Kind kind = Kind::system;
  int error_number = 0;
  std::size_t byte = 0;  // the first that is not UTF-8
};

// The text of a UTF-8 file without the mark of its byte order; throws UnreadableText.
std::string read_text(const std::string& path);
// Its lines, split at `\n`, `\r\n` and `\r` only.
std::vector<std::string> split_lines(std::string text);

}  // namespace hgdeploy
