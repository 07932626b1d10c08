// SPDX-License-Identifier: Apache-2.0
// Operators from `transform_ops` of a config:
// deploy/python/hgdeploy/transforms/operators_config.py.
#pragma once

#include <string>
#include <vector>

#include "system/value.hpp"
#include "transforms/operators.hpp"

namespace hgdeploy {

// Reads PaddleClas's `transform_ops`; `where` is the path of the list in its file. Throws
// ConfigError: an operator, parameter, value or sequence that cannot be served.
std::vector<Op> parse_ops(const Value& config, const std::string& where);

// Throws ConfigError where an operator cannot follow those before it.
void check_sequence(const std::vector<Op>& ops, const std::string& where);

}  // namespace hgdeploy
