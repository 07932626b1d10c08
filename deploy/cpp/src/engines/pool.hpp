// SPDX-License-Identifier: Apache-2.0
// Things of which each caller has one for itself for a while: infer requests, sessions.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

namespace hgdeploy {

template <typename T>
class Pool {
 public:
  // One thing, which goes back at the end of its scope.
  class Lent {
   public:
    Lent(Pool& pool, T thing) : pool_(pool), thing_(std::move(thing)) {}
    ~Lent() { pool_.add(std::move(thing_)); }
    Lent(const Lent&) = delete;
    Lent& operator=(const Lent&) = delete;
    T& operator*() { return thing_; }
    T* operator->() { return &thing_; }

   private:
    Pool& pool_;
    T thing_;
  };

  void add(T thing) {
    {
      const std::lock_guard lock(lock_);
      free_.push_back(std::move(thing));
    }
    has_one_.notify_one();
  }

  // Waits until there is one.
  Lent take() {
    std::unique_lock lock(lock_);
    has_one_.wait(lock, [this] { return !free_.empty(); });
    T thing = std::move(free_.front());
    free_.pop_front();
    return Lent(*this, std::move(thing));
  }

 private:
  std::mutex lock_;
  std::condition_variable has_one_;
  std::deque<T> free_;
};

}  // namespace hgdeploy
