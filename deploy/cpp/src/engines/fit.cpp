// SPDX-License-Identifier: Apache-2.0
#include "engines/fit.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "errors.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

namespace fs = std::filesystem;

constexpr const char* hint =
    "expected one row of scores for each image: (images, classes), or with further axes of size 1; "
    "a "
    "squeeze in the model needs its axes named, so that it keeps the batch";
const std::set<std::string> floats{"float16", "float32", "float64", "bfloat16"};
const std::map<long, const char*> channel_hints{
    {3, "leave NormalizeImage.channel_num at 3"},
    {4, "set NormalizeImage.channel_num to 4, which appends zeros, if it was trained so"}};
const std::map<std::string, const char*> dtype_hints{
    {"float32", "correct NormalizeImage (it makes float32, or float16 with output_fp16)"},
    {"float16", "set NormalizeImage.output_fp16 to true"},
    {"uint8", "leave NormalizeImage out, if the model normalises images itself"}};

template <typename Key>
std::string hint_for(const std::map<Key, const char*>& hints, const Key& key, const char* other) {
  const auto found = hints.find(key);
  return found == hints.end() ? other : found->second;
}

// How many channels an image may have: gray, colour, colour and one more.
bool is_channels(long size) { return size == 1 || size == 3 || size == 4; }

// Only the last axis can be the channels.
bool channels_last(const Shape& shape) { return is_channels(shape[3]) && !is_channels(shape[1]); }

std::string gives(const Shape& shape, const std::string& name) {
  return "gives " + name + " of shape " + shown(shape);
}

}  // namespace

TensorSpec image_input(const std::vector<TensorSpec>& inputs, const fs::path& source) {
  if (inputs.size() == 1 && inputs[0].shape.size() == 4) return inputs[0];
  std::vector<std::string> found;
  for (const TensorSpec& spec : inputs) found.push_back(spec.name + " " + shown(spec.shape));
  throw BundleError(source.string() + " is not an image classifier: expected one NCHW input, got " +
                    join(found, ", "));
}

long class_count(const Shape& shape) {
  if (shape.size() < 2) return -2;
  Shape sizes, known;
  std::copy_if(shape.begin() + 1, shape.end(), std::back_inserter(sizes),
               [](long s) { return s != 1; });
  std::copy_if(sizes.begin(), sizes.end(), std::back_inserter(known),
               [](long s) { return s != -1; });
  if (known.size() > 1) return -2;
  // An axis of any size beside one of known size is taken to be 1, which each answer must show.
  if (!known.empty()) return known[0];
  return sizes.empty() ? 1 : -1;
}

TensorSpec score_output(const std::vector<TensorSpec>& outputs, const fs::path& source,
                        const std::string& name) {
  std::vector<std::string> listed;
  std::vector<TensorSpec> found;
  for (const TensorSpec& spec : outputs) {
    listed.push_back(spec.name + " " + spec.dtype + " " + shown(spec.shape));
    if (name.empty() || spec.name == name) found.push_back(spec);
  }
  if (found.empty())
    throw BundleError(source.string() + " has no output " + repr(name) + "; it has " +
                      join(listed, "; "));
  if (found.size() > 1)
    throw BundleError(
        source.string() + " has " + std::to_string(found.size()) +
        " outputs, and nothing says which has the scores; write its name as output_name "
        "under Global in inference.yml: " +
        join(listed, "; "));
  if (floats.count(found[0].dtype) == 0)
    throw BundleError(source.string() + " gives " + found[0].dtype + " values (" + found[0].name +
                      "), not scores; export it without the argmax or topk at its end");
  if (class_count(found[0].shape) == -2)
    throw BundleError(source.string() + " " + gives(found[0].shape, found[0].name) + "; " + hint);
  return found[0];
}

void check_feed(const TensorSpec& spec, const fs::path& source, const Preprocessor& preprocessor) {
  const bool last = channels_last(spec.shape);
  if (last == preprocessor.channels_first())
    throw BundleError(
        source.string() + " takes " + shown(spec.shape) +
        (last ? " (NHWC, channels last)" : " (NCHW, channels first)") +
        ", but the preprocessing ends with the channels " +
        (last ? "first; remove ToCHWImage" : "last; put ToCHWImage at the end of transform_ops"));
  const Shape& axes = spec.shape;
  const long channels = axes[last ? 3 : 1], height = axes[last ? 1 : 2], width = axes[last ? 2 : 3];
  if (channels != -1 && channels != preprocessor.channels())
    throw BundleError(
        source.string() + " takes images of " + std::to_string(channels) + " channel" +
        (channels > 1 ? "s" : "") + ", but the preprocessing makes " +
        std::to_string(preprocessor.channels()) + "; " +
        hint_for(channel_hints, channels,
                 "export the model for colour images, which is what images are read as"));
  if (const auto made = preprocessor.output_shape()) {
    const bool first = preprocessor.channels_first();
    const long made_height = (*made)[first ? 1 : 0], made_width = (*made)[first ? 2 : 1];
    if ((height != -1 && height != made_height) || (width != -1 && width != made_width))
      throw BundleError(
          source.string() + " takes images of " + std::to_string(width) + "x" +
          std::to_string(height) + ", but the preprocessing makes " + std::to_string(made_width) +
          "x" + std::to_string(made_height) +
          " (width x height); correct ResizeImage or CropImage, or use an ONNX file of "
          "any size (hgdeploy convert --dynamic-size)");
  }
  if (spec.dtype != name_of(preprocessor.dtype()))
    throw BundleError(
        source.string() + " takes " + spec.dtype + ", but the preprocessing makes " +
        name_of(preprocessor.dtype()) + "; " +
        hint_for(dtype_hints, spec.dtype, "export the model with an input of float32"));
}

void check_image(const TensorSpec& spec, const std::array<long, 3>& made) {
  for (std::size_t i = 0; i < made.size(); ++i)
    if (spec.shape[i + 1] != -1 && spec.shape[i + 1] != made[i])
      throw ImageError("the preprocessing makes " + shown({made.begin(), made.end()}) +
                       " of it, but the model takes " +
                       shown({spec.shape.begin() + 1, spec.shape.end()}) +
                       "; add ResizeImage with a size, or CropImage");
}

int batch_that_fits(const TensorSpec& spec, const fs::path& source, int batch_size,
                    const std::function<void(const std::string&)>& on_warning) {
  const long fixed = spec.shape[0];
  if (fixed == -1 || fixed == batch_size) return batch_size;
  on_warning(source.string() + " has a fixed batch: " + std::to_string(fixed) + " image" +
             (fixed > 1 ? "s" : "") + " at a time are run, not " + std::to_string(batch_size) +
             "; export the model with a dynamic batch for another");
  return static_cast<int>(fixed);
}

Scores infer_rows(Engine& engine, std::vector<std::uint8_t>& rows, long count,
                  const std::array<long, 3>& shape) {
  const TensorSpec &given = engine.input(), &declared = engine.output();
  const long images = std::max(given.shape[0], count);
  const std::size_t bytes = rows.size() / static_cast<std::size_t>(count);
  rows.resize(bytes * static_cast<std::size_t>(images), 0);
  Scores scores = engine.infer(rows.data(), {images, shape[0], shape[1], shape[2]});
  const long wanted = class_count(declared.shape), found = class_count(scores.shape);
  long each = 1;
  for (std::size_t i = 1; i < scores.shape.size(); ++i) each *= scores.shape[i];
  const bool fits = !scores.shape.empty() && scores.shape[0] == images && found == each;
  // An answer for as many images as there are classes would fit by chance.
  const bool swapped = given.shape[0] == -1 && declared.shape[0] > 1 && wanted == -1;
  if (swapped || !fits || (wanted >= 0 && wanted != found))
    throw BundleError("the model " + gives(scores.shape, declared.name) + " for " +
                      std::to_string(images) + " images, and declares " + shown(declared.shape) +
                      "; " + hint);
  scores.values.resize(static_cast<std::size_t>(count * found));
  scores.shape = {count, found};
  return scores;
}

}  // namespace hgdeploy
