// SPDX-License-Identifier: Apache-2.0
// Which known name is nearest to a wrong one, as Python's difflib measures it.
#include <algorithm>

#include "system/text.hpp"

namespace hgdeploy {
namespace {

// The longest block that two texts share, between these places; the first of equal ones, as
// difflib's.
struct Match {
  std::size_t a = 0, b = 0, size = 0;
};

Match longest_match(std::string_view a, std::string_view b) {
  Match best;
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (std::size_t j = 0; j < b.size(); ++j) {
      std::size_t size = 0;
      while (i + size < a.size() && j + size < b.size() && a[i + size] == b[j + size]) {
        ++size;
      }
      if (size > best.size) {
        best = {i, j, size};
      }
    }
  }
  return best;
}

std::size_t matching(std::string_view a, std::string_view b) {
  const Match match = longest_match(a, b);
  if (match.size == 0) {
    return 0;
  }
  return match.size + matching(a.substr(0, match.a), b.substr(0, match.b)) +
         matching(a.substr(match.a + match.size), b.substr(match.b + match.size));
}

}  // namespace

std::string nearest(const std::string& name, std::vector<std::string> allowed) {
  std::sort(allowed.begin(), allowed.end());
  const std::string* best = nullptr;
  double least = 0.6;  // difflib's own
  for (const std::string& other : name.size() > 1000 ? std::vector<std::string>{} : allowed) {
    const double ratio = name.size() + other.size() == 0
                             ? 1.0
                             : 2.0 * static_cast<double>(matching(other, name)) /
                                   static_cast<double>(name.size() + other.size());
    // Of equally near ones difflib gives the last.
    if (ratio >= least) {
      least = ratio;
      best = &*std::find(allowed.begin(), allowed.end(), other);
    }
  }
  return best != nullptr ? "did you mean " + repr(*best) + "?"
                         : "expected one of: " + join(allowed, ", ");
}

}  // namespace hgdeploy
