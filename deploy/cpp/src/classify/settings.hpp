// SPDX-License-Identifier: Apache-2.0
// How to load a bundle and classify with it: deploy/python/hgdeploy/classify/settings.py.
#pragma once

#include <optional>
#include <string>

namespace hgdeploy {

struct Settings {
  std::string engine;              // empty for the first of this build that reads the bundle
  std::string precision = "fp32";  // fp32, fp16, bf16 or int8
  std::string device = "cpu";      // cpu, or gpu:N
  int batch_size = 1;              // images per inference
  int threads = 0;                 // CPU threads of one inference; 0 for all this process may use
  int streams = 1;                 // inferences that are meant to run at once, each with `threads`
  std::optional<long> topk;        // instead of the bundle's own number
  bool softmax = false;            // make probabilities of a model's logits
  bool fast_decode = false;        // decode JPEG at a reduced scale: slightly different pixels
  std::string cache_dir;           // where compiled models are kept; empty to keep none
};

}  // namespace hgdeploy
