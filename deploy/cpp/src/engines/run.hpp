// SPDX-License-Identifier: Apache-2.0
// An engine opened on a bundle: deploy/python/hgdeploy/engines/run.py.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "bundle/model_bundle.hpp"
#include "engines/engine.hpp"
#include "transforms/preprocess.hpp"

namespace hgdeploy {

// The engine to run where none is named: the first of this build whose file the bundle has. Throws
// EngineError: this build has not the one that is named, or none at all.
const EngineKind& chosen_engine(const std::string& name, const ModelBundle& bundle,
                                const std::string& precision);

struct OpenedRun {
  std::unique_ptr<Engine> engine;
  std::filesystem::path source;  // the file it was loaded from
};

// Loads the file that an engine reads from a bundle. Throws BundleError: it is missing, stale,
// cannot be loaded, is not an image classifier, or does not take what the preprocessor makes;
// EngineError: the precision or device is not available here.
OpenedRun open_run(const ModelBundle& bundle, const EngineKind& kind, EngineOptions options,
                   const Preprocessor& preprocessor,
                   const std::function<void(const std::string&)>& on_warning);

}  // namespace hgdeploy
