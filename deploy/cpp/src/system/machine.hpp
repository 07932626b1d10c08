// SPDX-License-Identifier: Apache-2.0
// What this process may use of the machine: deploy/python/hgdeploy/system/machine.py.
#pragma once

namespace hgdeploy {

// How many CPUs this process may use: its affinity, and the CPU time that its cgroups get; of 1.5
// CPUs it may use 2.
int available_cpus();

}  // namespace hgdeploy
