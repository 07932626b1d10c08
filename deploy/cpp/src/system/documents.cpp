// SPDX-License-Identifier: Apache-2.0
#include "system/documents.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string_view>
#include <system_error>
#include <vector>

#include <yaml-cpp/eventhandler.h>

#include "errors.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t most_yaml_bytes = std::size_t{4} << 20;
constexpr std::size_t most_json_bytes = std::size_t{256} << 20;
constexpr std::size_t most_yaml_values = 1'000'000;
constexpr std::size_t most_yaml_depth = 64;
constexpr int most_json_depth = 256;

struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What a file holds, and not more of it than there may be: a device has no end.
std::string content(const fs::path& path, std::size_t most) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file || fs::is_directory(path)) {
    const int reason = file ? EISDIR : errno;
    throw std::system_error(reason, std::generic_category());
  }
  std::string text;
  std::vector<char> chunk(std::size_t{1} << 16);
  while (file.read(chunk.data(), static_cast<std::streamsize>(chunk.size())), file.gcount() > 0) {
    text.append(chunk.data(), static_cast<std::size_t>(file.gcount()));
    if (text.size() > most)
      throw Refused("it is larger than " + std::to_string(most >> 20) + " MiB");
  }
  return text;
}

// Refuses, before anything is made of it, a YAML text that is nested or repeated without measure,
// or has two values of one key, of which YAML's readers drop one in silence.
class Bounds : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    leaf(mark, anchor, "", "~");
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = sizes_.find(anchor);
    if (found == sizes_.end()) throw Refused("an alias names what it stands in");
    enter_value(mark, "", "", false);
    add(found->second);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    leaf(mark, anchor, tag, value);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, anchor, false);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, anchor, true);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Level {
    YAML::anchor_t anchor;
    bool is_map;
    std::size_t size = 1;
    bool at_key = true;
    std::map<std::pair<std::string, std::string>, int> keys{};
  };

  void leaf(const YAML::Mark& mark, YAML::anchor_t anchor, const std::string& tag,
            const std::string& value) {
    enter_value(mark, tag, value, true);
    if (anchor != 0) sizes_[anchor] = 1;
    add(1);
  }

  void enter_value(const YAML::Mark& mark, const std::string& tag, const std::string& value,
                   bool scalar) {
    if (levels_.empty() || !levels_.back().is_map) return;
    Level& level = levels_.back();
    if (level.at_key && scalar && value != "<<") {
      const auto [first, is_new] = level.keys.try_emplace({tag, value}, mark.line + 1);
      if (!is_new)
        throw Refused("the key '" + value.substr(0, 60) + "' stands twice, in lines " +
                      std::to_string(first->second) + " and " + std::to_string(mark.line + 1));
    }
    level.at_key = !level.at_key;
  }

  void open(const YAML::Mark& mark, YAML::anchor_t anchor, bool is_map) {
    enter_value(mark, "", "", false);
    if (levels_.size() >= most_yaml_depth)
      throw Refused("it is nested deeper than " + std::to_string(most_yaml_depth) + " levels");
    levels_.push_back({anchor, is_map});
  }

  void close() {
    const Level level = std::move(levels_.back());
    levels_.pop_back();
    if (level.anchor != 0) sizes_[level.anchor] = level.size;
    add(level.size);
  }

  void add(std::size_t size) {
    if (levels_.empty()) return;
    levels_.back().size += size;
    if (levels_.back().size > most_yaml_values)
      throw Refused("its aliases make more than 1,000,000 values of it");
  }

  std::vector<Level> levels_;
  std::map<YAML::anchor_t, std::size_t> sizes_;
};

// Refuses what YAML does not allow in a text; yaml-cpp takes it for letters, or guesses a coding.
void check_characters(const std::string& text) {
  std::size_t line = 1;
  for (const char32_t c : characters(text)) {
    const std::string place = " in line " + std::to_string(line);
    if (c >= 0xDC80 && c <= 0xDCFF) throw Refused("a byte" + place + " is not UTF-8");
    if (c == 0x85 || c == 0x2028 || c == 0x2029)
      throw Refused("a character" + place + " ends the line in YAML 1.1 and not in 1.2");
    const bool allowed = c == '\t' || c == '\n' || c == '\r' || (c >= 0x20 && c <= 0x7E) ||
                         (c >= 0xA0 && c != 0xFFFE && c != 0xFFFF);
    if (!allowed) throw Refused("a character" + place + " is not allowed: a control character");
    if (c == '\n') ++line;
  }
}

// yaml-cpp does not say how a null was written, which is a name where it is a label's: the node's
// tag says it from here on.
void note_nulls(YAML::Node node, std::string_view text) {
  if (node.IsNull()) {
    const int place = node.Mark().pos;
    if (place < 0 || static_cast<std::size_t>(place) > text.size()) return;
    const std::string_view rest = text.substr(static_cast<std::size_t>(place));
    for (const std::string_view word : {"~", "null", "Null", "NULL"})
      if (rest.substr(0, word.size()) == word) node.SetTag(std::string(word));
  } else if (node.IsSequence()) {
    for (const YAML::Node& item : node) note_nulls(item, text);
  } else if (node.IsMap()) {
    for (const auto& entry : node) note_nulls(entry.second, text);
  }
}

std::string one_line(const char* text) {
  std::istringstream words(text);
  std::string word, line;
  while (words >> word) line += (line.empty() ? "" : " ") + word;
  return line;
}

}  // namespace

YAML::Node yaml_of(const std::string& text) {
  YAML::Node node = YAML::Load(text);
  note_nulls(node, text);
  return node;
}

YAML::Node read_yaml(const fs::path& path, const std::string& what) {
  const std::string place = what + " " + path.string();
  YAML::Node node;
  try {
    std::string text = content(path, most_yaml_bytes);
    check_characters(text);
    if (text.rfind("\xEF\xBB\xBF", 0) == 0) text.erase(0, 3);
    Bounds bounds;
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    parser.HandleNextDocument(bounds);
    if (parser.HandleNextDocument(bounds)) throw Refused("it has a second document, behind ---");
    node = yaml_of(text);
  } catch (const std::system_error& error) {
    if (error.code().value() == ENOENT) throw BundleError(place + " does not exist");
    throw BundleError(place + " cannot be read: " + std::strerror(error.code().value()));
  } catch (const YAML::Exception& error) {
    throw BundleError(place + " is not valid YAML: " + one_line(error.what()));
  } catch (const Refused& error) {
    throw BundleError(place + " is not valid YAML: " + error.what());
  }
  if (!node.IsMap()) throw BundleError(place + " has no keys, expected some with their values");
  return node;
}

nlohmann::json read_json(const fs::path& path) {
  using nlohmann::json;
  try {
    const std::string text = content(path, most_json_bytes);
    bool too_deep = false;
    const auto bounded = [&](int depth, json::parse_event_t, json&) {
      too_deep = too_deep || depth > most_json_depth;
      return !too_deep;
    };
    json found = json::parse(text, bounded, false);
    return too_deep ? json(json::value_t::discarded) : found;
  } catch (const std::exception&) {
    return json(json::value_t::discarded);
  }
}

}  // namespace hgdeploy
