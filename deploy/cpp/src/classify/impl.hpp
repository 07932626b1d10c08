// SPDX-License-Identifier: Apache-2.0
// What is inside a `Classifier`: batches of images, the times of their stages, and warnings.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "classify/classifier.hpp"
#include "classify/scores.hpp"
#include "classify/summary.hpp"
#include "engines/run.hpp"
#include "images/decode.hpp"
#include "images/find.hpp"
#include "transforms/postprocess.hpp"
#include "transforms/preprocess.hpp"

namespace hgdeploy {

// One image to classify: its name, and what gives its pixels.
struct Image {
  std::string name;
  std::function<cv::Mat()> pixels;
};

struct Classifier::Impl {
  Impl(const std::string& folder, const Settings& settings);

  // Classifies at most one batch; an image that fails keeps its place.
  std::vector<Prediction> answers(const std::vector<Image>& images);
  Prediction answer(Image image);
  Image of_file(const ImageFile& file) const;
  void warn(const std::string& line);
  std::vector<std::string> warnings() const;
  StageTimes times() const;

  Settings settings;
  ModelBundle bundle;
  Preprocessor preprocessor;
  Postprocess postprocess;
  DecodeOptions decoding;
  OpenedRun run;
  int batch_size = 1;
  int cpus = 1;

 private:
  struct Row;
  void infer(const std::vector<std::size_t>& places, const std::array<long, 3>& shape,
             std::vector<std::uint8_t>& bytes, std::vector<Row>& rows);

  mutable std::mutex lock_;  // guards what follows
  std::vector<std::string> warnings_;
  StageTimes times_;
  std::optional<ScoreCheck> scores_;
};

}  // namespace hgdeploy
