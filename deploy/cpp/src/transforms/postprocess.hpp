// SPDX-License-Identifier: Apache-2.0
// PaddleClas's postprocessing: from a row of scores to classes and labels, as
// deploy/python/hgdeploy/transforms/postprocess.py and attributes.py.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "transforms/prediction.hpp"

namespace YAML {
class Node;
}

namespace hgdeploy {

// The name of a class; `bare` where YAML made a number or a switch of it, which Python prints
// without quotes.
struct Label {
  std::string text;
  bool bare = false;
};
using Labels = std::map<long long, Label>;

// The `topk` best classes; of equal scores the higher class is first.
struct Topk {
  static constexpr const char* name = "Topk";
  long topk = 1;
  std::optional<Labels> labels;
};

// The best class if its score passes a threshold, else a default one.
struct ThreshOutput {
  static constexpr const char* name = "ThreshOutput";
  double threshold = 0.0;
  long default_label_index = 0;
  Label label_0{"0"};
  Label label_1{"1"};
  std::optional<Labels> labels;
};

// Every class whose score reaches a threshold, in order of class id.
struct MultiLabelThreshOutput {
  static constexpr const char* name = "MultiLabelThreshOutput";
  double threshold = 0.5;
  std::optional<Labels> labels;
};

// The model's output itself, rounded.
struct ScoreOutput {
  static constexpr const char* name = "ScoreOutput";
  int decimal_places = 0;
};

struct PersonAttribute {
  static constexpr const char* name = "PersonAttribute";
  static constexpr std::size_t classes = 26;
  double threshold = 0.5;
  double glasses_threshold = 0.3;
  double hold_threshold = 0.6;
};

struct FaceAttribute {
  static constexpr const char* name = "FaceAttribute";
  static constexpr std::size_t classes = 40;
  double threshold = 0.65;
  bool convert_cn = false;
};

struct VehicleAttribute {
  static constexpr const char* name = "VehicleAttribute";
  static constexpr std::size_t classes = 19;
  double color_threshold = 0.5;
  double type_threshold = 0.5;
};

struct TableAttribute {
  static constexpr const char* name = "TableAttribute";
  static constexpr std::size_t classes = 6;
  double source_threshold = 0.5;
  double number_threshold = 0.5;
  double color_threshold = 0.5;
  double clarity_threshold = 0.5;
  double obstruction_threshold = 0.5;
  double angle_threshold = 0.5;
};

using Output = std::variant<Topk, ThreshOutput, MultiLabelThreshOutput, ScoreOutput,
                            PersonAttribute, FaceAttribute, VehicleAttribute, TableAttribute>;

// What is made of a row of scores; safe to call from many threads at once.
class Postprocess {
 public:
  explicit Postprocess(Output output = Topk{5, std::nullopt}, bool labels_given = true)
      : output_(std::move(output)), labels_given_(labels_given) {}

  // Turns a key's name and a path in it into the path to open.
  using Resolve = std::function<std::string(const std::string& key, const std::string& path)>;

  // Reads PaddleClas's `PostProcess` section. Throws ConfigError: a name or value is wrong, or a
  // label file cannot be read.
  static Postprocess from_config(const YAML::Node& section,
                                 const std::string& where = "PostProcess",
                                 const Resolve& resolve = {});

  const Output& output() const { return output_; }
  // Whether the section spoke of labels itself.
  bool labels_given() const { return labels_given_; }
  bool of_attributes() const;
  // Whether scores have to be probabilities.
  bool probabilities() const;
  const std::optional<Labels>& labels() const;
  // The name of the output as configs write it.
  const char* name() const;
  // What a user should know about its thresholds, one line each.
  std::vector<std::string> notes() const;

  // The same with another Top-k. Throws ConfigError: the output is no Top-k, or `topk` is below 1.
  Postprocess with_topk(long topk) const;
  // The same with names for the classes; an output without classes stays as it is.
  Postprocess with_labels(Labels labels) const;
  // Throws BundleError where the labels are not one for each of the model's classes; -1 where the
  // model does not say how many it has. `model` names its file.
  void check_classes(long classes, const std::string& model) const;

  // Turns one row of scores into a prediction. Throws BundleError: the model of an attribute output
  // has another number of scores.
  Prediction operator()(const std::string& name, const float* scores, std::size_t count) const;

 private:
  Output output_;
  bool labels_given_;
};

// Reads a label file in PaddleClas's format: one `ID NAME` a line. Throws ConfigError.
Labels read_labels(const std::string& path, const std::string& delimiter = " ");

}  // namespace hgdeploy
