// SPDX-License-Identifier: Apache-2.0
// Label files: deploy/python/hgdeploy/transforms/postprocess_config.py.
#include <algorithm>
#include <system_error>

#include "errors.hpp"
#include "system/checks.hpp"
#include "system/lines.hpp"
#include "system/text.hpp"
#include "transforms/postprocess.hpp"

namespace hgdeploy {
namespace {

constexpr std::size_t most_shown = 60;

}  // namespace

Labels read_labels(const std::string& given_path, const std::string& delimiter) {
  const std::string path = path_text(given_path);
  if (delimiter.empty()) {
    throw ConfigError("delimiter is '', expected a text");
  }
  Labels labels;
  try {
    std::size_t number = 0;
    for (const std::string& line : split_lines(read_text(path))) {
      ++number;
      if (strip(line).empty()) {
        continue;
      }
      const std::size_t end = std::min(line.find(delimiter), line.size());
      const std::string key = strip(line.substr(0, end));
      const std::string place = "label file " + path + ", line " + std::to_string(number) + ": ";
      if (!is_class_id(key)) {
        const std::string shown = bytes_of(characters(line).substr(0, most_shown));
        throw ConfigError(place + repr(shown) + " is not " + repr("ID" + delimiter + "NAME"));
      }
      const long long id = std::stoll(key);
      const std::string name = end == line.size() ? "" : line.substr(end + delimiter.size());
      if (!labels.emplace(id, Label{name}).second) {
        throw ConfigError(place + "class " + std::to_string(id) + " stands twice");
      }
    }
  } catch (const UnreadableText& reason) {
    if (reason.kind == UnreadableText::Kind::not_utf8) {
      throw ConfigError("label file " + path + " is not UTF-8 text");
    }
    if (reason.kind == UnreadableText::Kind::too_large) {
      throw ConfigError("label file " + path + " cannot be read: it is larger than 256 MiB");
    }
    throw ConfigError("label file " + path +
                      " cannot be read: " + std::generic_category().message(reason.error_number) +
                      "; give another class_id_map_file, or null for no names");
  }
  if (labels.empty()) {
    throw ConfigError("label file " + path + " is empty");
  }
  return labels;
}

}  // namespace hgdeploy
