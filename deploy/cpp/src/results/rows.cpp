// SPDX-License-Identifier: Apache-2.0
#include "results/rows.hpp"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include <sys/stat.h>

#include "system/text.hpp"

namespace hgdeploy {
namespace {

template <typename Items, typename Show>
std::string listed(const Items& items, const Show& show) {
  std::vector<std::string> texts;
  for (const auto& item : items) texts.push_back(show(item));
  return "[" + join(texts, ", ") + "]";
}

std::string number(long long value) { return std::to_string(value); }

// Python's `f"{score:.2f}"`.
std::string two_decimals(double score) {
  if (std::isnan(score)) return "nan";
  char text[400];
  return std::string(text,
                     static_cast<std::size_t>(std::snprintf(text, sizeof text, "%.2f", score)));
}

// Python's `round(score, 5)`: the decimal number of five places that is nearest, as a double.
double rounded(double score) {
  char text[400];
  const int size = std::snprintf(text, sizeof text, "%.5f", score);
  double value = 0;
  std::from_chars(text, text + size, value);
  return value;
}

// A text as Python's json.dumps writes it.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  char escaped[16];
  const auto unit = [&](unsigned value) {
    std::snprintf(escaped, sizeof escaped, "\\u%04x", value);
    out += escaped;
  };
  for (const char32_t c : characters(text)) {
    switch (c) {
      case U'"': out += "\\\""; continue;
      case U'\\': out += "\\\\"; continue;
      case U'\n': out += "\\n"; continue;
      case U'\r': out += "\\r"; continue;
      case U'\t': out += "\\t"; continue;
      case U'\f': out += "\\f"; continue;
      case U'\b': out += "\\b"; continue;
      default: break;
    }
    if (c >= 0x10000) {
      unit(0xD800U + ((static_cast<unsigned>(c) - 0x10000U) >> 10));
      unit(0xDC00U + ((static_cast<unsigned>(c) - 0x10000U) & 0x3FFU));
    } else if (c < 0x20 || c > 0x7E) {
      unit(static_cast<unsigned>(c));
    } else {
      out += static_cast<char>(c);
    }
  }
  return out + "\"";
}

std::string or_null(const std::optional<long long>& value) {
  return value ? number(*value) : "null";
}

std::string labels_of(const Prediction& prediction) {
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < prediction.label_names.size(); ++i) {
    const bool bare = i < prediction.bare_names.size() && prediction.bare_names[i];
    texts.push_back(bare ? prediction.label_names[i] : repr(prediction.label_names[i]));
  }
  return "[" + join(texts, ", ") + "]";
}

}  // namespace

FileFacts file_facts(const std::string& path) {
  struct stat found {};
  if (path.find('\0') != std::string::npos || ::stat(path.c_str(), &found) != 0) return {};
  constexpr long long second = 1'000'000'000, most = std::numeric_limits<long long>::max();
  const auto seconds = static_cast<long long>(found.st_mtim.tv_sec);
  const long long time = seconds >= most / second ? most : seconds * second + found.st_mtim.tv_nsec;
  return {static_cast<long long>(found.st_size), time};
}

std::string text_line(const Prediction& prediction) {
  const std::string& path = prediction.name;
  const std::string name = printable(path.substr(path.rfind('/') + 1));
  if (prediction.output) {
    std::string found = "[]";
    if (prediction.attributes && prediction.one_attribute)
      found = repr(join(*prediction.attributes, ""));
    else if (prediction.attributes)
      found = listed(*prediction.attributes, [](const auto& text) { return repr(text); });
    return name + ":\t {'attributes': " + found +
           ", 'output': " + listed(*prediction.output, number) + "}";
  }
  const std::string scores = listed(prediction.scores, two_decimals);
  if (!prediction.class_ids) return name + ":\tscore(s): " + scores;
  return name + ":\tclass id(s): " + listed(*prediction.class_ids, number) +
         ", score(s): " + scores + ", label_name(s): " + labels_of(prediction);
}

std::string json_line(const Prediction& prediction, const FileFacts& facts) {
  std::string line = "{\"path\": " + quoted(prediction.name) + ", \"class_ids\": ";
  line += prediction.class_ids ? listed(*prediction.class_ids, number) : "null";
  line += ", \"scores\": " + listed(prediction.scores, [](double s) { return repr(rounded(s)); });
  line += ", \"labels\": " + listed(prediction.label_names, quoted);
  line += ", \"error\": " + (prediction.error ? quoted(*prediction.error) : "null");
  line += ", \"size\": " + or_null(facts.size) + ", \"mtime_ns\": " + or_null(facts.mtime_ns);
  if (prediction.output) {
    std::string found = "[]";
    if (prediction.attributes && prediction.one_attribute)
      found = quoted(join(*prediction.attributes, ""));
    else if (prediction.attributes)
      found = listed(*prediction.attributes, quoted);
    line += ", \"attributes\": " + found + ", \"output\": " + listed(*prediction.output, number);
  }
  return line + "}";
}

}  // namespace hgdeploy
