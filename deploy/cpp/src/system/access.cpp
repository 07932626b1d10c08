// SPDX-License-Identifier: Apache-2.0
#include "system/access.hpp"

#include <cerrno>
#include <system_error>

#include "system/text.hpp"

namespace hgdeploy {

std::string reason_of(int error_number) {
  return lower(std::generic_category().message(error_number));
}

void raise_if_exhausted(int error_number) {
  const std::string said = "the system refuses this process: " + reason_of(error_number);
  if (error_number == EMFILE || error_number == ENFILE) {
    throw ResourceError(said + "; raise the limit (ulimit -n), or use fewer --workers");
  }
  if (error_number == ENOMEM) {
    throw ResourceError(said + "; use fewer --workers or smaller batches");
  }
}

ImageError access_error(int error_number) {
  raise_if_exhausted(error_number);
  return ImageError(error_number == ENOENT ? "does not exist"
                                           : "cannot be read: " + reason_of(error_number));
}

}  // namespace hgdeploy
