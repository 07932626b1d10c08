// SPDX-License-Identifier: Apache-2.0
#include "images/search.hpp"

#include <cerrno>
#include <deque>
#include <utility>

#include <dirent.h>
#include <sys/stat.h>

#include "system/access.hpp"
#include "system/lines.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

// Goes through the members of a [...] in a pattern, up to its end.
class CharacterSet {
 public:
  // `at` stands behind the opening bracket; it is moved behind the closing one. Nothing is a set
  // that has no end.
  static bool read(std::u32string_view pattern, std::size_t& at, CharacterSet& set) {
    std::size_t end = at;
    if (end < pattern.size() && pattern[end] == '!') {
      ++end;
    }
    if (end < pattern.size() && pattern[end] == ']') {
      ++end;
    }
    while (end < pattern.size() && pattern[end] != ']') {
      ++end;
    }
    if (end >= pattern.size()) {
      return false;
    }
    set.members_ = pattern.substr(at, end - at);
    set.inverse_ = !set.members_.empty() && set.members_[0] == '!';
    if (set.inverse_) {
      set.members_.remove_prefix(1);
    }
    at = end + 1;
    return true;
  }

  bool has(char32_t c) const {
    bool found = false;
    for (std::size_t i = 0; i < members_.size(); ++i) {
      if (i + 2 < members_.size() && members_[i + 1] == '-') {
        found = found || (members_[i] <= c && c <= members_[i + 2]);
        i += 2;
      } else {
        found = found || members_[i] == c;
      }
    }
    return found != inverse_;
  }

 private:
  std::u32string_view members_;
  bool inverse_ = false;
};

// Whether one character matches the pattern at a place, which is moved behind what matched.
bool matches_one(std::u32string_view pattern, std::size_t& at, char32_t c) {
  const char32_t wanted = pattern[at++];
  if (wanted == '?') {
    return true;
  }
  CharacterSet set;
  if (wanted == '[' && CharacterSet::read(pattern, at, set)) {
    return set.has(c);
  }
  return wanted == c;
}

bool matches_all(std::u32string_view pattern, std::u32string_view name) {
  std::size_t at = 0;
  std::size_t place = 0;
  std::size_t star = std::u32string_view::npos;  // behind the last star
  std::size_t retry = 0;
  while (place < name.size()) {
    if (at < pattern.size() && pattern[at] == '*') {
      star = ++at;
      retry = place;
      continue;
    }
    std::size_t next = at;
    if (at < pattern.size() && matches_one(pattern, next, name[place])) {
      at = next;
      ++place;
      continue;
    }
    if (star == std::u32string_view::npos) {
      return false;
    }
    at = star;
    place = ++retry;
  }
  while (at < pattern.size() && pattern[at] == '*') {
    ++at;
  }
  return at == pattern.size();
}

std::string below(const std::string& folder, const std::string& name) {
  if (folder == ".") {  // without what comes before the paths of a search in the current folder
    return name;
  }
  return folder.back() == '/' ? folder + name : folder + "/" + name;
}

}  // namespace

bool is_folder(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

bool is_pattern(const std::string& text) { return text.find_first_of("*?[") != std::string::npos; }

bool matches(const std::string& pattern, const std::string& name) {
  return matches_all(characters(pattern), characters(name));
}

void Search::walk(const std::string& folder) {
  std::set<std::pair<dev_t, ino_t>> seen;
  // Links wait until all real folders are done, so that a folder is found under its own name.
  std::deque<std::string> real{folder};
  std::deque<std::string> links;
  while (!real.empty() || !links.empty()) {
    std::deque<std::string>& queue = real.empty() ? links : real;
    const std::string current = queue.front();
    queue.pop_front();
    if (!walked_.insert(current).second) {
      continue;
    }
    struct stat status {};
    if (::stat(current.c_str(), &status) != 0) {
      close(current, errno);
      continue;
    }
    if (!seen.emplace(status.st_dev, status.st_ino).second) {
      continue;
    }
    for (Entry& entry : entries(current)) {
      std::deque<std::string>& waiting = entry.link ? links : real;
      if (entry.folder) {
        waiting.push_back(std::move(entry.path));
      } else {
        files_.push_back(std::move(entry.path));
      }
    }
  }
}

void Search::glob(const std::string& base, const std::vector<std::string>& parts) {
  using State = std::pair<std::string, std::size_t>;
  std::vector<State> waiting{{base, 0}};
  std::set<State> seen;
  while (!waiting.empty()) {
    const State state = waiting.back();
    waiting.pop_back();
    if (!seen.insert(state).second) {
      continue;
    }
    const auto& [place, level] = state;
    if (level == parts.size()) {
      if (is_folder(place)) {
        walk(place);
      } else {
        files_.push_back(place);
      }
    } else if (parts[level] == "**") {
      waiting.emplace_back(place, level + 1);
      for (const Entry& entry : entries(place)) {
        if (entry.folder && !entry.link) {
          waiting.emplace_back(entry.path, level);
        }
      }
    } else if (is_pattern(parts[level])) {
      for (const Entry& entry : entries(place)) {
        if (matches(parts[level], entry.name)) {
          waiting.emplace_back(entry.path, level + 1);
        }
      }
    } else if (const std::string inner = joined_path(place, parts[level]); is_there(inner)) {
      waiting.emplace_back(inner, level + 1);
    }
  }
}

bool Search::is_there(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0) {
    return true;
  }
  if (errno != ENOENT && errno != ENOTDIR) {
    close(path, errno);
  }
  return false;
}

std::vector<Search::Entry> Search::entries(const std::string& folder) {
  std::vector<Entry> found;
  DIR* open = ::opendir(folder.c_str());
  if (open == nullptr) {
    if (errno != ENOTDIR) {  // a file, which a pattern may match like a folder, holds nothing
      close(folder, errno);
    }
    return found;
  }
  errno = 0;
  while (const dirent* each = ::readdir(open)) {
    Entry entry;
    entry.name = each->d_name;
    if (entry.name == "." || entry.name == "..") {
      continue;
    }
    entry.path = below(folder, entry.name);
    entry.link = each->d_type == DT_LNK;
    if (each->d_type == DT_UNKNOWN) {
      struct stat status {};
      entry.link = ::lstat(entry.path.c_str(), &status) == 0 && S_ISLNK(status.st_mode);
    }
    entry.folder = each->d_type == DT_DIR ||
                   ((entry.link || each->d_type == DT_UNKNOWN) && is_folder(entry.path));
    found.push_back(std::move(entry));
    errno = 0;
  }
  const int error_number = errno;
  ::closedir(open);
  if (error_number != 0) {
    close(folder, error_number);
  }
  return found;
}

void Search::close(const std::string& folder, int error_number) {
  raise_if_exhausted(error_number);
  closed_[folder] = error_number;
}

}  // namespace hgdeploy
