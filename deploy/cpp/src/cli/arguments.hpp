// SPDX-License-Identifier: Apache-2.0
// The command line of `hgdeploy-predict`.
#pragma once

#include <string>
#include <vector>

#include "classify/settings.hpp"

namespace hgdeploy {

struct Arguments {
  std::string bundle;
  std::vector<std::string> inputs;
  Settings settings;
  bool json = false;    // rows of JSON instead of PaddleClas's lines
  int workers = 0;      // threads that work on images; 0 for as many as make it faster
  std::string printed;  // what --help or --version prints; nothing else is to be done then
};

// Throws ConfigError: an argument is wrong.
Arguments parse_arguments(int argc, char** argv);

}  // namespace hgdeploy
