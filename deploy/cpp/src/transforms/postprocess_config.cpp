// SPDX-License-Identifier: Apache-2.0
// Postprocessing from the `PostProcess` section of a config:
// deploy/python/hgdeploy/transforms/postprocess_config.py.
#include <algorithm>
#include <limits>

#include <yaml-cpp/yaml.h>

#include "system/checks.hpp"
#include "system/text.hpp"
#include "transforms/postprocess.hpp"

namespace hgdeploy {
namespace {

using Kind = Value::Kind;
using Names = std::vector<std::string>;

constexpr std::int64_t most_decimals = 15;  // of a float64
// PaddleClas's request, beside an output, to sort copies of the images into folders by class.
constexpr const char* save = "SavePreLabel";

const Names& outputs() {
  static const Names names{Topk::name,
                           ThreshOutput::name,
                           MultiLabelThreshOutput::name,
                           ScoreOutput::name,
                           PersonAttribute::name,
                           FaceAttribute::name,
                           VehicleAttribute::name,
                           TableAttribute::name};
  return names;
}

// An output's own parameters.
Names parameters(const std::string& output) {
  if (output == Topk::name) {
    return {"topk"};
  }
  if (output == ThreshOutput::name) {
    return {"threshold", "default_label_index", "label_0", "label_1"};
  }
  if (output == MultiLabelThreshOutput::name) {
    return {"threshold"};
  }
  if (output == ScoreOutput::name) {
    return {"decimal_places"};
  }
  if (output == PersonAttribute::name) {
    return {"threshold", "glasses_threshold", "hold_threshold"};
  }
  if (output == FaceAttribute::name) {
    return {"threshold", "convert_cn"};
  }
  if (output == VehicleAttribute::name) {
    return {"color_threshold", "type_threshold"};
  }
  return {"source_threshold",  "number_threshold",      "color_threshold",
          "clarity_threshold", "obstruction_threshold", "angle_threshold"};
}

bool is_null(const Given& given, const Names& also = {}) {
  const Value& value = given.value;
  if (value.is(Kind::null) || value.is(Kind::missing)) {
    return true;
  }
  return value.is(Kind::text) &&
         (value.text == "None" || std::find(also.begin(), also.end(), value.text) != also.end());
}

// How null is written: a value after `-o` is no YAML, and labels are texts as they are written.
const Names& nulls() {
  static const Names words{"null", "Null", "NULL", "~", ""};
  return words;
}

Label label(const Given& given) {
  const Value& value = given.value;
  if (value.is(Kind::boolean) || value.is_number()) {
    return {str(value), true};
  }
  if (!value.is(Kind::text)) {
    throw given.refused("a text; put it in quotes");
  }
  return {value.text, value.bare};
}

double threshold(const Given& given) {
  return number(given.as_literal(), -std::numeric_limits<double>::infinity(), false);
}

long whole_literal(const Given& given, std::int64_t least,
                   std::int64_t most = std::numeric_limits<std::int64_t>::max()) {
  return whole(given.as_literal().rounded(), least, most);
}

std::string label_delimiter(const Given& given) { return is_null(given) ? " " : text(given); }

// The labels that a section speaks of.
struct Spoken {
  bool given = false;
  std::optional<Labels> labels;
};

Spoken read_spoken_labels(const Given& given, const Postprocess::Resolve& resolve) {
  Spoken spoken;
  std::optional<std::string> file;
  std::string delimiter = " ";
  for (const auto& [key, value] : given.value.entries) {
    const Given inner = given.at(key.text);
    if (key.text == "delimiter") {
      delimiter = label_delimiter(inner);
    } else if (key.text == "class_id_map_file") {
      spoken.given = true;
      if (!is_null(inner, nulls())) {
        file = text(inner);
      }
    } else if (key.text == "label_list") {
      spoken.given = true;
      if (is_null(inner, nulls())) {
        continue;
      }
      if (!value.is(Kind::list) || value.items.empty()) {
        throw inner.refused("a list of names");
      }
      spoken.labels.emplace();
      for (std::size_t i = 0; i < value.items.size(); ++i) {
        spoken.labels->emplace(static_cast<long long>(i), label(inner.item(i)));
      }
    }
  }
  if (!spoken.labels && file) {
    const std::string path = resolve ? resolve(given.where + ".class_id_map_file", *file) : *file;
    spoken.labels = read_labels(path, delimiter);
  }
  return spoken;
}

// Reads a value where its key is there.
template <class Value, class Read>
void take(const Given& given, const char* key, Value& value, const Read& read) {
  const Given inner = given.at(key);
  if (!inner.value.is(Kind::missing)) {
    value = read(inner);
  }
}

Output read_parameters(const std::string& name, const Given& given) {
  const auto from_one = [](const Given& each) { return whole_literal(each, 1); };
  const auto from_zero = [](const Given& each) { return whole_literal(each, 0); };
  if (name == Topk::name) {
    Topk output;
    take(given, "topk", output.topk, from_one);
    return output;
  }
  if (name == ThreshOutput::name) {
    ThreshOutput output;
    take(given, "threshold", output.threshold, threshold);
    take(given, "default_label_index", output.default_label_index, from_zero);
    take(given, "label_0", output.label_0, label);
    take(given, "label_1", output.label_1, label);
    return output;
  }
  if (name == MultiLabelThreshOutput::name) {
    MultiLabelThreshOutput output;
    take(given, "threshold", output.threshold, threshold);
    return output;
  }
  if (name == ScoreOutput::name) {  // it has no default
    return ScoreOutput{
        static_cast<int>(whole_literal(given.at("decimal_places"), 0, most_decimals))};
  }
  if (name == PersonAttribute::name) {
    PersonAttribute output;
    take(given, "threshold", output.threshold, threshold);
    take(given, "glasses_threshold", output.glasses_threshold, threshold);
    take(given, "hold_threshold", output.hold_threshold, threshold);
    return output;
  }
  if (name == FaceAttribute::name) {
    FaceAttribute output;
    take(given, "threshold", output.threshold, threshold);
    take(given, "convert_cn", output.convert_cn, as_switch);
    return output;
  }
  if (name == VehicleAttribute::name) {
    VehicleAttribute output;
    take(given, "color_threshold", output.color_threshold, threshold);
    take(given, "type_threshold", output.type_threshold, threshold);
    return output;
  }
  TableAttribute output;
  take(given, "source_threshold", output.source_threshold, threshold);
  take(given, "number_threshold", output.number_threshold, threshold);
  take(given, "color_threshold", output.color_threshold, threshold);
  take(given, "clarity_threshold", output.clarity_threshold, threshold);
  take(given, "obstruction_threshold", output.obstruction_threshold, threshold);
  take(given, "angle_threshold", output.angle_threshold, threshold);
  return output;
}

Postprocess read_output(const std::string& name, const Given& section,
                        const Postprocess::Resolve& resolve) {
  const Given given = section.or_empty();
  const bool labelled =
      name == Topk::name || name == ThreshOutput::name || name == MultiLabelThreshOutput::name;
  Names known = parameters(name);
  if (labelled) {
    known.insert(known.end(), {"class_id_map_file", "label_list", "delimiter"});
  }
  check_keys(given, known);
  const Output output = read_parameters(name, given);
  if (!labelled) {
    return Postprocess(output, false);
  }
  Spoken spoken = read_spoken_labels(given, resolve);
  const Postprocess alone(output, spoken.given);
  return spoken.labels ? alone.with_labels(std::move(*spoken.labels)) : alone;
}

Value without(Value mapping, const char* key) {
  auto& entries = mapping.entries;
  entries.erase(std::remove_if(entries.begin(), entries.end(),
                               [&](const auto& entry) {
                                 return entry.first.is(Kind::text) && entry.first.text == key;
                               }),
                entries.end());
  return mapping;
}

// The functions of a section by name, in both of PaddleClas's forms.
Value functions_of(const Given& section) {
  const Given named = section.at("name");
  if (named.value.is(Kind::missing)) {
    return section.value;
  }
  Value functions;
  functions.kind = Kind::mapping;
  functions.entries.emplace_back(Value::of(text(named)), without(section.value, "name"));
  return functions;
}

std::optional<std::string> main_of(const Given& functions) {
  Given given = functions.at("main_indicator");
  if (is_null(given)) {
    return std::nullopt;
  }
  if (given.value.is(Kind::list) && given.value.items.size() == 1) {
    given.value = Value(given.value.items.front());
  }
  return text(given);
}

void check_served(const Given& functions) {
  static const Names unserved{"MultiLabelTopk", "Binarize", "MultiTaskTopk"};
  for (const auto& [key, value] : functions.value.entries) {
    if (key.is(Kind::text) &&
        std::find(unserved.begin(), unserved.end(), key.text) != unserved.end()) {
      throw ConfigError(functions.where + "." + key.text + " cannot be served; HGDeploy has " +
                        join(outputs(), ", ") + ", " + save);
    }
  }
  Names known = outputs();
  known.emplace_back(save);
  check_keys(functions, known);
}

}  // namespace

Postprocess Postprocess::from_config(const YAML::Node& section, const std::string& where,
                                     const Resolve& resolve) {
  const Given given{where, value_of(section, label_keys()), "", ""};
  check_mapping(given);
  if (given.value.entries.empty()) {
    throw given.refused("an output, such as Topk: {topk: 5}");
  }
  Given functions{where, functions_of(given), "", ""};
  std::optional<std::string> main = main_of(functions);
  functions.value = without(functions.value, "main_indicator");
  check_served(functions);
  functions.value = without(functions.value, save);
  Names names;
  for (const auto& entry : functions.value.entries) {
    names.push_back(entry.first.text);
  }
  if (!main && names.size() == 1) {
    main = names.front();
  }
  if (!main || std::find(names.begin(), names.end(), *main) == names.end()) {
    throw ConfigError(where + ".main_indicator is " + (main ? repr(*main) : "None") +
                      ", expected one of: " + join(names, ", "));
  }
  return read_output(*main, functions.at(*main), resolve);
}

}  // namespace hgdeploy
