// SPDX-License-Identifier: Apache-2.0
// What the system says of a file that it does not give.
#pragma once

#include <string>

#include "errors.hpp"

namespace hgdeploy {

// Why a file could not be accessed, in the system's own words.
std::string reason_of(int error_number);
// Throws ResourceError where the system has no more open files or memory for this process.
void raise_if_exhausted(int error_number);
// Why an image cannot be read; throws ResourceError as above.
ImageError access_error(int error_number);

}  // namespace hgdeploy
