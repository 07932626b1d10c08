// SPDX-License-Identifier: Apache-2.0
// Checks that a Paddle 2 parameters file is whole, and that it is the one of its program: engines
// compute with whatever memory holds where bytes are missing, and say nothing. The same walk as
// deploy/python/hgdeploy/bundle/paddle_params.py.
#pragma once

#include <filesystem>

namespace hgdeploy {

// `program` is a `.pdmodel` with its `.pdiparams` beside it. Throws BundleError: the two files are
// of different exports, or one is missing or damaged.
void check_params(const std::filesystem::path& program);

}  // namespace hgdeploy
