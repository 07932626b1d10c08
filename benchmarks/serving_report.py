# SPDX-License-Identifier: Apache-2.0
"""The tables of `serving.py`, from nothing but its results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from serving_rounds import OVERLOAD

from hgdeploy.benchmark.stats import Ratio, compare_samples


def ratio_of(found: dict[str, Any], case: str, reference: str) -> Ratio | None:
    """Return how many times as many images a second a case answers as another; None without it."""
    cases = found["cases"]
    if case not in cases or reference not in cases:
        return None
    sides = [
        [[1 / max(rate_of(run), 1e-9)] for run in cases[name]["runs"]] for name in (reference, case)
    ]
    return compare_samples(*sides)


def rate_of(run: dict[str, Any]) -> float:
    """Return the images a second of a run."""
    return float(run["per_s"] if "per_s" in run else run["images"] / run["seconds"])


def cpu_share(found: dict[str, Any], case: str) -> float:
    """Return the folder's CPU time of an image by a case's, with the load generator's in it.

    Where all CPUs are busy it is the ratio of the rates, but other programs disturb it less.
    """

    def of(run: dict[str, Any]) -> float:
        count = run["right"] if "right" in run else run["images"]
        return float(run["cpu_seconds"] + run.get("server_cpu_seconds", 0.0)) / max(int(count), 1)

    sides = (found["cases"][name]["runs"] for name in ("folder", case))
    folder, other = (float(np.median([of(run) for run in runs])) for runs in sides)
    return float(folder / max(other, 1e-9))


def capacity_of(found: dict[str, Any]) -> str:
    """Return the closed loop that answers the most."""
    closed: list[str] = [name for name in found["cases"] if name.startswith("closed")]
    return max(closed, key=lambda one: _rate(found, one), default="")


def _rate(found: dict[str, Any], case: str) -> float:
    return float(np.median([rate_of(run) for run in found["cases"][case]["runs"]]))


def lines_of(documents: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the results of some runs as text: one table, and what it says."""
    head = ("model", "case", "answers/s", "of the folder's", "by CPU time", "median ms", "p99 ms",
            "refused", "wrong or lost", "load generator")  # fmt: skip
    yield f"| {' | '.join(head)} |"
    yield f"|---|---|{'---:|' * (len(head) - 2)}"
    for document in documents:
        for found in document["models"]:
            for case, kept in found["cases"].items():
                yield _table_row(found, case, kept, document["environment"]["cpus"])
    yield ""
    for document in documents:
        for found in document["models"]:
            yield from _verdicts(found)


def _title(found: dict[str, Any]) -> str:
    return f"{found['model']}, {found['engine']} {found['precision']}"


def _table_row(found: dict[str, Any], case: str, kept: dict[str, Any], cpus: int) -> str:
    runs, latency, cells = kept["runs"], kept["latency"], [_title(found), case]
    if case.startswith("predict"):
        cells += ["", "", "", f"{latency['p50_ms']:.1f}", f"{latency['p99_ms']:.1f}", "", "", ""]
        return f"| {' | '.join(cells)} |"
    cells.append(f"{_rate(found, case):.1f}")
    if case == "folder":
        return f"| {' | '.join([*cells, *[''] * 7])} |"
    share = ratio_of(found, case, "folder")
    of_capacity = case.startswith(("closed", "protocol", "triton"))
    cells.append(f"{100 * share.ratio:.0f} %" if share is not None and of_capacity else "")
    cells.append(f"{100 * cpu_share(found, case):.0f} %" if of_capacity else "")
    cells += [f"{latency[key]:.1f}" if latency else "" for key in ("p50_ms", "p99_ms")]
    sums = {key: sum(run[key] for run in runs) for key in ("refused", "wrong", "lost")}
    cells += [str(sums["refused"]), str(sums["wrong"] + sums["lost"])]
    used = sum(run["cpu_seconds"] for run in runs) / sum(run["seconds"] for run in runs)
    return f"| {' | '.join([*cells, f'{100 * used / cpus:.1f} %'])} |"


def _verdicts(found: dict[str, Any]) -> Iterator[str]:
    """Yield what the figures say of a model, one line for each aim."""
    name, cases = _title(found), found["cases"]
    if cases:
        best = capacity_of(found)
        for case, reference, words in (
            (best, "folder", "of the folder's pipeline"),
            (f"open {OVERLOAD} %", best, "of the capacity"),
            *(("protocol", one, f"of {one}") for one in cases if one.startswith("triton")),
        ):
            times = ratio_of(found, case, reference)
            if times is not None:
                low, high = 100 * times.low, 100 * times.high
                share = f"{100 * times.ratio:.1f} % ({low:.1f} to {high:.1f})"
                yield f"- {name}, {case}: {share} {words}"
        for case, reference in (
            ("closed 1", "predict"),
            ("one stream, closed 1", "predict, all CPUs"),
        ):
            if case in cases and reference in cases:
                added = cases[case]["latency"]["p50_ms"] - cases[reference]["latency"]["p50_ms"]
                yield f"- {name}, {case}: the median is {added:.2f} ms above that of {reference}"
    if "poison" in found:
        kept = found["poison"]
        memory = [sample["memory_mb"] for sample in kept["samples"]]
        yield (
            f"- {name}, 1 % poison for {sum(one['seconds'] for one in kept['samples']):.0f} s: "
            f"{kept['sent']} requests, {kept['wrong']} wrong, {kept['lost']} lost, "
            f"{memory[0]:.0f} MiB at first, {memory[-1]:.0f} at the end, {max(memory):.0f} at most"
        )
