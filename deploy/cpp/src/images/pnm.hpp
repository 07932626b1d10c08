// SPDX-License-Identifier: Apache-2.0
// PBM, PGM and PPM files: how large their pictures are.
#pragma once

#include "images/boxes.hpp"
#include "images/bytes.hpp"

namespace hgdeploy {

// Throws PastTheEnd and Damage.
Sides read_pnm_size(const Bytes& data);

}  // namespace hgdeploy
