// SPDX-License-Identifier: Apache-2.0
#include "bundle/sidecar.hpp"

#include <deque>
#include <set>

#include "bundle/model_files.hpp"
#include "bundle/names.hpp"
#include "errors.hpp"
#include "system/digests.hpp"
#include "system/documents.hpp"

namespace hgdeploy {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

json facts_of(const fs::path& path) {
  json facts = read_json(path);
  return facts.is_object() ? facts : json::object();
}

bool is_file(const fs::path& path) {
  std::error_code failed;
  return fs::is_regular_file(path, failed);
}

// The digest of every file that an artifact was made from, directly or not, by name.
Digests recorded_sources(const fs::path& artifact) {
  const json facts = read_sidecar(artifact);
  Digests found = digests_in(facts, "source");
  found.merge(digests_in(facts, "origin"));
  return found;
}

// Refuses a model of which a file is not what a sidecar says: damaged, or another in its place.
void check_unaltered(const fs::path& artifact) {
  const auto check = [&](const Digests& described, const std::string& sidecar, bool needed) {
    for (const auto& [name, digest] : described) {
      const fs::path path = artifact.parent_path() / name;
      if (!is_file(path) || file_sha256(path) == digest) continue;
      throw BundleError(path.string() + " has changed since it was made: it is not the file that " +
                        sidecar + " describes; copy or make it again" +
                        (needed ? "" : ", or delete " + sidecar + " if the change is meant"));
    }
  };
  const json own = read_sidecar(artifact);
  Digests described = digests_in(own, "files");
  const std::string name = artifact.filename().string();
  if (const auto found = own.find("sha256"); found != own.end() && found->is_string())
    described.emplace(name, found->get<std::string>());
  check(described, sidecar_path(artifact).filename().string(), needs_sidecar(name));
  const Digests came = digests_in(read_bundle_sidecar(artifact.parent_path()), "files");
  if (came.count(name) == 0) return;
  Digests of_model;
  for (const fs::path& path : model_files(artifact))
    if (const auto found = came.find(path.filename().string()); found != came.end())
      of_model.insert(*found);
  check(of_model, sidecar_file, false);
}

}  // namespace

fs::path sidecar_path(const fs::path& artifact) { return artifact.string() + ".meta.json"; }

json read_sidecar(const fs::path& artifact) { return facts_of(sidecar_path(artifact)); }

json read_bundle_sidecar(const fs::path& folder) { return facts_of(folder / sidecar_file); }

Digests digests_in(const json& facts, const char* key) {
  Digests found;
  const auto part = facts.find(key);
  if (part == facts.end() || !part->is_object()) return found;
  for (const auto& [name, digest] : part->items()) {
    const bool is_name = !name.empty() && name != "." && name != ".." &&
                         name.find('/') == std::string::npos &&
                         name.find('\0') == std::string::npos;
    if (is_name && digest.is_string()) found.emplace(name, digest.get<std::string>());
  }
  return found;
}

std::optional<fs::path> changed_source(const fs::path& artifact) {
  std::deque<fs::path> waiting{artifact};
  std::set<fs::path> seen{artifact};
  while (!waiting.empty()) {
    const Digests sources = recorded_sources(waiting.front());
    waiting.pop_front();
    for (const auto& [name, digest] : sources) {
      const fs::path path = artifact.parent_path() / name;
      if (!is_file(path)) continue;
      if (file_sha256(path) != digest) return path;
      if (seen.insert(path).second) waiting.push_back(path);
    }
  }
  return std::nullopt;
}

void check_artifact(const fs::path& artifact) {
  check_unaltered(artifact);
  if (const auto changed = changed_source(artifact))
    throw BundleError(artifact.string() + " is stale: " + changed->filename().string() +
                      " has changed since it was made; make it again with hgdeploy convert, "
                      "quantize or build, or delete it");
}

std::vector<std::string> bundle_notes(const fs::path& folder) {
  std::vector<std::string> notes;
  const Digests came = digests_in(read_bundle_sidecar(folder), "files");
  const fs::path description = folder / description_file;
  const auto made = came.find(description_file);
  if (made != came.end() && is_file(description) && file_sha256(description) != made->second)
    notes.push_back(description.string() + " has changed since the bundle was made (" +
                    sidecar_file + " has its digest); it is used as it is now");
  const std::string first = paddle_programs[0], second = paddle_programs[1];
  if (is_file(folder / first) && is_file(folder / second))
    notes.push_back(folder.string() + " has " + first + " and " + second + ": " + first +
                    " is the model; delete it if the other is");
  return notes;
}

}  // namespace hgdeploy
