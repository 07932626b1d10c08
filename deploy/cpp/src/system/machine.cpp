// SPDX-License-Identifier: Apache-2.0
#include "system/machine.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <sched.h>
#include <unistd.h>

namespace hgdeploy {
namespace {

namespace fs = std::filesystem;
const fs::path cgroups = "/sys/fs/cgroup";

std::vector<std::string> words(const fs::path& path) {
  std::ifstream file(path);
  std::vector<std::string> found;
  for (std::string word; file >> word;) found.push_back(word);
  return found;
}

// How many CPUs a cgroup's time is worth; nothing for any number.
std::optional<double> cpu_quota(const fs::path& folder) {
  std::vector<std::string> found = words(folder / "cpu.max");  // version 2
  if (found.empty()) {  // version 1 has a file for each number
    found = words(folder / "cpu.cfs_quota_us");
    for (auto& word : words(folder / "cpu.cfs_period_us")) found.push_back(word);
  }
  if (found.size() != 2) return std::nullopt;
  try {
    const double quota = std::stod(found[0]), period = std::stod(found[1]);
    return quota > 0 && period > 0 ? std::optional(quota / period) : std::nullopt;
  } catch (const std::exception&) {  // such as "max 100000"
    return std::nullopt;
  }
}

// The folders of this process's cgroups and of those around them, in both versions. In a container
// the root is often its own cgroup, whatever path the system gives; then the inner ones are not
// there.
std::vector<fs::path> cpu_cgroups() {
  std::vector<std::pair<fs::path, fs::path>> places{{cgroups, "/"}, {cgroups / "cpu", "/"}};
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string path = line.substr(second + 1);
    if (path.find("..") != std::string::npos) continue;  // it is outside of what is seen here
    std::istringstream names(line.substr(first + 1, second - first - 1));
    std::string name;
    if (second == first + 1) places[0].second = path;
    while (std::getline(names, name, ','))
      if (name == "cpu") places[1].second = path;
  }
  std::vector<fs::path> folders;
  for (const auto& [root, inner] : places)
    for (fs::path path = inner.relative_path();; path = path.parent_path()) {
      folders.push_back(root / path);
      if (path.empty()) break;
    }
  return folders;
}

}  // namespace

int available_cpus() {
  int cpus = static_cast<int>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0) cpus = CPU_COUNT(&set);
  double quota = cpus;
  for (const fs::path& folder : cpu_cgroups())
    quota = std::min(quota, cpu_quota(folder).value_or(quota));
  return std::max(1, std::min(cpus, static_cast<int>(std::ceil(quota))));
}

}  // namespace hgdeploy
