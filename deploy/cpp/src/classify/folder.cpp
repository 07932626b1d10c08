// SPDX-License-Identifier: Apache-2.0
#include "classify/folder.hpp"

#include <algorithm>
#include <chrono>
#include <memory>

#include "classify/impl.hpp"
#include "system/machine.hpp"
#include "system/parallel.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

// More than one thread per CPU helps only while some of them wait for a disk or network.
constexpr int most_workers_per_cpu = 4;

WorkerTuner tuner_for(const Classifier::Impl& classifier, std::size_t images, int workers) {
  if (workers > 0) return {workers, workers, classifier.cpus};
  // At first as many as can be inside the engine; the run shows whether more, for reading, help.
  const int count = static_cast<int>(std::min<std::size_t>(images, 1 << 20));
  const int least = std::max(1, std::min(classifier.run.engine->concurrency(), count));
  const int most = most_workers_per_cpu * std::max(least, classifier.cpus);
  return {least, std::max(least, std::min(most, count)), classifier.cpus};
}

// The state of a run, of which all but `next` belongs to whoever delivers.
struct State {
  Classifier::Impl& classifier;
  const std::vector<ImageFile>& files;
  const FolderRun& run;
  Summary& summary;
  std::size_t next = 0;
  std::size_t reported = 0;

  void report_warnings() {
    const std::vector<std::string> warnings = classifier.warnings();
    for (; reported < warnings.size(); ++reported) run.on_warning(warnings[reported]);
  }

  void deliver(const std::vector<Prediction>& predictions, const std::vector<FileFacts>& facts) {
    report_warnings();
    for (std::size_t i = 0; i < predictions.size(); ++i) {
      const Prediction& prediction = predictions[i];
      run.write(prediction, facts[i]);
      summary.count(prediction);
      if (prediction.error) run.on_warning(printable(prediction.name) + ": " + *prediction.error);
    }
  }

  // Takes the next batch; the last ones are smaller, so that all threads finish together.
  Work take(int workers) {
    const std::size_t left = files.size() - next, threads = static_cast<std::size_t>(workers);
    if (left == 0) return {};
    const std::size_t count = std::min<std::size_t>(static_cast<std::size_t>(classifier.batch_size),
                                                    (left + threads - 1) / threads);
    const std::size_t first = next;
    next += count;
    return [this, first, count] { return work(first, count); };
  }

  Deliver work(std::size_t first, std::size_t count) {
    std::vector<FileFacts> facts;
    std::vector<Image> images;
    for (std::size_t i = first; i < first + count; ++i) {
      // Before it is read, so that a change meanwhile shows as a change.
      facts.push_back(file_facts(files[i].place));
      images.push_back(classifier.of_file(files[i]));
    }
    return [this, predictions = classifier.answers(images), facts = std::move(facts)] {
      deliver(predictions, facts);
    };
  }
};

}  // namespace

Settings folder_settings(Settings settings, std::size_t images) {
  if (settings.device != "cpu" || settings.streams > 1) return settings;
  const int all = settings.threads > 0 ? settings.threads : available_cpus();
  const int streams =
      static_cast<int>(std::min<std::size_t>(static_cast<std::size_t>(all), images));
  if (streams < 2) return settings;
  settings.threads = all / streams;
  settings.streams = streams;
  return settings;
}

void classify_files(const Classifier& classifier, const std::vector<ImageFile>& files,
                    const FolderRun& run, Summary& summary) {
  cv::setNumThreads(1);  // many threads read images already; it changes no pixel
  const auto start = std::chrono::steady_clock::now();
  State state{classifier.impl(), files, run, summary};
  WorkerTuner tuner = tuner_for(state.classifier, files.size(), run.workers);
  const auto account = [&] {
    summary.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    summary.times = state.classifier.times();
    summary.workers = tuner.workers();
  };
  state.report_warnings();
  try {
    in_order([&] { return state.take(tuner.workers()); }, tuner, run.interrupted);
  } catch (...) {
    account();
    throw;
  }
  account();
}

}  // namespace hgdeploy
