// SPDX-License-Identifier: Apache-2.0
// Searches folders, of any depth; a folder that may not be searched fails by itself;
// deploy/python/hgdeploy/images/search.py.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

namespace hgdeploy {

// What a search of folders has met. Its methods throw ResourceError where this process may have no
// more open files or memory.
class Search {
 public:
  // Meets all files in a folder and below it; links are followed, each folder only once.
  void walk(const std::string& folder);
  // Meets the files that a pattern matches below a folder, and those in matching folders. `parts`
  // has a pattern for each level; `**` stands for any number of levels, and does not follow links.
  void glob(const std::string& base, const std::vector<std::string>& parts);

  // The files, in no order. A link whose target is gone counts as a file.
  const std::vector<std::string>& files() const { return files_; }
  // Each folder that cannot be searched, with the system's number of the reason.
  const std::map<std::string, int>& closed() const { return closed_; }

 private:
  struct Entry {
    std::string path;
    std::string name;
    bool link = false;
    bool folder = false;
  };

  std::vector<Entry> entries(const std::string& folder);
  bool is_there(const std::string& path);
  void close(const std::string& folder, int error_number);

  std::vector<std::string> files_;
  std::map<std::string, int> closed_;
  std::set<std::string> walked_;  // a pattern may match folders in one another
};

// Whether text has characters that mean something in a pattern.
bool is_pattern(const std::string& text);
// Whether a name matches a pattern of `*`, `?` and `[...]`, as Python's fnmatch says.
bool matches(const std::string& pattern, const std::string& name);
// Whether a path is a folder, or a link to one.
bool is_folder(const std::string& path);

}  // namespace hgdeploy
