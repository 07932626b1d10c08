// SPDX-License-Identifier: Apache-2.0
#include "classify/classifier.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "classify/impl.hpp"
#include "engines/fit.hpp"
#include "system/machine.hpp"

namespace hgdeploy {
namespace {

// Reduced decoding keeps at least this many times the size that the image is resized to.
constexpr int fast_margin = 2;
constexpr int most_batch = 65536, most_threads = 1024;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void check_range(const char* what, int value, int least, int most) {
  if (value < least || value > most)
    throw ConfigError(std::string(what) + " is " + std::to_string(value) +
                      ", expected a whole number from " + std::to_string(least) + " to " +
                      std::to_string(most));
}

const Settings& checked(const Settings& settings) {
  check_range("the batch size", settings.batch_size, 1, most_batch);
  check_range("threads", settings.threads, 0, most_threads);
  check_range("streams", settings.streams, 1, most_threads);
  return settings;
}

// The least short side, in pixels, to decode a JPEG at; 0 for its full size.
int fast_size(const std::vector<Op>& ops) {
  for (const Op& op : ops)
    if (const auto* resize = std::get_if<ResizeImage>(&op)) {
      const double longest =
          resize->size ? static_cast<double>(std::max(resize->size->width, resize->size->height))
                       : 0;
      return fast_margin * static_cast<int>(std::ceil(resize->resize_short.value_or(longest)));
    }
  return 0;
}

Postprocess chosen_postprocess(const ModelBundle& bundle, const Settings& settings) {
  const Postprocess chosen = bundle.postprocess.value_or(Postprocess(Topk{5, std::nullopt}, false));
  return settings.topk ? chosen.with_topk(*settings.topk) : chosen;
}

EngineOptions options_of(const Settings& settings) {
  EngineOptions options;
  options.device = settings.device;
  options.precision = settings.precision;
  options.threads = settings.threads ? settings.threads : available_cpus();
  options.streams = settings.streams;
  options.cache_dir = settings.cache_dir;
  return options;
}

}  // namespace

// A place in a batch: a prediction that is ready, or a row of scores to come.
struct Classifier::Impl::Row {
  std::optional<Prediction> failed;
  std::vector<float> scores;
};

Classifier::Impl::Impl(const std::string& folder, const Settings& given)
    : settings(checked(given)),
      bundle(open_bundle(folder)),
      preprocessor(bundle.preprocess),
      postprocess(chosen_postprocess(bundle, settings)) {
  const auto on_warning = [this](const std::string& line) { warn(line); };
  for (const std::string& note : bundle.notes) warn(note);
  for (const std::string& note : postprocess.notes()) warn(note);
  if (settings.fast_decode) decoding.shrink_to = fast_size(bundle.preprocess);
  const EngineKind& kind = chosen_engine(settings.engine, bundle, settings.precision);
  const EngineOptions options = options_of(settings);
  cpus = options.threads * options.streams;
  run = open_run(bundle, kind, options, preprocessor, on_warning);
  batch_size = batch_that_fits(run.engine->input(), run.source, settings.batch_size, on_warning);
  postprocess.check_classes(std::max(class_count(run.engine->output().shape), -1L),
                            run.source.string());
  scores_.emplace(run.source, postprocess, settings.softmax, on_warning);
}

void Classifier::Impl::warn(const std::string& line) {
  const std::lock_guard lock(lock_);
  warnings_.push_back(line);
}

std::vector<std::string> Classifier::Impl::warnings() const {
  const std::lock_guard lock(lock_);
  return warnings_;
}

StageTimes Classifier::Impl::times() const {
  const std::lock_guard lock(lock_);
  return times_;
}

Image Classifier::Impl::of_file(const ImageFile& file) const {
  return {file.name, [this, place = file.place] { return read_image(place, decoding); }};
}

Prediction Classifier::Impl::answer(Image image) { return answers({std::move(image)}).front(); }

std::vector<Prediction> Classifier::Impl::answers(const std::vector<Image>& images) {
  StageTimes times;
  std::vector<Row> rows(images.size());
  std::vector<Tensor> tensors(images.size());
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < images.size(); ++i) {
    const auto start = Clock::now();
    try {
      const cv::Mat pixels = images[i].pixels();
      times.seconds[0] += seconds_since(start);
      const auto decoded = Clock::now();
      tensors[i] = preprocessor(pixels);
      times.seconds[1] += seconds_since(decoded);
      check_image(run.engine->input(), tensors[i].shape);
      places.push_back(i);
    } catch (const ImageError& error) {
      rows[i].failed =
          Prediction::failed(images[i].name, error.what(), postprocess.of_attributes());
    }
    times.slowest.emplace_back(seconds_since(start), images[i].name);
  }
  const auto read = Clock::now();
  // Tensors of different shapes (no crop, and a model of any size) need separate inferences.
  for (std::size_t first = 0; first < places.size();) {
    std::size_t last = first;
    std::vector<std::size_t> group;
    std::vector<std::uint8_t> bytes;
    const std::array<long, 3> shape = tensors[places[first]].shape;
    for (; last < places.size() && tensors[places[last]].shape == shape; ++last) {
      group.push_back(places[last]);
      std::vector<std::uint8_t>& own = tensors[places[last]].bytes;
      if (bytes.empty())
        bytes = std::move(own);
      else
        bytes.insert(bytes.end(), own.begin(), own.end());
    }
    infer(group, shape, bytes, rows);
    first = last;
  }
  times.seconds[2] = seconds_since(read);
  const auto inferred = Clock::now();
  std::vector<Prediction> predictions;
  for (std::size_t i = 0; i < images.size(); ++i) {
    Row& row = rows[i];
    const bool finite = std::all_of(row.scores.begin(), row.scores.end(),
                                    [](float score) { return std::isfinite(score); });
    if (!row.failed && !finite)
      row.failed =
          Prediction::failed(images[i].name, "the model's output is not finite (NaN or infinity)",
                             postprocess.of_attributes());
    if (row.failed) {
      predictions.push_back(std::move(*row.failed));
      continue;
    }
    {
      const std::lock_guard lock(lock_);
      if (const auto wrong = (*scores_)(row.scores.data(), row.scores.size()))
        warnings_.push_back(*wrong);
    }
    predictions.push_back(postprocess(images[i].name, row.scores.data(), row.scores.size()));
  }
  times.seconds[3] = seconds_since(inferred);
  const std::lock_guard lock(lock_);
  times_.add(times);
  return predictions;
}

void Classifier::Impl::infer(const std::vector<std::size_t>& places,
                             const std::array<long, 3>& shape, std::vector<std::uint8_t>& bytes,
                             std::vector<Row>& rows) {
  const Scores scores = infer_rows(*run.engine, bytes, static_cast<long>(places.size()), shape);
  const long classes = scores.shape[1];
  for (std::size_t i = 0; i < places.size(); ++i) {
    const auto start = scores.values.begin() + static_cast<long>(i) * classes;
    rows[places[i]].scores.assign(start, start + classes);
  }
}

Classifier::Classifier(const std::string& bundle, const Settings& settings)
    : impl_(std::make_unique<Impl>(bundle, settings)) {}
Classifier::Classifier(Classifier&&) noexcept = default;
Classifier& Classifier::operator=(Classifier&&) noexcept = default;
Classifier::~Classifier() = default;

Prediction Classifier::predict(const std::string& path) const {
  return impl_->answer(impl_->of_file({path, std::filesystem::path(path).filename().string()}));
}

Prediction Classifier::predict(const std::vector<std::uint8_t>& file) const {
  return predict(file.data(), file.size());
}

Prediction Classifier::predict(const std::uint8_t* data, std::size_t size,
                               const std::string& name) const {
  return impl_->answer({name, [&] { return decode(data, size, name, impl_->decoding); }});
}

Prediction Classifier::predict(const cv::Mat& bgr) const {
  return impl_->answer({"<array 0>", [&] { return bgr; }});
}

std::vector<std::string> Classifier::warnings() const { return impl_->warnings(); }

std::string Classifier::runtime() const {
  const RuntimeInfo& ran = impl_->run.engine->runtime();
  return ran.engine + " " + ran.version + " " + ran.precision + " on " + ran.device;
}

}  // namespace hgdeploy
