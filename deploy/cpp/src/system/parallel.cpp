// SPDX-License-Identifier: Apache-2.0
#include "system/parallel.hpp"

#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <time.h>

#include "errors.hpp"

namespace hgdeploy {
namespace {

// Results that may wait for a slow one before them, for each thread: a large file among small ones
// then holds nobody up.
constexpr long window = 16;
// A rate counts once it was taken over this long and this many pieces for each thread.
constexpr double span_seconds = 1.0;
constexpr long span_pieces = 8;
// One more thread has to bring this much, or it goes again.
constexpr double gain = 1.03;
// Where the process has so much of the CPUs' time, no thread waits for anything but them.
constexpr double busy_share = 0.9;
constexpr auto patience = std::chrono::milliseconds(50);

double cpu_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

class Run {
 public:
  Run(const std::function<Work()>& take, WorkerTuner& tuner) : take_(take), tuner_(tuner) {}

  void finish(const std::function<bool()>& interrupted) {
    std::unique_lock lock(lock_);
    try {
      add_threads();
      while (!finished_) {
        finished_change_.wait_for(lock, patience);
        if (!finished_ && interrupted()) break;
      }
    } catch (...) {
      stop(lock);
      throw;
    }
    stop(lock);
    if (const auto found = errors_.find(next_); found != errors_.end())
      std::rethrow_exception(found->second);
  }

 private:
  void add_threads() {
    while (running_ < tuner_.workers() && !ended_) {
      try {
        threads_.emplace_back([this] { run(); });
      } catch (const std::system_error&) {
        throw ResourceError(
            "the system gives this process no more than " + std::to_string(running_) +
            " threads for its work; use fewer --workers, or raise the limit (ulimit "
            "-u, pids.max)");
      }
      ++running_;
    }
  }

  // Lets what has begun come to its end, and nothing new begin.
  void stop(std::unique_lock<std::mutex>& lock) {
    ended_ = stopped_ = true;
    room_.notify_all();
    lock.unlock();
    for (std::thread& thread : threads_) thread.join();
    lock.lock();
  }

  void run() {
    for (;;) {
      Work work;
      const long number = take(work);
      if (number < 0) return;
      Deliver result;
      std::exception_ptr failed;
      try {
        result = work();
      } catch (...) {  // thrown where all the work is waited for
        failed = std::current_exception();
      }
      const std::lock_guard lock(lock_);
      if (failed)
        errors_[number] = failed;
      else
        results_[number] = std::move(result);
      hand_over();
    }
  }

  // Takes the next piece when there is room for it; returns -1 where this thread is to end.
  long take(Work& work) {
    std::unique_lock lock(lock_);
    room_.wait(lock, [this] {
      return taken_ - next_ < window * tuner_.workers() || ended_ || running_ > tuner_.workers();
    });
    if (!ended_ && running_ <= tuner_.workers()) {
      try {
        work = take_();
        if (work) return taken_++;
      } catch (...) {
        errors_[taken_] = std::current_exception();
      }
      ended_ = true;
    }
    --running_;
    room_.notify_all();
    if (running_ == 0) finish_run();
    return -1;
  }

  // Hands over the results whose turn it is, unless another thread is at it. The lock is held.
  void hand_over() {
    if (delivering_) return;
    delivering_ = true;
    while (!stopped_ && errors_.count(next_) == 0 && results_.count(next_) != 0) {
      const Deliver deliver = std::move(results_[next_]);
      results_.erase(next_);
      lock_.unlock();
      std::exception_ptr failed;
      try {
        deliver();
      } catch (...) {
        failed = std::current_exception();
      }
      lock_.lock();
      try {
        if (failed) std::rethrow_exception(failed);
        ++next_;
        tuner_.done();
        add_threads();
        room_.notify_all();
      } catch (...) {  // thrown where all the work is waited for
        errors_[next_] = std::current_exception();
      }
    }
    delivering_ = false;
    if (errors_.count(next_) == 0) return;
    ended_ = true;
    room_.notify_all();
    finish_run();
  }

  void finish_run() {
    finished_ = true;
    finished_change_.notify_all();
  }

  const std::function<Work()>& take_;
  WorkerTuner& tuner_;
  std::mutex lock_;  // guards everything below
  std::condition_variable room_, finished_change_;
  long taken_ = 0, next_ = 0;        // pieces that are taken; the piece that is handed over next
  std::map<long, Deliver> results_;  // those that wait for one before them
  std::map<long, std::exception_ptr> errors_;  // likewise
  bool delivering_ = false, ended_ = false, stopped_ = false, finished_ = false;
  int running_ = 0;
  std::vector<std::thread> threads_;
};

}  // namespace

WorkerTuner::WorkerTuner(int least, int most, int cpus)
    : workers_(least), most_(most), cpus_(cpus), settled_(least >= most) {}

void WorkerTuner::done() {
  if (settled_) return;
  const auto now = std::chrono::steady_clock::now();
  if (!started_) {  // the first result shows when all threads are under way
    started_ = true;
    start_ = now;
    cpu_start_ = cpu_seconds();
    return;
  }
  ++pieces_;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  if (seconds < span_seconds || pieces_ < span_pieces * workers_) return;
  const double rate = static_cast<double>(pieces_) / seconds;
  if (rate < rate_ * gain) {
    --workers_;
    settled_ = true;
  } else if (workers_ == most_ || busy(seconds)) {
    settled_ = true;
  } else {
    ++workers_;
  }
  rate_ = rate;
  started_ = false;
  pieces_ = 0;
}

bool WorkerTuner::busy(double seconds) const {
  return cpu_seconds() - cpu_start_ >= busy_share * seconds * cpus_;
}

void in_order(const std::function<Work()>& take, WorkerTuner& tuner,
              const std::function<bool()>& interrupted) {
  Run(take, tuner).finish(interrupted);
}

}  // namespace hgdeploy
