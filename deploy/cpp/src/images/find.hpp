// SPDX-License-Identifier: Apache-2.0
// Finds image files: in folders, by patterns, in text lists; as
// deploy/python/hgdeploy/images/find.py.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace hgdeploy {

// One file to classify: its path, and what to call it in results, with forward slashes.
struct ImageFile {
  std::string place;
  std::string name;
};

// Called with a line, such as a count of files that were left out.
using OnLine = std::function<void(const std::string&)>;

// Finds the image files that the inputs name, each a folder, a text list (.txt, .lst, .list), any
// other file, or a pattern with `*`, `?`, `[...]` or `**`; see the Python function of the same
// name.
//
// Returns at least one file. Throws InputError: an input does not exist, cannot be searched, or has
// no images.
std::vector<ImageFile> find_images(const std::vector<std::string>& inputs,
                                   const OnLine& on_warning = {});

}  // namespace hgdeploy
