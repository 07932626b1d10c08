// SPDX-License-Identifier: Apache-2.0
// Many threads at one kind of work, results in order, and the number of threads found by measuring:
// deploy/python/hgdeploy/system/parallel.py has the reasons.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>

namespace hgdeploy {

// Decides how many threads may work: while CPUs are idle, one more as long as each pays.
class WorkerTuner {
 public:
  // Begins with `least` threads and never exceeds `most`; the process may use so many CPUs.
  WorkerTuner(int least, int most, int cpus);
  int workers() const { return workers_; }
  // Takes note that a piece of work was finished; `workers` may change.
  void done();

 private:
  bool busy(double seconds) const;

  int workers_, most_, cpus_;
  double rate_ = 0;  // of one thread less
  bool settled_;
  bool started_ = false;
  std::chrono::steady_clock::time_point start_;
  double cpu_start_ = 0;
  long pieces_ = 0;
};

// Does `work` on the pieces 0, 1, 2, ... until `take` says that there is none left, on several
// threads, and has `deliver` called for each in order, from any of the threads, one at a time.
//
// Memory holds a bounded number of results. `work` puts its result into a place of its own and
// returns what hands it over. The first error, in order, is thrown here. `interrupted` is asked
// every now and then; once it says so, what has not begun is dropped, nothing is handed over any
// more, and this returns.
using Deliver = std::function<void()>;
using Work = std::function<Deliver()>;
void in_order(const std::function<Work()>& take, WorkerTuner& tuner,
              const std::function<bool()>& interrupted);

}  // namespace hgdeploy
