// SPDX-License-Identifier: Apache-2.0
#include "classify/scores.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "bundle/sidecar.hpp"
#include "errors.hpp"

namespace hgdeploy {
namespace {

// How far the sum of a row of probabilities may be from 1; bf16 and int8 softmax are well within
// it.
constexpr double sum_tolerance = 0.02;

std::optional<std::vector<std::string>> ending_of(const std::filesystem::path& source) {
  const nlohmann::json facts = read_sidecar(source);
  const auto known = facts.find("ending");
  if (known == facts.end() || !known->is_array()) return std::nullopt;
  std::vector<std::string> names;
  for (const auto& name : *known) {
    if (!name.is_string() || (name != "softmax" && name != "sigmoid")) return std::nullopt;
    names.push_back(name.get<std::string>());
  }
  return names;
}

}  // namespace

ScoreCheck::ScoreCheck(const std::filesystem::path& source, const Postprocess& output, bool softmax,
                       const OnWarning& on_warning)
    : source_(source.string()), softmax_(softmax), ending_(ending_of(source)) {
  if (softmax && ending_ && !ending_->empty())
    throw ConfigError(source_ + " ends in a " + ending_->front() +
                      " already, so --softmax would make wrong scores; leave it out");
  const bool sums_to_one = !ending_ || (!ending_->empty() && ending_->front() == "softmax");
  unchecked_ = output.probabilities() && sums_to_one && !softmax;
  if (ending_ && !std::holds_alternative<ScoreOutput>(output.output()))
    warn_at_first(output, on_warning);
}

void ScoreCheck::warn_at_first(const Postprocess& output, const OnWarning& on_warning) const {
  if (ending_->size() > 1)
    on_warning(source_ + " ends in a " + (*ending_)[0] + " of a " + (*ending_)[1] +
               ", so its scores are nearly equal and mean little; export it with one of them");
  if (!ending_->empty() || softmax_) return;
  if (output.of_attributes()) {
    on_warning(source_ + " has no sigmoid at its end, so the thresholds of " + output.name() +
               " are compared with logits, not with probabilities");
  } else if (!std::holds_alternative<Topk>(output.output())) {
    on_warning(source_ + " has no softmax or sigmoid at its end, so the threshold of " +
               output.name() + " is compared with logits, not with probabilities");
  } else {
    on_warning(source_ +
               " has no softmax at its end, so its scores are logits, not probabilities; "
               "--softmax makes probabilities of them");
  }
}

std::optional<std::string> ScoreCheck::operator()(float* row, std::size_t classes) {
  float* const end = row + classes;
  if (softmax_) {
    const float most = *std::max_element(row, end);
    std::vector<double> values(row, end);
    double total = 0;
    for (double& value : values) total += value = std::exp(value - static_cast<double>(most));
    for (std::size_t i = 0; i < classes; ++i) row[i] = static_cast<float>(values[i] / total);
    return std::nullopt;
  }
  if (!unchecked_) return std::nullopt;
  unchecked_ = false;
  double total = 0;
  for (const float* value = row; value < end; ++value) total += static_cast<double>(*value);
  if (*std::min_element(row, end) >= 0 && std::abs(total - 1.0) <= sum_tolerance)
    return std::nullopt;
  char sum[32];
  std::snprintf(sum, sizeof sum, "%.3g", total);
  if (!ending_)
    return std::string("the model's scores sum to ") + sum +
           ", not to 1, so they are not probabilities; export the model with a softmax over its "
           "classes at its end";
  return source_ + " ends in a softmax, but its scores sum to " + sum +
         ", not to 1: the engine computes it wrongly; compare engines with hgdeploy validate";
}

}  // namespace hgdeploy
