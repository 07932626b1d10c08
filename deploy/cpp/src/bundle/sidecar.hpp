// SPDX-License-Identifier: Apache-2.0
// What an artifact was made from, whether that still lies beside it, and whether a bundle's files
// are those that its sidecars describe: deploy/python/hgdeploy/bundle/sidecar.py and integrity.py.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace hgdeploy {

// Digests by file name.
using Digests = std::map<std::string, std::string>;

// Where the sidecar of an artifact lies: `NAME.meta.json` beside it.
std::filesystem::path sidecar_path(const std::filesystem::path& artifact);
// What an artifact's sidecar says; an empty object where there is none that can be read.
nlohmann::json read_sidecar(const std::filesystem::path& artifact);
// What a bundle's `inference.meta.json` says, likewise.
nlohmann::json read_bundle_sidecar(const std::filesystem::path& folder);
// The digests by file name in a part of a sidecar, of files that lie beside it.
Digests digests_in(const nlohmann::json& facts, const char* key);

// A file that an artifact was made from, directly or not, and that has changed since; nothing if
// all is well. A source that is not there any more is no change: a model may be deployed alone.
std::optional<std::filesystem::path> changed_source(const std::filesystem::path& artifact);

// Refuses a model whose files are not what a sidecar says, or whose sources have changed since.
// Throws BundleError, which names the file.
void check_artifact(const std::filesystem::path& artifact);

// What the user of a bundle should know about its files, one line each.
std::vector<std::string> bundle_notes(const std::filesystem::path& folder);

}  // namespace hgdeploy
