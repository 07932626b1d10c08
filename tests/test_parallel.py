# SPDX-License-Identifier: Apache-2.0
"""Work on many threads: results in order, nothing lost, and as many threads as pay."""

from __future__ import annotations

import itertools
import random
import threading
import time

import pytest

from hgdeploy.parallel import WorkerTuner, ordered_map


def fixed(workers: int) -> WorkerTuner:
    return WorkerTuner(workers, workers)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_results_come_in_the_order_of_the_pieces(workers):
    delays = random.Random(0)

    def work(piece: int) -> int:
        time.sleep(delays.random() / 500)
        return piece * piece

    assert list(ordered_map(work, range(200), fixed(workers))) == [i * i for i in range(200)]


def test_no_pieces_give_no_results():
    assert list(ordered_map(str, [], fixed(3))) == []


def test_pieces_are_taken_only_as_fast_as_results_are_used():
    taken = itertools.count()
    results = ordered_map(str, ((next(taken), i)[1] for i in range(10**9)), fixed(2))
    for _ in range(5):
        next(results)
    results.close()
    assert next(taken) < 100


def test_a_slow_piece_does_not_stop_the_others():
    done: list[int] = []
    others = threading.Event()

    def work(piece: int) -> int:
        if piece == 0:
            assert others.wait(30), "the others waited for the slow one"
        done.append(piece)
        if len(done) == 10:
            others.set()
        return piece

    assert list(ordered_map(work, range(20), fixed(2))) == list(range(20))
    assert done.index(0) >= 10


def test_an_error_comes_in_its_turn_and_ends_the_work():
    begun: list[int] = []

    def work(piece: int) -> int:
        begun.append(piece)
        if piece == 3:
            raise KeyError("three")
        return piece

    results = ordered_map(work, range(10_000), fixed(2))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="three"):
        next(results)
    assert list(results) == []
    assert len(begun) < 1000


def test_leaving_does_not_wait_for_a_piece_that_hangs():
    hanging = threading.Event()
    results = ordered_map(lambda piece: hanging.wait(60) if piece else piece, range(9), fixed(2))
    assert next(results) == 0
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 30
    hanging.set()


class Clock:
    """A clock that moves by what one piece takes with so many threads."""

    def __init__(self, rate_of) -> None:
        self.rate_of, self.now = rate_of, 0.0

    def run(self, tuner: WorkerTuner, pieces: int = 3000) -> int:
        for _ in range(pieces):
            self.now += 1 / self.rate_of(tuner.workers)
            tuner.done()
        return tuner.workers

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("rate_of", "expected"),
    [
        (lambda _: 100.0, 2),  # one more brings nothing
        (lambda workers: 100.0 * workers, 8),  # each brings as much as the first
        (lambda workers: 100.0 * min(workers, 5), 5),  # as many as a slow disk can serve
        (lambda workers: 100.0 / workers, 2),  # one more does harm
    ],
)
def test_threads_are_added_as_long_as_they_pay(rate_of, expected):
    clock = Clock(rate_of)
    assert clock.run(WorkerTuner(2, 8, clock)) == expected


def test_waiting_for_files_is_answered_by_more_threads():
    tuner = WorkerTuner(1, 4)
    work = ordered_map(lambda _: time.sleep(0.02), range(400), tuner)
    assert sum(1 for _ in work) == 400
    assert tuner.workers > 1
