// SPDX-License-Identifier: Apache-2.0
#include "engines/run.hpp"

#include <algorithm>

#include "bundle/model_files.hpp"
#include "bundle/names.hpp"
#include "engines/fit.hpp"
#include "errors.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

namespace fs = std::filesystem;
const std::vector<std::string> precisions{"fp32", "tf32", "fp16", "bf16", "int8"};

bool has_any(const ModelBundle& bundle, const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(), [&](auto& name) { return bundle.has(name); });
}

// The other runs of this build whose files a bundle has, one for each engine and file.
std::vector<std::string> readable_runs(const ModelBundle& bundle) {
  std::vector<std::string> found;
  for (const EngineKind& kind : engine_kinds()) {
    std::vector<std::vector<std::string>> seen;
    for (const std::string& precision : precisions) {
      const auto names = kind.artifact_names(precision);
      if (!has_any(bundle, names) || std::count(seen.begin(), seen.end(), names)) continue;
      seen.push_back(names);
      found.push_back(kind.name + (precision == "fp32" ? "" : ":" + precision));
    }
  }
  return found;
}

// The file of a bundle that an engine loads.
fs::path artifact_of(const ModelBundle& bundle, const EngineKind& kind,
                     const std::string& precision) {
  const std::vector<std::string> names = kind.artifact_names(precision);
  if (!has_any(bundle, names)) {
    const std::vector<std::string> others = readable_runs(bundle);
    const std::string how = names.empty() ? "" : made_by(names[0]);
    const std::string make = how.empty() ? "" : "make it with " + how + " (needs Python)";
    if (!others.empty())
      throw BundleError(bundle.root.string() + " has no " + join(names, " or ") +
                        "; it has files for " + join(others, ", ") + ": " +
                        (how.empty() ? "" : make + ", or ") + "choose engine and precision so");
    if (!how.empty() && bundle.has(paddle_programs[0]))
      throw BundleError(bundle.root.string() + " has no " + join(names, " or ") + "; " + make);
  }
  const fs::path source = bundle.find(names);
  const std::string first =
      bundle.has(paddle_programs[0]) ? paddle_programs[0] : paddle_programs[1];
  if (source.filename() == paddle_programs[1] && first != paddle_programs[1])
    throw BundleError(bundle.root.string() + " has " + first + " and " +
                      source.filename().string() + ": the first is the model, and " + kind.name +
                      " does not read it; make an ONNX file with hgdeploy convert, or delete " +
                      first + " if " + source.filename().string() + " is the model");
  return source;
}

// Tells of an ONNX file that computes in another precision than fp32, or refuses it.
void check_precision(const fs::path& source, const EngineKind& kind, const std::string& precision,
                     const std::function<void(const std::string&)>& on_warning) {
  if (source.extension() != ".onnx") return;
  const std::string found = onnx_precision(source), reduced = onnx_name(precision);
  const auto names = kind.artifact_names(precision);
  const bool own_file = std::count(names.begin(), names.end(), reduced) > 0 && reduced != onnx_file;
  if (found == "fp32" && own_file)
    throw BundleError(source.string() + " computes in fp32, whatever its name, and " + precision +
                      " was asked for; make it with " + made_by(reduced) + ", or ask for fp32");
  if (precision == "fp32" && found != "fp32")
    on_warning(source.string() + " computes in " + found + ", not in fp32, whatever its name");
}

}  // namespace

const EngineKind& chosen_engine(const std::string& name, const ModelBundle& bundle,
                                const std::string& precision) {
  if (std::count(precisions.begin(), precisions.end(), precision) == 0)
    throw ConfigError("unknown precision " + repr(precision) + ", " +
                      nearest(precision, precisions));
  const std::vector<std::string> built = built_engines();
  const std::string has = built.empty() ? "it has none" : "it has " + join(built, ", ");
  const EngineKind* usual = nullptr;
  std::vector<std::string> names;
  for (const EngineKind& kind : engine_kinds()) {
    names.emplace_back(kind.name);
    if (kind.name == name && kind.load == nullptr)
      throw EngineError("this build has not the engine " + name + "; " + has +
                        ", and docs/cpp.md says how each is built in");
    if (kind.name == name) return kind;
    if (kind.load == nullptr) continue;
    if (usual == nullptr || (!has_any(bundle, usual->artifact_names(precision)) &&
                             has_any(bundle, kind.artifact_names(precision))))
      usual = &kind;
  }
  if (!name.empty())
    throw EngineError("unknown engine " + repr(name) + ", " + nearest(name, names));
  if (usual == nullptr)
    throw EngineError("this build has no engine; docs/cpp.md says how one is built in");
  return *usual;
}

OpenedRun open_run(const ModelBundle& bundle, const EngineKind& kind, EngineOptions options,
                   const Preprocessor& preprocessor,
                   const std::function<void(const std::string&)>& on_warning) {
  OpenedRun run;
  run.source = artifact_of(bundle, kind, options.precision);
  options.output_name = bundle.output_name;
  check_precision(run.source, kind, options.precision, on_warning);
  run.engine = kind.load(run.source, options);
  check_feed(run.engine->input(), run.source, preprocessor);
  return run;
}

}  // namespace hgdeploy
