// SPDX-License-Identifier: Apache-2.0
// The account of a run: found, classified, failed, and the time:
// deploy/python/hgdeploy/classify/summary.py.
#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "transforms/prediction.hpp"

namespace hgdeploy {

// Seconds spent in each stage, summed over all images.
struct StageTimes {
  static constexpr std::array<const char*, 4> names{"decode", "preprocess", "infer", "postprocess"};
  std::array<double, 4> seconds{};
  // The images that took longest to become tensors, slowest first.
  std::vector<std::pair<double, std::string>> slowest;

  void add(const StageTimes& other);
};

// found = classified + failed once the run is over.
struct Summary {
  std::size_t found = 0;
  std::size_t classified = 0;
  std::size_t failed = 0;
  double seconds = 0;  // without loading the model
  // How many images failed for each reason, with every number replaced by N, in order of
  // appearance.
  std::vector<std::pair<std::string, std::size_t>> reasons;
  StageTimes times;
  int workers = 0;

  void count(const Prediction& prediction);
  int exit_code() const;
  // The account as one line.
  std::string text() const;
  // Lines about why images failed, where the time went, and the slowest files.
  std::vector<std::string> details() const;
};

}  // namespace hgdeploy
