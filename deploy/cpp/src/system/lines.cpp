// SPDX-License-Identifier: Apache-2.0
#include "system/lines.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <memory>

#include <fcntl.h>
#include <unistd.h>

#include "system/text.hpp"

namespace hgdeploy {
namespace {

constexpr std::size_t most_bytes = std::size_t{256} << 20;

struct Closer {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

std::string content(const std::string& path) {
  // A pipe without a writer would block.
  const int number = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (number < 0) {
    throw UnreadableText{UnreadableText::Kind::system, errno, 0};
  }
  const std::unique_ptr<std::FILE, Closer> file(::fdopen(number, "rb"));
  std::string text;
  std::array<char, 1 << 16> room{};
  while (const std::size_t got = std::fread(room.data(), 1, room.size(), file.get())) {
    text.append(room.data(), got);
    if (text.size() > most_bytes) {
      throw UnreadableText{UnreadableText::Kind::too_large, 0, 0};
    }
  }
  if (std::ferror(file.get()) != 0) {
    throw UnreadableText{UnreadableText::Kind::system, errno, 0};
  }
  return text;
}

}  // namespace

std::string path_text(const std::string& path) {
  // Two slashes at the start mean something of their own, three do not.
  const bool two = path.rfind("//", 0) == 0 && path.rfind("///", 0) != 0;
  const std::string start = two ? "//" : path.rfind('/', 0) == 0 ? "/" : "";
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string part = path.substr(at, end - at);
    if (!part.empty() && part != ".") {
      parts.push_back(part);
    }
    at = end + 1;
  }
  const std::string result = start + join(parts, "/");
  return result.empty() ? "." : result;
}

std::string joined_path(const std::string& folder, const std::string& path) {
  return path.rfind('/', 0) == 0 ? path_text(path) : path_text(folder + "/" + path);
}

std::string base_name(const std::string& path) {
  const std::string text = path_text(path);
  return text == "." || text == "/" ? "" : text.substr(text.rfind('/') + 1);
}

std::string read_text(const std::string& path) {
  std::string text = content(path);
  constexpr const char* mark = "\xef\xbb\xbf";
  std::size_t byte = 0;
  if (!is_utf8(text, &byte)) {
    throw UnreadableText{UnreadableText::Kind::not_utf8, 0, byte};
  }
  return text.rfind(mark, 0) == 0 ? text.substr(3) : text;
}

std::vector<std::string> split_lines(std::string text) {
  std::vector<std::string> lines{""};
  for (std::size_t at = 0; at < text.size(); ++at) {
    const bool pair = text[at] == '\r' && at + 1 < text.size() && text[at + 1] == '\n';
    at += pair ? 1 : 0;
    if (text[at] == '\n' || text[at] == '\r') {
      lines.emplace_back();
    } else {
      lines.back() += text[at];
    }
  }
  return lines;
}

}  // namespace hgdeploy
