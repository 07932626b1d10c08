// SPDX-License-Identifier: Apache-2.0
#include "classify/summary.hpp"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <numeric>

#include "errors.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

constexpr std::size_t most_slowest = 5, most_reasons = 5;

template <typename... Values>
std::string format(const char* pattern, Values... values) {
  char text[128];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

std::string without_numbers(const std::string& reason) {
  std::string text;
  bool in_number = false;
  for (const char c : reason) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit) text += c;
    if (digit && !in_number) text += 'N';
    in_number = digit;
  }
  return text;
}

}  // namespace

void StageTimes::add(const StageTimes& other) {
  for (std::size_t i = 0; i < seconds.size(); ++i) seconds[i] += other.seconds[i];
  slowest.insert(slowest.end(), other.slowest.begin(), other.slowest.end());
  std::sort(slowest.begin(), slowest.end(), std::greater<>());
  if (slowest.size() > most_slowest) slowest.resize(most_slowest);
}

void Summary::count(const Prediction& prediction) {
  if (!prediction.error) {
    ++classified;
    return;
  }
  ++failed;
  const std::string reason = without_numbers(*prediction.error);
  for (auto& [known, times] : reasons)
    if (known == reason) {
      ++times;
      return;
    }
  reasons.emplace_back(reason, 1);
}

int Summary::exit_code() const { return failed ? exit_some_images_failed : exit_ok; }

std::string Summary::text() const {
  const std::size_t done = classified + failed;
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  return format("found %zu = classified %zu + failed %zu, %.1f s, %.1f images/s", found, classified,
                failed, seconds, rate);
}

std::vector<std::string> Summary::details() const {
  std::vector<std::string> lines;
  auto sorted = reasons;
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](auto& a, auto& b) { return a.second > b.second; });
  for (std::size_t i = 0; i < std::min(sorted.size(), most_reasons); ++i)
    lines.push_back(format("failed: %zu x ", sorted[i].second) + sorted[i].first);
  if (sorted.size() > most_reasons)
    lines.push_back(format("failed: %zu more kinds of reasons", sorted.size() - most_reasons));
  const double total = std::accumulate(times.seconds.begin(), times.seconds.end(), 0.0);
  if (total > 0) {
    std::vector<std::string> stages;
    for (std::size_t i = 0; i < times.seconds.size(); ++i)
      stages.push_back(format("%s %.0f %%", StageTimes::names[i], 100 * times.seconds[i] / total));
    lines.push_back(format("time of %d threads: ", workers) + join(stages, ", "));
  }
  std::vector<std::string> slowest;
  for (const auto& [each, name] : times.slowest)
    slowest.push_back(printable(name) + format(" %.0f ms", 1000 * each));
  if (!slowest.empty()) lines.push_back("slowest to read: " + join(slowest, ", "));
  return lines;
}

}  // namespace hgdeploy
