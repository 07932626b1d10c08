// SPDX-License-Identifier: Apache-2.0
#include "system/parallel.hpp"

#include <atomic>
#include <thread>
#include <vector>

#include "check.hpp"

namespace {

using namespace hgdeploy;

// Hands out `count` pieces, of which each takes another time.
struct Pieces {
  int count;
  int next = 0;
  std::atomic<int> begun{0};
  std::vector<int> delivered{};
  int bad_work = -1, bad_delivery = -1;

  Work take() {
    if (next == count) return {};
    const int number = next++;
    return [this, number]() -> Deliver {
      ++begun;
      std::this_thread::sleep_for(std::chrono::microseconds(number % 7 * 50));
      if (number == bad_work) throw Failed("work " + std::to_string(number));
      return [this, number] {
        if (number == bad_delivery) throw Failed("delivery " + std::to_string(number));
        delivered.push_back(number);
      };
    };
  }

  void run(
      int workers, const std::function<bool()>& interrupted = [] { return false; }) {
    WorkerTuner tuner(workers, workers, 2);
    in_order([this] { return take(); }, tuner, interrupted);
  }

  bool in_order_up_to(int end) const {
    for (int i = 0; i < end; ++i)
      if (delivered.at(static_cast<std::size_t>(i)) != i) return false;
    return delivered.size() == static_cast<std::size_t>(end);
  }
};

}  // namespace

void test_parallel(const std::filesystem::path&, const std::filesystem::path&) {
  for (const int workers : {1, 2, 7}) {
    Pieces all{500};
    all.run(workers);
    CHECK(all.in_order_up_to(500));

    Pieces none{0};
    none.run(workers);
    CHECK(none.delivered.empty());

    Pieces failing{500};
    failing.bad_work = 123;
    CHECK(said<Failed>([&] { failing.run(workers); }) == "work 123");
    CHECK(failing.in_order_up_to(123));
    CHECK(failing.begun < 123 + 20 * workers);  // results that wait are bounded

    Pieces unwritten{500};
    unwritten.bad_delivery = 45;
    CHECK(said<Failed>([&] { unwritten.run(workers); }) == "delivery 45");
    CHECK(unwritten.in_order_up_to(45));
  }
  Pieces long_run{1'000'000};
  long_run.run(3, [&] { return long_run.begun > 200; });
  CHECK(long_run.delivered.size() < 1'000'000);
  CHECK(long_run.in_order_up_to(static_cast<int>(long_run.delivered.size())));

  WorkerTuner growing(1, 4, 64);
  CHECK(growing.workers() == 1);
  Pieces many{100};
  in_order([&] { return many.take(); }, growing, [] { return false; });
  CHECK(many.in_order_up_to(100));
}
