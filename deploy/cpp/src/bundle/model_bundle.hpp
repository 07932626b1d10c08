// SPDX-License-Identifier: Apache-2.0
// A bundle: the folder of a model and what its `inference.yml` says:
// deploy/python/hgdeploy/bundle/model_bundle.py.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "transforms/operators.hpp"
#include "transforms/postprocess.hpp"

namespace hgdeploy {

struct ModelBundle {
  std::filesystem::path root;
  std::string model_name;                  // empty where none is stated
  std::vector<Op> preprocess;              // the model's own operators
  std::optional<Postprocess> postprocess;  // nothing where none is stated
  std::string output_name;         // the output that has the scores; empty where it is the only one
  std::vector<std::string> notes;  // what the user should know, one line each

  std::filesystem::path path(const std::string& name) const { return root / name; }
  bool has(const std::string& name) const;
  // The first of these files that the bundle has, checked. Throws BundleError: it has none of them,
  // or the one it has, or what that was made from, has changed since.
  std::filesystem::path find(const std::vector<std::string>& names) const;
};

// Opens a bundle's folder. Throws BundleError: there is no such folder, or its `inference.yml` is
// wrong or not served; ConfigError: it does not say how to preprocess.
ModelBundle open_bundle(const std::filesystem::path& root);

}  // namespace hgdeploy
