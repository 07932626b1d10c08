// SPDX-License-Identifier: Apache-2.0
#include "images/suffixes.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "system/text.hpp"

namespace hgdeploy {
namespace {

constexpr std::array<std::string_view, 21> images{
    ".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".png", ".apng", ".bmp", ".dib", ".webp",
    ".tif", ".tiff", ".gif", ".avif", ".jp2",   ".j2k", ".ppm", ".pgm",  ".pbm", ".pnm"};
constexpr std::array<std::string_view, 3> lists{".txt", ".lst", ".list"};
constexpr std::array<std::string_view, 16> no_pictures{
    ".md",  ".rst",  ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".xml",
    ".yml", ".yaml", ".ini",  ".html",  ".log", ".py",  ".sh",      ".db"};
constexpr std::size_t shown_suffixes = 5;

template <std::size_t count>
bool is_among(std::string_view text, const std::array<std::string_view, count>& known) {
  return std::find(known.begin(), known.end(), text) != known.end();
}

std::string described(const std::string& suffix) {
  const bool heic = suffix == ".heic" || suffix == ".heif" || suffix == ".hif";
  std::string name = suffix.empty() ? "without a suffix" : printable(suffix);
  if (!heic && suffix != ".jxl") {
    return name;
  }
  return name + " (" + (heic ? "HEIC" : "JPEG XL") + ": convert to JPEG or PNG)";
}

}  // namespace

std::pair<std::string, std::string> split_suffix(const std::string& place) {
  const std::string name = place.substr(place.rfind('/') + 1);
  const std::size_t dot = name.rfind('.');
  const bool has_suffix = dot != std::string::npos && dot > 0 && dot + 1 < name.size();
  return {name, has_suffix ? lower(name.substr(dot)) : ""};
}

bool is_image_suffix(std::string_view suffix) { return is_among(suffix, images); }

bool is_list_suffix(std::string_view suffix) { return is_among(suffix, lists); }

std::string image_suffixes() {
  return join(std::vector<std::string>(images.begin(), images.end()), ", ");
}

void LeftOut::add(const std::string& name, const std::string& suffix) {
  const bool counts = !is_among(suffix, no_pictures) && !is_list_suffix(suffix) &&
                      (!suffix.empty() || name[0] != '.');
  counts_[suffix] += counts ? 1 : 0;
}

std::string LeftOut::shown() const {
  std::vector<std::pair<std::string, std::size_t>> most(counts_.begin(), counts_.end());
  std::stable_sort(most.begin(), most.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  std::size_t number = 0;
  std::vector<std::string> kinds;
  for (const auto& [suffix, count] : most) {
    if (count == 0) {
      continue;
    }
    number += count;
    if (kinds.size() < shown_suffixes) {
      kinds.push_back(std::to_string(count) + " " + described(suffix));
    } else if (kinds.size() == shown_suffixes) {
      kinds.emplace_back("...");
    }
  }
  if (number == 0) {
    return "";
  }
  return ": " + std::to_string(number) + " other file" + (number > 1 ? "s" : "") +
         " left out, by suffix: " + join(kinds, ", ");
}

}  // namespace hgdeploy
