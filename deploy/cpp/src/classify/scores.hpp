// SPDX-License-Identifier: Apache-2.0
// What a model's scores are, and what its user should know about them:
// deploy/python/hgdeploy/classify/scores.py. How a model ends is known from its sidecar alone.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "transforms/postprocess.hpp"

namespace hgdeploy {

class ScoreCheck {
 public:
  using OnWarning = std::function<void(const std::string&)>;

  // `softmax` makes probabilities of logits. Throws ConfigError: it was asked for, and the model
  // ends in an activation already.
  ScoreCheck(const std::filesystem::path& source, const Postprocess& output, bool softmax,
             const OnWarning& on_warning);

  // Makes the scores of one image, in place, of what the model gave for it. The first row is
  // checked; what is wrong with it is returned, to be told.
  std::optional<std::string> operator()(float* row, std::size_t classes);

 private:
  void warn_at_first(const Postprocess& output, const OnWarning& on_warning) const;

  std::string source_;
  bool softmax_;
  std::optional<std::vector<std::string>> ending_;  // the activations, the last one first
  bool unchecked_;
};

}  // namespace hgdeploy
