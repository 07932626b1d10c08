// SPDX-License-Identifier: Apache-2.0
// Reads YAML and JSON from outside, within bounds: deploy/python/hgdeploy/system/documents.py.
#pragma once

#include <filesystem>
#include <string>

#include <yaml-cpp/yaml.h>
#include <nlohmann/json.hpp>

namespace hgdeploy {

// Reads a YAML file of keys and values. `what` names the file in errors. Throws BundleError: it is
// missing, too large, no YAML, nested or repeated without measure, or has no keys.
YAML::Node read_yaml(const std::filesystem::path& path, const std::string& what);

// Reads a YAML text that is within bounds; a null's tag says how it was written. Throws
// YAML::Exception.
YAML::Node yaml_of(const std::string& text);

// Reads a JSON file; `discarded` where it is no JSON, too large, or cannot be read.
nlohmann::json read_json(const std::filesystem::path& path);

}  // namespace hgdeploy
