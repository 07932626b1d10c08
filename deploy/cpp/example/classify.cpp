// SPDX-License-Identifier: Apache-2.0
// classify BUNDLE IMAGE...: a program of its own around hgdeploy::Classifier.
#include <cstdio>

#include <hgdeploy/classify/classifier.hpp>

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: classify BUNDLE IMAGE...\n");
    return 2;
  }
  try {
    const hgdeploy::Classifier classifier(argv[1]);
    for (int i = 2; i < argc; ++i) {
      const hgdeploy::Prediction found = classifier.predict(argv[i]);
      if (found.error)
        std::printf("%s: %s\n", found.name.c_str(), found.error->c_str());
      else
        std::printf("%s: %s (%.3f)\n", found.name.c_str(), found.label_names.at(0).c_str(),
                    found.scores.at(0));
    }
    return 0;
  } catch (const hgdeploy::Error& error) {
    std::fprintf(stderr, "classify: %s\n", error.what());
    return error.exit_code();
  }
}
