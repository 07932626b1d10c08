// SPDX-License-Identifier: Apache-2.0
// Opens the library's doors for the tests in Python, in one process: it reads commands that end
// with a null byte, and answers each with a line, or a line and bytes.
//
//   O<YAML>    use these transform_ops
//   D          use none: files are decoded to RGB
//   S<pixels>  decode JPEG files at a reduced size whose short side has that many; 0: full size
//   F<path>    read a file
//   B<number>  the same of so many bytes, which follow: the contents of a file
//   P<YAML>    use this PostProcess section
//   V<number>  make a prediction of so many bytes of float32 scores, which follow
//   I<input>   find images; inputs are separated by line feeds
//   T<text>    show a text as Python does: its repr, and what of it may be printed
//
// The answers are `ok DTYPE SIDE SIDE SIDE` with the bytes, `ok JSON`, `ok NUMBER` with the places
// and names of files that end with a null byte, or `error CODE REASON`.
#include <cstdint>
#include <cstring>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <yaml-cpp/yaml.h>
#include <nlohmann/json.hpp>

#include "errors.hpp"
#include "images/decode.hpp"
#include "images/find.hpp"
#include "system/documents.hpp"
#include "system/text.hpp"
#include "transforms/postprocess.hpp"
#include "transforms/preprocess.hpp"

namespace {

using hgdeploy::Preprocessor;
using hgdeploy::Tensor;

class Probe {
 public:
  void run() {
    std::string command;
    while (std::getline(std::cin, command, '\0')) {
      try {
        answer(command);
      } catch (const hgdeploy::Error& error) {
        std::cout << "error " << error.exit_code() << ' ' << error.what() << '\n';
      }
      std::cout.flush();
    }
  }

 private:
  void answer(const std::string& command) {
    const std::string given = command.substr(1);
    switch (command.at(0)) {
      case 'O':
        preprocessor_ = nullptr;
        preprocessor_ =
            std::make_unique<Preprocessor>(Preprocessor::from_config(hgdeploy::yaml_of(given)));
        std::cout << "ok\n";
        return;
      case 'D':
        preprocessor_ = nullptr;
        std::cout << "ok\n";
        return;
      case 'S':
        shrink_to_ = std::stoi(given);
        std::cout << "ok\n";
        return;
      case 'F': write(hgdeploy::read_image(given)); return;
      case 'B': {
        const std::vector<char> data = following(given);
        hgdeploy::DecodeOptions options;
        options.shrink_to = shrink_to_;
        options.max_pixels = 1'000'000;  // so that a damaged size costs no memory
        write(hgdeploy::decode(reinterpret_cast<const std::uint8_t*>(data.data()), data.size(), "",
                               options));
        return;
      }
      case 'P':
        postprocess_ = hgdeploy::Postprocess::from_config(hgdeploy::yaml_of(given));
        std::cout << "ok\n";
        return;
      case 'V': {
        const std::vector<char> data = following(given);
        std::vector<float> scores(data.size() / sizeof(float));
        std::memcpy(scores.data(), data.data(), data.size());
        std::cout << "ok " << json_of(postprocess_("x.jpg", scores.data(), scores.size())) << '\n';
        return;
      }
      case 'I': find(given); return;
      case 'T':
        std::cout << "ok " << hgdeploy::repr(given) << '\0' << hgdeploy::printable(given) << '\n';
        return;
      default: throw hgdeploy::ConfigError("unknown command");
    }
  }

  static std::vector<char> following(const std::string& number) {
    std::vector<char> data(std::stoul(number));
    std::cin.read(data.data(), static_cast<std::streamsize>(data.size()));
    return data;
  }

  static std::string json_of(const hgdeploy::Prediction& prediction) {
    const auto or_null = [](const auto& value) {
      return value ? nlohmann::json(*value) : nlohmann::json();
    };
    nlohmann::json row{{"class_ids", or_null(prediction.class_ids)},
                       {"scores", prediction.scores},
                       {"labels", prediction.label_names},
                       {"attributes", or_null(prediction.attributes)},
                       {"output", or_null(prediction.output)}};
    if (prediction.one_attribute) {
      row["attributes"] = prediction.attributes->front();
    }
    return row.dump();
  }

  static void find(const std::string& given) {
    std::vector<std::string> inputs;
    std::istringstream lines(given);
    for (std::string line; std::getline(lines, line);) {
      inputs.push_back(line);
    }
    std::vector<std::string> warnings;
    const auto files =
        hgdeploy::find_images(inputs, [&](const std::string& line) { warnings.push_back(line); });
    std::cout << "ok " << files.size() << ' ' << hgdeploy::join(warnings, " | ") << '\n';
    for (const hgdeploy::ImageFile& file : files) {
      std::cout << file.place << '\0' << file.name << '\0';
    }
  }

  void write(const cv::Mat& bgr) {
    static const Preprocessor decoded({});
    const Tensor tensor = preprocessor_ ? (*preprocessor_)(bgr) : decoded(bgr);
    std::cout << "ok " << name_of(tensor.type);
    for (const long side : tensor.shape) {
      std::cout << ' ' << side;
    }
    std::cout << '\n';
    std::cout.write(reinterpret_cast<const char*>(tensor.bytes.data()),
                    static_cast<std::streamsize>(tensor.bytes.size()));
  }

  std::unique_ptr<Preprocessor> preprocessor_;
  hgdeploy::Postprocess postprocess_;
  int shrink_to_ = 0;
};

}  // namespace

int main() {
  std::ios::sync_with_stdio(false);
  Probe().run();
  return 0;
}
