// SPDX-License-Identifier: Apache-2.0
#include "classify/classifier.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <thread>

#include "check.hpp"
#include "classify/folder.hpp"
#include "images/decode.hpp"

namespace {

namespace fs = std::filesystem;
using namespace hgdeploy;

std::vector<std::uint8_t> contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool same(const Prediction& a, const Prediction& b) {
  return a.class_ids == b.class_ids && a.scores == b.scores && !a.error && !b.error;
}

void test_predict(const Classifier& classifier, const fs::path& image) {
  const Prediction found = classifier.predict(image.string());
  CHECK(!found.error && found.class_ids->size() == 5 && found.name == image.filename());
  CHECK(same(found, classifier.predict(contents(image))));
  CHECK(same(found, classifier.predict(read_image(image.string()))));
  CHECK(classifier.predict("/no/such.jpg").error == "does not exist");
  CHECK(classifier.predict(std::vector<std::uint8_t>{}).error.has_value());
  CHECK(classifier.predict(cv::Mat()).error.has_value());
  CHECK(classifier.predict(cv::Mat(8, 8, CV_32FC1)).error.has_value());

  std::vector<std::thread> threads;
  std::vector<Prediction> all(8);
  for (Prediction& one : all)
    threads.emplace_back([&] { one = classifier.predict(image.string()); });
  for (std::thread& thread : threads) thread.join();
  for (const Prediction& one : all) CHECK(same(found, one));
}

// Bad and good images in one folder, in batches: each is accounted for in its place.
void test_folder(const fs::path& bundle, const fs::path& image) {
  std::vector<ImageFile> files;
  for (int i = 0; i < 40; ++i)
    files.push_back({i % 5 == 3 ? "/no/such" : image.string(), "image " + std::to_string(i)});
  for (const int batch : {1, 3}) {
    Settings settings = folder_settings({}, files.size());
    settings.batch_size = batch;
    const Classifier classifier(bundle.string(), settings);
    Summary summary;
    summary.found = files.size();
    std::size_t written = 0, warned = 0;
    FolderRun run;
    run.write = [&](const Prediction& prediction, const FileFacts& facts) {
      CHECK(prediction.name == files[written].name);
      CHECK(prediction.error.has_value() == (written % 5 == 3));
      CHECK(facts.size.has_value() == (written % 5 != 3));
      ++written;
    };
    run.on_warning = [&](const std::string&) { ++warned; };
    classify_files(classifier, files, run, summary);
    CHECK(written == 40 && warned == 8 + classifier.warnings().size());
    CHECK(summary.classified == 32 && summary.failed == 8 && summary.exit_code() == 3);
    CHECK(contains(summary.text(), "found 40 = classified 32 + failed 8"));
    CHECK(contains(summary.details().at(0), "failed: 8 x does not exist"));
  }
}

}  // namespace

void test_classifier(const fs::path& data, const fs::path& images) {
  const Folder folder;
  make_bundle(folder, data);
  const fs::path image = images / "coffee.jpg";
  Settings settings;
  const Classifier classifier(folder.path.string(), settings);
  test_predict(classifier, image);
  settings.cache_dir = (folder.path / ".cache").string();
  for (int i = 0; i < 2; ++i)  // the second time from the cache
    CHECK(same(classifier.predict(image.string()),
               Classifier(folder.path.string(), settings).predict(image.string())));
  CHECK(fs::is_directory(folder.path / ".cache" / "openvino"));
  test_folder(folder.path, image);

  const auto refused = [&](auto change) {
    Settings other;
    change(other);
    return [&, other] { Classifier(folder.path.string(), other); };
  };
  CHECK(contains(said<EngineError>(refused([](auto& s) { s.engine = "tensorrt"; })), "this build"));
  CHECK(contains(said<EngineError>(refused([](auto& s) { s.engine = "opnvino"; })), "openvino"));
  CHECK(contains(said<ConfigError>(refused([](auto& s) { s.precision = "fp8"; })),
                 "unknown precision"));
  CHECK(contains(said<EngineError>(refused([](auto& s) { s.device = "gpu:7"; })), "gpu:7"));
  CHECK(contains(said<BundleError>(refused([](auto& s) { s.precision = "int8"; })), "int8"));
  CHECK(contains(said<ConfigError>(refused([](auto& s) { s.batch_size = 0; })), "batch size"));

  fs::remove(folder.path / "inference.onnx");  // what is left is Paddle 2's program
  const Classifier of_paddle(folder.path.string());
  const Prediction a = classifier.predict(image.string()), b = of_paddle.predict(image.string());
  CHECK(a.class_ids == b.class_ids);
  fs::resize_file(folder.path / "inference.pdiparams", 1000);
  CHECK(contains(said<BundleError>([&] { Classifier(folder.path.string()); }),
                 "inference.pdiparams"));
}
