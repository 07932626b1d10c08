// SPDX-License-Identifier: Apache-2.0
// Opens the library's doors for the tests in Python, in one process: it reads commands that end with a
// null byte, and answers each with a line, or a line and bytes.
//
//   O<YAML>   use these transform_ops; without any, files are decoded to RGB
//   F<path>   read a file
//   B<bytes>  the same of the contents of a file (<number of bytes>:<bytes>)
//
// The answers are `ok DTYPE SIDE SIDE SIDE` with the bytes, or `error CODE REASON`.
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include <yaml-cpp/yaml.h>

#include "errors.hpp"
#include "images/decode.hpp"
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
        preprocessor_ = std::make_unique<Preprocessor>(Preprocessor::from_config(YAML::Load(given)));
        std::cout << "ok\n";
        return;
      case 'D':
        preprocessor_ = nullptr;
        std::cout << "ok\n";
        return;
      case 'F':
        write(hgdeploy::read_image(given));
        return;
      case 'B': {
        std::vector<std::uint8_t> data(std::stoul(given));
        std::cin.read(reinterpret_cast<char*>(data.data()), static_cast<std::streamsize>(data.size()));
        hgdeploy::DecodeOptions options;
        options.max_pixels = 1'000'000;
        write(hgdeploy::decode(data.data(), data.size(), "", options));
        return;
      }
      default:
        throw hgdeploy::ConfigError("unknown command");
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
};

}  // namespace

int main() {
  std::ios::sync_with_stdio(false);
  Probe().run();
  return 0;
}
