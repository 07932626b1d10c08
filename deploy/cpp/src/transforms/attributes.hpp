// SPDX-License-Identifier: Apache-2.0
// PaddleClas's attribute outputs: from a row of sigmoid scores to what a person, car or face has;
// deploy/python/hgdeploy/transforms/attributes.py.
#pragma once

#include <string>
#include <vector>

#include "transforms/postprocess.hpp"

namespace hgdeploy {

using Scores = std::vector<double>;

// PaddleClas's `attributes` of scores, as many as the output's `classes`.
std::vector<std::string> attributes(const PersonAttribute& output, const Scores& scores);
std::vector<std::string> attributes(const FaceAttribute& output, const Scores& scores);
std::vector<std::string> attributes(const VehicleAttribute& output, const Scores& scores);
std::vector<std::string> attributes(const TableAttribute& output, const Scores& scores);

// What each score is compared with for PaddleClas's `output`.
Scores limits(const PersonAttribute& output);
Scores limits(const FaceAttribute& output);
Scores limits(const VehicleAttribute& output);
Scores limits(const TableAttribute& output);

// What a user should know about an output's thresholds, one line each.
std::vector<std::string> notes_of(const PersonAttribute& output);
std::vector<std::string> notes_of(const TableAttribute& output);

}  // namespace hgdeploy
