// SPDX-License-Identifier: Apache-2.0
#include "images/find.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <set>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include "errors.hpp"
#include "images/search.hpp"
#include "images/suffixes.hpp"
#include "system/access.hpp"
#include "system/lines.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

std::string relative(const std::string& place, const std::string& base) {
  if (base == ".") {
    return place == "." ? "." : place;
  }
  if (place == base) {
    return ".";
  }
  return place.substr(base.back() == '/' ? base.size() : base.size() + 1);
}

// What was found under its names, and the folders that could not be searched.
std::vector<ImageFile> images(const Search& found, const std::string& base,
                              const std::string& shown, const OnLine& on_warning) {
  const auto closed = found.closed().find(base);
  if (closed != found.closed().end()) {
    throw InputError(shown + ": cannot be searched: " + reason_of(closed->second));
  }
  std::set<std::string> places;
  for (const auto& each : found.closed()) {
    places.insert(each.first);
  }
  LeftOut others;
  const std::set<std::string> files(found.files().begin(), found.files().end());
  for (const std::string& place : files) {
    const auto [name, suffix] = split_suffix(place);
    if (is_image_suffix(suffix) || is_image_suffix(lower(name))) {  // also a file called .jpg
      places.insert(place);
    } else {
      others.add(name, suffix);
    }
  }
  const std::string left_out = others.shown();
  if (places.empty()) {
    throw InputError(shown + ": no images found (searched for " + image_suffixes() + ")" +
                     left_out);
  }
  if (!left_out.empty() && on_warning) {
    on_warning(shown + left_out);
  }
  std::vector<std::string> sorted(places.begin(), places.end());
  // By characters, as Python compares texts, not by bytes.
  std::vector<std::pair<std::u32string, std::string>> keyed;
  for (std::string& place : sorted) {
    std::u32string key = characters(place);
    keyed.emplace_back(std::move(key), std::move(place));
  }
  std::sort(keyed.begin(), keyed.end());
  std::vector<ImageFile> result;
  for (const auto& [key, place] : keyed) {
    result.push_back({place, relative(place, base)});
  }
  return result;
}

// The images of a folder in a list; what is none, or cannot be searched, as it is.
std::vector<ImageFile> in_folder(const ImageFile& listed, const OnLine& on_warning) {
  if (!is_folder(listed.place)) {
    return {listed};
  }
  try {
    Search found;
    found.walk(listed.place);
    std::vector<ImageFile> result = images(found, listed.place, printable(listed.name), on_warning);
    for (ImageFile& file : result) {
      file.name = listed.name + "/" + file.name;
    }
    return result;
  } catch (const InputError&) {  // reading it will say why
    return {listed};
  }
}

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

std::vector<ImageFile> read_list(const std::string& path, const OnLine& on_warning) {
  std::string text;
  try {
    text = read_text(path);
  } catch (const UnreadableText& reason) {
    if (reason.kind == UnreadableText::Kind::not_utf8) {
      throw InputError(printable(path) + ": is not UTF-8 text (byte " +
                       std::to_string(reason.byte) + "); save it as UTF-8");
    }
    const std::string why = reason.kind == UnreadableText::Kind::too_large
                                ? "it is larger than 256 MiB"
                                : reason_of(reason.error_number);
    throw InputError(printable(path) + ": cannot be searched: " + why);
  }
  std::vector<ImageFile> files;
  for (const std::string& each : split_lines(std::move(text))) {
    const std::string line = strip(each);
    if (line.empty()) {
      continue;
    }
    const ImageFile file{joined_path(folder_of(path), line), path_text(line)};
    // Nothing is asked of the disk for a million lines that name images.
    if (is_image_suffix(split_suffix(line).second)) {
      files.push_back(file);
      continue;
    }
    for (ImageFile& inner : in_folder(file, on_warning)) {
      files.push_back(std::move(inner));
    }
  }
  if (files.empty()) {
    throw InputError(printable(path) + ": the list is empty; write one image path per line");
  }
  return files;
}

// The part of a pattern that exists as it stands, and the rest of it.
std::pair<std::string, std::vector<std::string>> existing(const std::string& pattern) {
  std::vector<std::string> parts;
  const bool absolute = pattern[0] == '/';
  for (std::size_t at = absolute ? 1 : 0; at <= pattern.size();) {
    const std::size_t end = std::min(pattern.find('/', at), pattern.size());
    parts.push_back(pattern.substr(at, end - at));
    at = end + 1;
  }
  for (std::size_t known = parts.size(); known > 0; --known) {
    const std::vector<std::string> first(parts.begin(),
                                         parts.begin() + static_cast<std::ptrdiff_t>(known));
    const std::string place = (absolute ? "/" : "") + join(first, "/");
    struct stat status {};
    if (::stat(place.c_str(), &status) == 0) {
      return {place, {parts.begin() + static_cast<std::ptrdiff_t>(known), parts.end()}};
    }
  }
  return {absolute ? "/" : ".", parts};
}

std::string target_of(const std::string& link) {
  std::array<char, 4096> room{};
  const ssize_t size = ::readlink(link.c_str(), room.data(), room.size());
  return path_text(std::string(room.data(), size < 0 ? 0 : static_cast<std::size_t>(size)));
}

// The system's number of the reason why there is nothing at a path; 0 where there is something.
// Other reasons than that it is not there end the search.
int missing(const std::string& path, const std::string& shown, struct stat& status) {
  if (::stat(path.c_str(), &status) == 0) {
    return 0;
  }
  const int reason = errno;
  const bool plain = reason == ENOENT || reason == ENOTDIR || reason == ELOOP || reason == EBADF;
  if (!plain) {
    raise_if_exhausted(reason);
    throw InputError(shown + ": cannot be searched: " + reason_of(reason));
  }
  return reason;
}

std::vector<ImageFile> find_one(const std::string& text, const OnLine& on_warning) {
  if (strip(text).empty()) {
    throw InputError("an input is an empty path; name an image, a folder, a pattern or a list");
  }
  const std::string path = path_text(text);
  const std::string shown = printable(text);
  struct stat status {};
  const int reason = missing(path, shown, status);
  if (reason == 0 && S_ISREG(status.st_mode) && is_list_suffix(split_suffix(path).second)) {
    return read_list(path, on_warning);
  }
  if (reason == 0 && !S_ISDIR(status.st_mode)) {
    return {{path, base_name(path)}};
  }
  Search found;
  if (reason == 0) {
    found.walk(path);
    return images(found, path, shown, on_warning);
  }
  if (is_pattern(text)) {
    const auto [base, parts] = existing(path);
    found.glob(base, parts);
    return images(found, base, shown, on_warning);
  }
  if (::lstat(path.c_str(), &status) == 0 && S_ISLNK(status.st_mode)) {
    throw InputError(shown + ": is a link to " + printable(target_of(path)) + ": " +
                     reason_of(reason));
  }
  throw InputError(shown + ": does not exist");
}

}  // namespace

std::vector<ImageFile> find_images(const std::vector<std::string>& inputs,
                                   const OnLine& on_warning) {
  if (inputs.empty()) {
    throw InputError("no input was given; name an image, a folder, a pattern or a text list");
  }
  if (inputs.size() == 1) {
    return find_one(inputs.front(), on_warning);
  }
  std::vector<ImageFile> result;
  for (const std::string& input : inputs) {
    for (const ImageFile& file : find_one(input, on_warning)) {
      result.push_back({file.place, file.place});
    }
  }
  return result;
}

}  // namespace hgdeploy
