// SPDX-License-Identifier: Apache-2.0
#include "bundle/model_bundle.hpp"

#include <algorithm>
#include <set>

#include <yaml-cpp/yaml.h>

#include "bundle/names.hpp"
#include "bundle/sidecar.hpp"
#include "errors.hpp"
#include "system/documents.hpp"
#include "system/text.hpp"
#include "transforms/preprocess.hpp"

namespace hgdeploy {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t shown = 300;  // letters of a path, which may be too long for the system

void check_folder(const fs::path& root) {
  const std::string place = root.string();
  std::error_code failed;
  (void)fs::status(root / "inference_int8.pdiparams", failed);
  const bool missing =
      failed == std::errc::no_such_file_or_directory || failed == std::errc::not_a_directory;
  if (failed && !missing)
    throw BundleError("model folder " + place.substr(0, shown) +
                      " cannot be searched: " + std::generic_category().message(failed.value()));
  if (!fs::is_directory(root, failed))
    throw BundleError("model folder " + place +
                      (fs::exists(root, failed) ? " is a file, expected the folder it lies in"
                                                : " does not exist"));
  if (!is_utf8(place))
    throw BundleError("model folder " + printable(place) +
                      " has a name that is not UTF-8, which the engines cannot open; rename it");
}

std::string text_of(const YAML::Node& node) {
  return node.IsDefined() && node.IsScalar() ? node.Scalar() : "";
}

// Reads a section of `inference.yml`; what cannot be served is an error of the bundle.
template <typename Read>
auto served(const fs::path& path, const Read& read) {
  try {
    return read();
  } catch (const ConfigError& error) {
    throw BundleError(path.string() + ": " + error.what());
  }
}

}  // namespace

bool ModelBundle::has(const std::string& name) const {
  std::error_code failed;
  return fs::is_regular_file(path(name), failed);
}

fs::path ModelBundle::find(const std::vector<std::string>& names) const {
  for (const std::string& name : names) {
    if (!has(name)) continue;
    check_artifact(path(name));
    return path(name);
  }
  static const std::set<std::string> models{".json",   ".pdmodel", ".pdiparams", ".onnx",
                                            ".engine", ".plan",    ".mnn",       ".param"};
  std::vector<std::string> present;
  for (const auto& entry : fs::directory_iterator(root)) {
    const std::string name = entry.path().filename().string();
    const bool sidecar = name.size() > 10 && name.compare(name.size() - 10, 10, ".meta.json") == 0;
    if (models.count(entry.path().extension().string()) && !sidecar && name != "recommended.json")
      present.push_back(name);
  }
  std::sort(present.begin(), present.end());
  throw BundleError(
      root.string() + " has no " + join(names, " or ") + "; " +
      (present.empty() ? "there are no model files in it" : "it has " + join(present, ", ")));
}

ModelBundle open_bundle(const fs::path& root) {
  check_folder(root);
  const fs::path path = root / description_file;
  ModelBundle bundle;
  bundle.root = root;
  bundle.notes = bundle_notes(root);
  const YAML::Node raw =
      fs::is_symlink(path) || fs::exists(path) ? read_yaml(path, "description") : YAML::Node();
  if (const YAML::Node settings = raw["Global"]; settings.IsDefined() && settings.IsMap()) {
    bundle.model_name = text_of(settings["model_name"]);
    bundle.output_name = text_of(settings["output_name"]);
  }
  const YAML::Node before = raw["PreProcess"];
  if (!before.IsDefined() || !before.IsMap() || !before["transform_ops"].IsDefined())
    throw ConfigError("nothing says how to preprocess images for " + root.string() +
                      ": it has no " + description_file +
                      " with PreProcess.transform_ops; write one");
  bundle.preprocess = served(path, [&] {
    return Preprocessor::from_config(before["transform_ops"], "PreProcess.transform_ops").ops();
  });
  const YAML::Node after = raw["PostProcess"];
  if (!after.IsDefined() || after.IsNull()) return bundle;
  // A bundle's paths count from the bundle, wherever it is used.
  const auto resolve = [&](const std::string&, const std::string& file) {
    return (root / file).string();
  };
  bundle.postprocess =
      served(path, [&] { return Postprocess::from_config(after, "PostProcess", resolve); });
  if (after.IsMap() && after["SavePreLabel"].IsDefined())
    bundle.notes.push_back(path.string() +
                           ": PostProcess.SavePreLabel is not followed, since a model does not say "
                           "where files are written");
  return bundle;
}

}  // namespace hgdeploy
