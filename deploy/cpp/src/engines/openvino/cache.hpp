// SPDX-License-Identifier: Apache-2.0
// Where OpenVINO keeps a compiled model, and loads it from the next time; Python's folders.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace hgdeploy {

// Calls `compile` with the folder for a model with these settings, or with an empty path where
// nothing is kept: `root` is empty, or cannot be written.
//
// Each model has a folder for each set of settings, under the digest of all its files: OpenVINO
// itself looks only at the time and size of the first (the time is in the name too, or it would
// compile into the same folder again). It writes in place, so a new folder is filled aside and
// renamed when it is whole. OpenVINO itself notices that its version has changed.
//
// `settings` is Python's repr of the device and the sorted settings.
void with_cache(const std::filesystem::path& source, const std::string& settings,
                const std::filesystem::path& root,
                const std::function<void(const std::filesystem::path&)>& compile);

}  // namespace hgdeploy
