// SPDX-License-Identifier: Apache-2.0
#include "engines/openvino/cache.hpp"

#include <cstdlib>

#include <sys/stat.h>

#include "bundle/model_files.hpp"
#include "system/digests.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

namespace fs = std::filesystem;

std::string short_digest(const std::string& text) { return sha256(text).substr(0, 16); }

long long modified_ns(const fs::path& path) {
  struct stat found {};
  ::stat(path.c_str(), &found);
  return static_cast<long long>(found.st_mtim.tv_sec) * 1'000'000'000 + found.st_mtim.tv_nsec;
}

bool starts_with(const std::string& text, const std::string& start) {
  return text.compare(0, start.size(), start) == 0;
}

// A folder beside another, which goes with all that is left in it.
struct Scratch {
  explicit Scratch(const fs::path& parent) {
    std::error_code failed;
    fs::create_directories(parent, failed);
    std::string name = (parent / ".new-XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) path = name;
  }
  ~Scratch() {
    std::error_code failed;
    if (!path.empty()) fs::remove_all(path, failed);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  fs::path path;
};

}  // namespace

void with_cache(const fs::path& source, const std::string& settings, const fs::path& root,
                const std::function<void(const fs::path&)>& compile) {
  if (root.empty()) return compile({});
  const std::string digest = model_digest(source), name = source.filename().string();
  const std::string stamp =
      name + "-" +
      short_digest("(" + repr(digest) + ", " + std::to_string(modified_ns(source)) + ")") + "-";
  const fs::path final = root / "openvino" / (stamp + short_digest(settings));
  std::error_code failed;
  if (fs::is_directory(final, failed)) return compile(final);
  const Scratch scratch(final.parent_path());
  if (scratch.path.empty()) return compile({});
  const fs::path made = scratch.path / "new";
  fs::create_directory(made, failed);
  compile(failed ? fs::path() : made);
  if (failed || model_digest(source) != digest) return;  // it was changed while it was loaded
  fs::rename(made, final, failed);                       // another process may have been first
  std::vector<fs::path> old;
  for (const auto& entry : fs::directory_iterator(final.parent_path(), failed)) {
    const std::string other = entry.path().filename().string();
    if (starts_with(other, name + "-") && !starts_with(other, stamp)) old.push_back(entry.path());
  }
  for (const fs::path& folder : old) fs::remove_all(folder, failed);  // of the file as it was
}

}  // namespace hgdeploy
