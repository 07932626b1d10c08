// SPDX-License-Identifier: Apache-2.0
// Whether OpenVINO computes int8 rightly on this CPU, found out with a network of known results:
// deploy/python/hgdeploy/engines/openvino/probe.py has the reasons.
#pragma once

#include <openvino/openvino.hpp>

namespace hgdeploy {

// Runs one concatenation and one convolution in int8. Returns the largest error as a share of the
// largest right result; rounding alone is below 1e-3. Activations are -128 to 127, or 0 to 255.
double int8_error(ov::Core& core, bool is_signed);

}  // namespace hgdeploy
