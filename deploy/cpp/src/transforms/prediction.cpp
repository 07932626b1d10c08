// SPDX-License-Identifier: Apache-2.0
#include "transforms/prediction.hpp"

#include <utility>

namespace hgdeploy {

Prediction Prediction::failed(std::string name, std::string reason, bool of_attributes) {
  Prediction prediction;
  prediction.name = std::move(name);
  prediction.class_ids.emplace();
  prediction.error = std::move(reason);
  if (of_attributes) {
    prediction.attributes.emplace();
    prediction.output.emplace();
  }
  return prediction;
}

}  // namespace hgdeploy
