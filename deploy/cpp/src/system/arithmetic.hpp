// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

namespace hgdeploy {

// The value of a text of numbers, `*`, `/`, signs and brackets, as Python reads it; nothing for any
// other text.
std::optional<double> arithmetic(const std::string& text);

}  // namespace hgdeploy
