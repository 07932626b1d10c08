// SPDX-License-Identifier: Apache-2.0
#include "transforms/postprocess.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>
#include <utility>

#include "errors.hpp"
#include "transforms/attributes.hpp"

namespace hgdeploy {
namespace {

// PaddleClas rounds Top-k and multi-label scores to five decimals before it prints them.
constexpr double five_decimals = 1e5;

// NumPy's float32 scores are compared with float32 thresholds.
struct Row {
  const float* scores;
  std::size_t count;
};

template <class Kind>
constexpr bool is_attributes =
    std::is_same_v<Kind, PersonAttribute> || std::is_same_v<Kind, FaceAttribute> ||
    std::is_same_v<Kind, VehicleAttribute> || std::is_same_v<Kind, TableAttribute>;

void add_label(Prediction& prediction, const Label& label) {
  prediction.label_names.push_back(label.text);
  prediction.bare_names.push_back(label.bare);
}

void add_label(Prediction& prediction, const std::optional<Labels>& labels, std::size_t id) {
  if (!labels) {
    return;
  }
  const auto found = labels->find(static_cast<long long>(id));
  add_label(prediction, found == labels->end() ? Label{} : found->second);
}

// Whether a class comes before another: by score, and of equal scores the higher class; NumPy sorts
// not-a-number above all.
class Better {
 public:
  explicit Better(const float* scores) : scores_(scores) {}

  bool operator()(std::size_t a, std::size_t b) const {
    const bool a_is_none = std::isnan(scores_[a]);
    const bool b_is_none = std::isnan(scores_[b]);
    if (a_is_none != b_is_none) {
      return a_is_none;
    }
    return a_is_none || scores_[a] == scores_[b] ? a > b : scores_[a] > scores_[b];
  }

 private:
  const float* scores_;
};

std::vector<std::size_t> best_classes(const Row& row, std::size_t most) {
  std::vector<std::size_t> order(row.count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto end = order.begin() + static_cast<std::ptrdiff_t>(std::min(most, row.count));
  std::partial_sort(order.begin(), end, order.end(), Better(row.scores));
  order.erase(end, order.end());
  return order;
}

Prediction listed(const std::vector<std::size_t>& ids, const Row& row,
                  const std::optional<Labels>& labels) {
  Prediction prediction;
  prediction.class_ids.emplace();
  for (const std::size_t id : ids) {
    prediction.class_ids->push_back(static_cast<int>(id));
    const double score = row.scores[id];
    prediction.scores.push_back(std::nearbyint(score * five_decimals) / five_decimals);
    add_label(prediction, labels, id);
  }
  return prediction;
}

Prediction single(std::size_t id, float score) {
  Prediction prediction;
  prediction.class_ids = {static_cast<int>(id)};
  prediction.scores = {static_cast<double>(score)};
  return prediction;
}

Prediction predict(const Topk& output, const Row& row) {
  return listed(best_classes(row, static_cast<std::size_t>(output.topk)), row, output.labels);
}

Prediction predict(const ThreshOutput& output, const Row& row) {
  const auto threshold = static_cast<float>(output.threshold);
  if (row.count == 2) {
    const float second = row.scores[1];
    const bool first = second < threshold;
    Prediction prediction = first ? single(0, 1 - second) : single(1, second);
    add_label(prediction, first ? output.label_0 : output.label_1);
    return prediction;
  }
  const std::size_t best = best_classes(row, 1).at(0);
  const auto usual = static_cast<std::size_t>(output.default_label_index);
  const std::size_t chosen = row.scores[best] > threshold ? best : usual;
  if (chosen >= row.count) {
    throw BundleError("ThreshOutput.default_label_index is " + std::to_string(usual) +
                      ", but the model gives " + std::to_string(row.count) + " scores");
  }
  Prediction prediction = single(chosen, row.scores[chosen]);
  if (output.labels) {
    add_label(prediction, output.labels, chosen);
  } else {
    add_label(prediction, Label{});
  }
  return prediction;
}

Prediction predict(const MultiLabelThreshOutput& output, const Row& row) {
  const auto threshold = static_cast<float>(output.threshold);
  std::vector<std::size_t> ids;
  for (std::size_t id = 0; id < row.count; ++id) {
    if (row.scores[id] >= threshold) {
      ids.push_back(id);
    }
  }
  return listed(ids, row, output.labels);
}

Prediction predict(const ScoreOutput& output, const Row& row) {
  Prediction prediction;
  const auto factor = static_cast<float>(std::pow(10.0, output.decimal_places));
  for (std::size_t i = 0; i < row.count; ++i) {
    // In float32, as NumPy rounds.
    const float score = row.scores[i];
    const float rounded = output.decimal_places == 0 ? std::nearbyint(score)
                                                     : std::nearbyint(score * factor) / factor;
    prediction.scores.push_back(static_cast<double>(rounded));
  }
  return prediction;
}

template <class Kind, class = std::enable_if_t<is_attributes<Kind>>>
Prediction predict(const Kind& output, const Row& row) {
  if (row.count != Kind::classes) {
    throw BundleError("the model gives " + std::to_string(row.count) +
                      " scores for an image, but " + Kind::name + " is for " +
                      std::to_string(Kind::classes) +
                      "; give the PostProcess that belongs to the model");
  }
  Prediction prediction;
  prediction.scores.assign(row.scores, row.scores + row.count);
  prediction.attributes = attributes(output, prediction.scores);
  prediction.one_attribute = std::is_same_v<Kind, VehicleAttribute>;
  const Scores least = limits(output);
  prediction.output.emplace();
  for (std::size_t i = 0; i < row.count; ++i) {
    prediction.output->push_back(prediction.scores[i] > least[i] ? 1 : 0);
  }
  return prediction;
}

// The labels of an output that has some; else nothing.
template <class Kind, class = decltype(Kind::labels)>
std::optional<Labels>* labels_of(Kind& output) {
  return &output.labels;
}
std::optional<Labels>* labels_of(ScoreOutput&) { return nullptr; }
template <class Kind, class = std::enable_if_t<is_attributes<Kind>>, class = void>
std::optional<Labels>* labels_of(Kind&) {
  return nullptr;
}

void check_labels(const Labels& labels, long classes, const std::string& model) {
  const long long last = labels.empty() ? -1 : labels.rbegin()->first;
  const long long first = labels.empty() ? 0 : labels.begin()->first;
  if (static_cast<long>(labels.size()) == classes && first == 0 && last == classes - 1) {
    return;
  }
  throw BundleError(model + " has " + std::to_string(classes) +
                    " classes, but the label list has " + std::to_string(labels.size()) + " (ids " +
                    std::to_string(first) + " to " + std::to_string(last) +
                    "); give the model's own class_id_map_file, or null for no names");
}

}  // namespace

bool Postprocess::of_attributes() const {
  return std::visit([](const auto& each) { return is_attributes<std::decay_t<decltype(each)>>; },
                    output_);
}

bool Postprocess::probabilities() const {
  return std::holds_alternative<Topk>(output_) || std::holds_alternative<ThreshOutput>(output_);
}

const std::optional<Labels>& Postprocess::labels() const {
  static const std::optional<Labels> none;
  auto& output = const_cast<Output&>(output_);  // only to find them
  const auto* found = std::visit([](auto& each) { return labels_of(each); }, output);
  return found == nullptr ? none : *found;
}

const char* Postprocess::name() const {
  return std::visit([](const auto& each) { return each.name; }, output_);
}

std::vector<std::string> Postprocess::notes() const {
  if (const auto* person = std::get_if<PersonAttribute>(&output_)) {
    return notes_of(*person);
  }
  const auto* table = std::get_if<TableAttribute>(&output_);
  return table == nullptr ? std::vector<std::string>{} : notes_of(*table);
}

Postprocess Postprocess::with_topk(long topk) const {
  if (!std::holds_alternative<Topk>(output_)) {
    throw ConfigError(std::string("topk does not apply: this model's output is ") + name());
  }
  if (topk < 1) {
    throw ConfigError("topk is " + std::to_string(topk) + ", expected a whole number from 1");
  }
  Postprocess result = *this;
  std::get<Topk>(result.output_).topk = topk;
  return result;
}

Postprocess Postprocess::with_labels(Labels labels) const {
  Postprocess result = *this;
  if (auto* place = std::visit([](auto& each) { return labels_of(each); }, result.output_)) {
    *place = std::move(labels);
  }
  return result;
}

void Postprocess::check_classes(long classes, const std::string& model) const {
  if (classes == -1) {
    return;
  }
  const auto expected = std::visit(
      [](const auto& each) {
        using Kind = std::decay_t<decltype(each)>;
        if constexpr (is_attributes<Kind>) {
          return static_cast<long>(Kind::classes);
        } else {
          return -1L;
        }
      },
      output_);
  if (expected != -1 && expected != classes) {
    throw BundleError(model + " has " + std::to_string(classes) + " classes, but " + name() +
                      " is for " + std::to_string(expected) +
                      "; give the PostProcess that belongs to the model");
  }
  if (labels()) {
    check_labels(*labels(), classes, model);
  }
  const auto* thresh = std::get_if<ThreshOutput>(&output_);
  if (thresh != nullptr && thresh->default_label_index >= classes) {
    throw BundleError(model + " has " + std::to_string(classes) +
                      " classes, but ThreshOutput.default_label_index is " +
                      std::to_string(thresh->default_label_index));
  }
}

Prediction Postprocess::operator()(const std::string& name, const float* scores,
                                   std::size_t count) const {
  const Row row{scores, count};
  Prediction prediction =
      std::visit([&](const auto& output) { return predict(output, row); }, output_);
  prediction.name = name;
  return prediction;
}

}  // namespace hgdeploy
