// SPDX-License-Identifier: Apache-2.0
// `Classifier`: a bundle loaded into an engine, with the bundle's own pre- and postprocessing:
// deploy/python/hgdeploy/classify/classifier.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <opencv2/core.hpp>

#include "../errors.hpp"
#include "../transforms/prediction.hpp"
#include "settings.hpp"

namespace hgdeploy {

// Classifies images with a bundle; safe to call from many threads at once.
//
// An image that cannot be read or preprocessed is no exception: its prediction has the reason in
// `error`.
class Classifier {
 public:
  // Throws BundleError: model files are missing or do not fit each other; ConfigError: a setting is
  // wrong, or the bundle does not say how to feed its model; EngineError: the engine, device or
  // precision is not available here.
  explicit Classifier(const std::string& bundle, const Settings& settings = {});
  Classifier(Classifier&&) noexcept;
  Classifier& operator=(Classifier&&) noexcept;
  ~Classifier();

  // Classifies one image file.
  Prediction predict(const std::string& path) const;
  // Classifies the contents of an image file.
  Prediction predict(const std::vector<std::uint8_t>& file) const;
  Prediction predict(const std::uint8_t* data, std::size_t size,
                     const std::string& name = "<bytes 0>") const;
  // Classifies pixels as OpenCV reads them: uint8, BGR.
  Prediction predict(const cv::Mat& bgr) const;

  // What the user should know, one line each.
  std::vector<std::string> warnings() const;
  // What runs, such as `openvino 2026.4.1 fp32 on cpu`.
  std::string runtime() const;

  struct Impl;  // for the folder pipeline
  Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace hgdeploy
