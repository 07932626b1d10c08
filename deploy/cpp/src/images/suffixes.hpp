// SPDX-License-Identifier: Apache-2.0
// Which files of a folder count as images, by their suffixes.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace hgdeploy {

// A file's name, and its suffix in lower case, or nothing.
std::pair<std::string, std::string> split_suffix(const std::string& place);

bool is_image_suffix(std::string_view suffix);
// Of text lists of paths.
bool is_list_suffix(std::string_view suffix);
// The suffixes of images, as errors name them.
std::string image_suffixes();

// Counts the files that are left out, by their suffixes.
class LeftOut {
 public:
  // Files that are no pictures and often lie beside them are not counted; others may be pictures of
  // a kind that is not read.
  void add(const std::string& name, const std::string& suffix);
  // The end of a line: how many there are of each, or nothing if there are none.
  std::string shown() const;

 private:
  std::map<std::string, std::size_t> counts_;
};

}  // namespace hgdeploy
