// SPDX-License-Identifier: Apache-2.0
// What is found for one image: deploy/python/hgdeploy/transforms/prediction.py.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace hgdeploy {

// What was found in one image, or why nothing was.
struct Prediction {
  // The image's path relative to the folder that was searched.
  std::string name;
  // The classes, best first; nothing for a model that outputs a bare score or attributes.
  std::optional<std::vector<int>> class_ids;
  // One score a class, or the bare score, or those of all attributes.
  std::vector<double> scores;
  // One name a class; empty without labels.
  std::vector<std::string> label_names;
  // For each name, whether YAML made a number or a switch of it, which Python prints without
  // quotes. Empty: of none.
  std::vector<bool> bare_names;
  // Nothing, or the reason why the image failed; then the other fields are empty.
  std::optional<std::string> error;
  // What PaddleClas calls so; nothing where the model is none of attributes.
  std::optional<std::vector<std::string>> attributes;
  // Whether `attributes` is one text, as for a vehicle, and not a list.
  bool one_attribute = false;
  // For each score of an attribute model, 1 where it is above its threshold, else 0.
  std::optional<std::vector<int>> output;

  // The prediction of an image that could not be classified.
  static Prediction failed(std::string name, std::string reason, bool of_attributes = false);
};

}  // namespace hgdeploy
