# SPDX-License-Identifier: Apache-2.0
"""The cases of `serving.py`, which take turns, and the long run with files that are no images."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from serving_cases import Expected, Server
from serving_load import Load, Result
from serving_local import Local

from hgdeploy.errors import HGDeployError
from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import list_of, number, whole
from hgdeploy.system.messages import Message
from hgdeploy.system.processes import ChildError, ChildProcess

# Clients of a closed loop that keep every CPU busy.
MANY = 16
# Percent of the capacity, when more is asked than the server can answer.
OVERLOAD = 300
# How often memory is read while poison is served, in seconds.
_SAMPLE_SECONDS = 10.0

Turn = Callable[[], tuple[dict[str, Any], list[float]]]
"""Runs a case once; returns what is kept of it, and the milliseconds of its requests."""


@dataclass(frozen=True)
class Plan:
    """What is measured of each model.

    Attributes:
        rounds: how often all cases take turns.
        seconds: how long a case lasts each time.
        photos: images of a folder.
        clients: of the closed loops.
        loads: percent of the capacity in the open loops.
        poison_seconds: how long 1 % of the images are none; 0 to leave that out.
        single: measure single calls, for which a second engine and a second server are loaded.
    """

    rounds: int = 6
    seconds: float = 3.0
    photos: int = 400
    clients: Sequence[int] = (1, 4, MANY, 64)
    loads: Sequence[int] = (50, 80, 95, OVERLOAD)
    poison_seconds: float = 0.0
    single: bool = True

    def __post_init__(self) -> None:
        check_fields(
            self,
            rounds=whole(0, 1000),
            seconds=number(above=0, most=60),
            photos=whole(1, 100_000),
            clients=list_of(whole(1, 512), 1),
            loads=list_of(whole(1, 1000)),
            poison_seconds=number(0, 36_000),
        )


QUICK = Plan(1, 0.2, 8, (1, 4), (80, OVERLOAD), 0.2, single=False)


def say(text: str) -> None:
    """Show how far it is."""
    print(text, file=sys.stderr, flush=True)


class LocalProcess:
    """The parent's side of the process of what is done without a server."""

    def __init__(self, case: Local) -> None:
        self._child = ChildProcess("serving_local", quiet=True)
        try:
            self.runtime = self.ask("load", case=dataclasses.asdict(case))
        except BaseException:
            self.close()
            raise

    def ask(self, what: str, **values: Any) -> dict[str, Any]:
        """Send a request, and return its answer."""
        try:
            return dict(self._child.ask(Message({"do": what, **values})).values)
        except ChildError as error:
            raise SystemExit(f"the process of the folder {error}") from None
        except HGDeployError as error:
            raise SystemExit(str(error)) from None

    def close(self) -> None:
        """End the process."""
        self._child.close()


class Rounds:
    """All cases of one model, which take turns.

    Args:
        plan: what is measured.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._turns: dict[str, Turn] = {}
        self._rates: list[float] = []

    def add_local(self, local: LocalProcess, images: int) -> None:
        """Add the folder's pipeline and, if the plan has them, single calls with some images."""
        self._turns["folder"] = lambda: (local.ask("folder"), [])
        if not self._plan.single:
            return
        ask = {"seconds": self._plan.seconds / 3, "images": images}
        for name, all_cpus in (("predict", False), ("predict, all CPUs", True)):

            def turn(all_cpus: bool = all_cpus) -> tuple[dict[str, Any], list[float]]:
                return {}, local.ask("predict", all_cpus=all_cpus, **ask)["ms"]

            self._turns[name] = turn

    def add_loops(self, server: Server, load: Load) -> None:
        """Add the closed and open loops of the plan."""
        for clients in self._plan.clients:
            self.add_closed(f"closed {clients}", server, load, clients)
        for percent in self._plan.loads:
            self._add_open(f"open {percent} %", server, load, percent / 100)

    def add_closed(self, name: str, server: Server, load: Load, clients: int = MANY) -> None:
        """Add a closed loop."""

        def turn() -> tuple[dict[str, Any], list[float]]:
            found, times = _row(server, lambda: load.closed(clients, self._plan.seconds))
            if name.startswith("closed"):
                self._rates.append(found["per_s"])
            return found, times

        self._turns[name] = turn

    def _add_open(self, name: str, server: Server, load: Load, share: float) -> None:
        seeds = iter(range(1_000_000))

        def turn() -> tuple[dict[str, Any], list[float]]:
            # The capacity is what the server has reached in this round's closed loops.
            rate = share * max(self._rates[-len(self._plan.clients) :])
            run, seed = self._plan.seconds, next(seeds)
            found, times = _row(server, lambda: load.open(rate, run, seed))
            return {"asked_per_s": round(rate, 3), **found}, times

        self._turns[name] = turn

    def run(self) -> dict[str, Any]:
        """Let all cases take turns, after one turn of each that does not count.

        Returns:
            By case: `runs`, one for each round, and `latency`, of all rounds together.
        """
        cases: dict[str, Any] = {name: {"runs": []} for name in self._turns}
        latencies: dict[str, list[float]] = {name: [] for name in self._turns}
        if self._plan.rounds > 1:
            for turn in self._turns.values():
                turn()
        for turns in range(self._plan.rounds):
            for name, turn in self._turns.items():
                found, times = turn()
                cases[name]["runs"].append({**found, **_percentiles(times)})
                latencies[name] += times
            say(f"round {turns + 1} of {self._plan.rounds}")
        for name, times in latencies.items():
            cases[name]["latency"] = _percentiles(times)
        return cases


def poisoned(
    server: Server, requests: list[bytes], images: int, expected: Expected, plan: Plan
) -> dict[str, Any]:
    """Ask at capacity for long, where 1 % of the files are no images.

    Args:
        server: the server.
        requests: those with images, then those without.
        images: how many have one.
        expected: the right answers.
        plan: has the time.

    Returns:
        The requests of each kind, and a sample of memory and rate every few seconds.
    """
    bad = len(requests) - images
    order = [images + i // 100 % bad if i % 100 == 0 else i % images for i in range(100 * bad)]

    def check(place: int, status: int, body: bytes) -> bool:
        return expected.of_predict(order[place], status, body)

    samples: list[dict[str, Any]] = []
    load = Load(server.port, [requests[one] for one in order], check)
    try:
        while plan.poison_seconds > (done := sum(one["seconds"] for one in samples)):
            seconds = min(_SAMPLE_SECONDS, plan.poison_seconds - done)
            found, _ = _row(server, functools.partial(load.closed, MANY, seconds))
            samples.append({**found, "memory_mb": round(server.memory_mb(), 1)})
            say(
                f"1 % poison, {done + found['seconds']:.0f} s: {found['per_s']:.1f}/s, "
                f"{found['wrong']} wrong, {found['lost']} lost, {samples[-1]['memory_mb']} MiB"
            )
    finally:
        load.close()
    sums = {key: sum(one[key] for one in samples) for key in ("sent", "right", "wrong", "lost")}
    return {"clients": MANY, "share": 0.01, **sums, "samples": samples}


def _row(server: Server, run: Callable[[], Result]) -> tuple[dict[str, Any], list[float]]:
    """Run a load; return what is kept of it, and the milliseconds of its requests."""
    before = server.cpu_seconds()
    result = run()
    spent = server.cpu_seconds() - before
    found = {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(result).items()
        if name != "latencies_ms"
    }
    found["server_cpu_seconds"] = round(spent, 2)
    found["per_s"] = round(result.right / max(result.seconds, 1e-9), 3)
    return found, result.latencies_ms


def _percentiles(times: list[float]) -> dict[str, Any]:
    if not times:
        return {}
    p50, p90, p99 = (round(float(one), 3) for one in np.percentile(times, (50, 90, 99)))
    return {
        "n": len(times), "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "max_ms": round(max(times), 3)
    }  # fmt: skip
