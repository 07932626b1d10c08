// SPDX-License-Identifier: Apache-2.0
// scores BUNDLE IMAGE...: prints the scores of each image, of a bundle whose output is ScoreOutput.
#include <cstdio>

#include "classify/classifier.hpp"

int main(int, char** argv) {
  const hgdeploy::Classifier classifier(argv[1]);
  for (char** image = argv + 2; *image != nullptr; ++image) {
    for (const double score : classifier.predict(*image).scores) std::printf("%.17g ", score);
    std::printf("\n");
  }
}
