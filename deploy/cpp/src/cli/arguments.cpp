// SPDX-License-Identifier: Apache-2.0
#include "cli/arguments.hpp"

#include <charconv>
#include <regex>

#include <getopt.h>
#include <unistd.h>

#include "engines/engine.hpp"
#include "errors.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

constexpr int most_images = 65536, most_threads = 1024, most_classes = 1'000'000;
constexpr const char* usage =
    R"(usage: hgdeploy-predict [options] BUNDLE INPUT [INPUT ...]

Classifies images with a bundle, as hgdeploy predict does, and prints PaddleClas's line for each.

  BUNDLE              the model's folder
  INPUT               file, folder, glob or text list

options:
  --engine NAME       %s (default: the first that reads the bundle)
  --precision NAME    fp32 (default), fp16, bf16 or int8
  --device NAME       cpu (default) or gpu:N
  --batch-size N      images per inference (1)
  --threads N         CPU threads (default: all this process has)
  --workers N         threads that work on images (default: as many as make it faster)
  --topk N            classes per image (default: what the bundle says)
  --softmax           make probabilities of a model's logits
  --fast-decode       decode JPEG files at a reduced scale: faster, with slightly other pixels
  --json              print a row of JSON for each image, failed ones too, instead of lines
  --no-cache          keep no compiled model in BUNDLE/.cache
  --version, --help
)";
constexpr const char* see_help = " (see hgdeploy-predict --help)";

enum Flag : int {
  engine = 1000,
  precision,
  device,
  batch_size,
  threads,
  workers,
  topk,
  softmax,
  fast_decode,
  json,
  no_cache,
  version,
  help
};

const option flags[] = {{"engine", required_argument, nullptr, Flag::engine},
                        {"precision", required_argument, nullptr, Flag::precision},
                        {"device", required_argument, nullptr, Flag::device},
                        {"batch-size", required_argument, nullptr, Flag::batch_size},
                        {"threads", required_argument, nullptr, Flag::threads},
                        {"workers", required_argument, nullptr, Flag::workers},
                        {"topk", required_argument, nullptr, Flag::topk},
                        {"softmax", no_argument, nullptr, Flag::softmax},
                        {"fast-decode", no_argument, nullptr, Flag::fast_decode},
                        {"json", no_argument, nullptr, Flag::json},
                        {"no-cache", no_argument, nullptr, Flag::no_cache},
                        {"version", no_argument, nullptr, Flag::version},
                        {"help", no_argument, nullptr, Flag::help},
                        {nullptr, 0, nullptr, 0}};

int number(const std::string& flag, const std::string& text, int most) {
  int value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || end != text.data() + text.size() || value < 1 || value > most)
    throw ConfigError("--" + flag + " is " + repr(text.substr(0, 60)) +
                      ", expected a whole number from 1 to " + std::to_string(most) + see_help);
  return value;
}

// An empty name, as of a variable of the shell that is not set, asks for no engine of ours.
std::string engine_name(const std::string& text) {
  if (text.empty()) throw EngineError("unknown engine '', " + nearest(text, built_engines()));
  return text;
}

void refuse_address(const std::string& text) {
  static const std::regex address("^[a-z][a-z0-9+.-]+:/", std::regex::icase);
  if (std::regex_search(text.substr(0, 256), address) && ::access(text.c_str(), F_OK) != 0)
    throw ConfigError(printable(text) + ": is an address, expected a file or folder of this "
                                        "machine; download it first");
}

[[noreturn]] void refuse(int found, int argc, char** argv, int place) {
  const std::string given = place > 0 && place <= argc ? argv[place - 1] : "";
  if (found == ':') throw ConfigError("argument " + given + ": expected one argument" + see_help);
  const std::string name = given.substr(0, given.find('='));
  std::vector<std::string> known;
  for (const option* flag = flags; flag->name != nullptr; ++flag)
    known.push_back(std::string("--") + flag->name);
  if (name != given)
    for (const std::string& flag : known)
      if (flag == name) throw ConfigError("argument " + name + ": takes no value" + see_help);
  throw ConfigError("unknown argument " + printable(name) + ", " + nearest(name, known) + see_help);
}

std::string filled_usage() {
  const std::vector<std::string> built = built_engines();
  std::string text = usage;
  return text.replace(text.find("%s"), 2, built.empty() ? "none was built in" : join(built, ", "));
}

}  // namespace

Arguments parse_arguments(int argc, char** argv) {
  Arguments arguments;
  Settings& settings = arguments.settings;
  bool cache = true;
  ::opterr = 0;
  for (;;) {
    int index = 0;
    const int found = ::getopt_long(argc, argv, ":h", flags, &index);
    const std::string value = optarg == nullptr ? "" : optarg;
    if (found == -1) break;
    switch (found) {
      case Flag::engine: settings.engine = engine_name(value); break;
      case Flag::precision: settings.precision = value; break;
      case Flag::device: settings.device = value; break;
      case Flag::batch_size: settings.batch_size = number("batch-size", value, most_images); break;
      case Flag::threads: settings.threads = number("threads", value, most_threads); break;
      case Flag::workers: arguments.workers = number("workers", value, most_threads); break;
      case Flag::topk: settings.topk = number("topk", value, most_classes); break;
      case Flag::softmax: settings.softmax = true; break;
      case Flag::fast_decode: settings.fast_decode = true; break;
      case Flag::json: arguments.json = true; break;
      case Flag::no_cache: cache = false; break;
      case Flag::version: arguments.printed = "hgdeploy " HGDEPLOY_VERSION "\n"; return arguments;
      case 'h':
      case Flag::help: arguments.printed = filled_usage(); return arguments;
      default: refuse(found, argc, argv, ::optind);
    }
  }
  if (::optind == argc)
    throw ConfigError(std::string("the following arguments are required: bundle, INPUT") +
                      see_help);
  arguments.bundle = argv[::optind];
  arguments.inputs.assign(argv + ::optind + 1, argv + argc);
  if (arguments.inputs.empty())
    throw ConfigError(std::string("the following arguments are required: INPUT") + see_help);
  refuse_address(arguments.bundle);
  for (const std::string& input : arguments.inputs) refuse_address(input);
  if (cache) settings.cache_dir = arguments.bundle + "/.cache";
  return arguments;
}

}  // namespace hgdeploy
