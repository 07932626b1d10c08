# SPDX-License-Identifier: Apache-2.0
"""Work on many threads: results in order, nothing lost, and as many threads as pay."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from conftest import DEADLINE
from hgdeploy.errors import ResourceError
from hgdeploy.system.parallel import WorkerTuner, in_order


def fixed(workers: int) -> WorkerTuner:
    return WorkerTuner(workers, workers, cpus=1)


def results_of(work, pieces, tuner: WorkerTuner) -> list:
    results: list = []
    in_order(work, pieces, results.append, tuner)
    return results


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_results_come_in_the_order_of_the_pieces(workers):
    delays = random.Random(0)

    def work(piece: int) -> int:
        time.sleep(delays.random() / 500)
        return piece * piece

    assert results_of(work, range(200), fixed(workers)) == [i * i for i in range(200)]


@pytest.mark.parametrize("workers", [2, 16])
def test_one_result_is_taken_at_a_time_and_none_is_lost(workers):
    inside = threading.Lock()
    results: list[int] = []

    def take(result: int) -> None:
        assert inside.acquire(blocking=False), "two results at a time"
        if result % 1000 == 0:
            time.sleep(0.01)  # the others finish meanwhile, and leave theirs to this thread
        results.append(result)
        inside.release()

    in_order(lambda piece: piece, range(20_000), take, fixed(workers))
    assert results == list(range(20_000))


def test_no_pieces_give_no_results():
    assert results_of(str, [], fixed(3)) == []


def test_pieces_are_taken_only_as_fast_as_results_are_used():
    taken = itertools.count()
    ahead: list[int] = []

    def take(result: str) -> None:
        if int(result) < 5:
            time.sleep(0.1)
            ahead.append(next(taken))

    in_order(str, ((next(taken), i)[1] for i in range(1000)), take, fixed(2))
    assert max(ahead) < 100


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

    assert results_of(work, range(20), fixed(2)) == list(range(20))
    assert done.index(0) >= 10


def test_an_error_comes_in_its_turn_and_ends_the_work():
    begun: list[int] = []
    results: list[int] = []

    def work(piece: int) -> int:
        begun.append(piece)
        if piece == 3:
            raise KeyError("three")
        if piece < 3:
            time.sleep(0.05)  # the error is there before they are
        return piece

    with pytest.raises(KeyError, match="three"):
        in_order(work, range(10_000), results.append, fixed(4))
    assert results == [0, 1, 2]
    assert len(begun) < 1000


def test_an_error_in_taking_a_result_ends_the_work():
    begun: list[int] = []
    results: list[int] = []

    def take(result: int) -> None:
        if result == 3:
            raise KeyError("three")
        results.append(result)

    with pytest.raises(KeyError, match="three"):
        in_order(lambda piece: (begun.append(piece), piece)[1], range(10_000), take, fixed(2))
    assert results == [0, 1, 2]
    assert len(begun) < 1000


def test_an_error_in_making_pieces_comes_after_the_results_of_those_before():
    def pieces():
        yield from range(3)
        raise KeyError("no more")

    results: list[int] = []
    with pytest.raises(KeyError, match="no more"):
        in_order(lambda piece: piece, pieces(), results.append, fixed(2))
    assert results == [0, 1, 2]


def test_an_error_in_adding_a_thread_ends_the_work(monkeypatch):
    class Tuner(WorkerTuner):
        def done(self, pieces: int = 1) -> None:  # noqa: ARG002
            self.workers = 3
            monkeypatch.setattr(threading.Thread, "start", refuse)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.raises(ResourceError, match="no more than 2 threads for its work; use"):
        in_order(lambda piece: piece, range(10**9), lambda _: None, Tuner(2, 3, cpus=1))


def test_leaving_does_not_wait_for_a_piece_that_hangs():
    hanging, ended = threading.Event(), threading.Event()

    def work(piece: int) -> int:
        if piece == 1:
            hanging.wait(DEADLINE)
            ended.set()
        if piece == 2:
            raise KeyError("two")
        return piece

    def take(result: int) -> None:
        raise KeyError("zero")

    with pytest.raises(KeyError, match="zero"):
        in_order(work, range(9), take, fixed(2))
    assert not ended.is_set()
    hanging.set()


@pytest.mark.usefixtures("interruptible")
def test_nothing_is_taken_after_an_interruption():
    """A signal comes in the main thread, wherever the others are."""
    program = textwrap.dedent("""
        import os, signal, time
        from hgdeploy.system.parallel import WorkerTuner, in_order

        taken = []
        def take(result):
            taken.append(None)
            time.sleep(0.001)
            taken[-1] = result
            if result == 50:
                os.kill(os.getpid(), signal.SIGINT)
        try:
            in_order(lambda piece: piece, range(10**9), take, WorkerTuner(4, 4, 1))
        except KeyboardInterrupt:
            then = len(taken)
            time.sleep(0.3)
            print(taken == list(range(then)), 50 < then < 10_000)
    """)
    told = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, timeout=DEADLINE, check=True,
    )  # fmt: skip
    assert told.stdout == "True True\n", told


class Clock:
    """A clock that moves by what one piece takes with so many threads, on two CPUs."""

    def __init__(self, rate_of, busy: float = 0.5) -> None:
        self.rate_of, self.busy, self.now = rate_of, busy, 0.0

    def workers_of(self, least: int, most: int) -> int:
        tuner = WorkerTuner(least, most, 2, lambda: self.now, lambda: 2 * self.busy * self.now)
        for _ in range(3000):
            self.now += 1 / self.rate_of(tuner.workers)
            tuner.done()
        return tuner.workers


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
    assert Clock(rate_of).workers_of(2, 8) == expected


@pytest.mark.parametrize(("busy", "expected"), [(0.5, 8), (0.97, 2)])
def test_no_thread_is_added_where_none_waits_for_anything_but_cpus(busy, expected):
    assert Clock(lambda workers: 100.0 * workers, busy).workers_of(2, 8) == expected


def test_waiting_for_files_is_answered_by_more_threads():
    tuner = WorkerTuner(1, 4, cpus=1)
    assert len(results_of(lambda _: time.sleep(0.02), range(400), tuner)) == 400
    assert tuner.workers > 1
