// SPDX-License-Identifier: Apache-2.0
// Classifies many files at full speed and loses none: each is classified, or fails with a reason:
// deploy/python/hgdeploy/classify/folder.py.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "classify/classifier.hpp"
#include "classify/summary.hpp"
#include "images/find.hpp"
#include "results/rows.hpp"

namespace hgdeploy {

// Settings for many images: on a CPU, inferences side by side on one thread each, which do not wait
// for one another. `threads` is the number that may be used in all; 0 for all this process may use.
Settings folder_settings(Settings settings, std::size_t images);

struct FolderRun {
  // Takes one prediction at a time, in order, with the file as it was when it was read.
  std::function<void(const Prediction&, const FileFacts&)> write;
  // Called with a line for each failed image and each warning, as it happens.
  std::function<void(const std::string&)> on_warning;
  // Asked every now and then; once it says so, the run ends.
  std::function<bool()> interrupted = [] { return false; };
  int workers = 0;  // threads that read, infer and postprocess; 0 to find the best number
};

// Classifies files; `summary` is right also where this ends by an exception or an interruption.
void classify_files(const Classifier& classifier, const std::vector<ImageFile>& files,
                    const FolderRun& run, Summary& summary);

}  // namespace hgdeploy
