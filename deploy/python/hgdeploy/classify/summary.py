# SPDX-License-Identifier: Apache-2.0
"""The account of a run: found, classified, failed, and the time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from hgdeploy.classify.settings import STAGES, StageTimes
from hgdeploy.errors import EXIT_OK, EXIT_SOME_IMAGES_FAILED
from hgdeploy.transforms.prediction import Prediction, printable

_SHOWN = 5
_NUMBERS = re.compile(r"\d+")


@dataclass
class Summary:
    """The accounts of a run; found = classified + failed once it is over.

    Attributes:
        found: images the inputs named.
        classified: images with a prediction.
        failed: images with a reason instead.
        seconds: wall time of the run, without loading the model.
        reasons: failures by kind of reason, in which each number is an N.
        earlier: how many of the classified and failed images an earlier run did.
        times: where the time went, summed over threads.
        workers: threads at the end.
    """

    found: int
    classified: int = 0
    failed: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    earlier: int = 0
    times: StageTimes = field(default_factory=StageTimes)
    workers: int = 0

    def take_earlier(self, done: int, failed: int) -> None:
        """Count what an earlier run did: `done` images, of which `failed` failed."""
        self.earlier = done
        self.classified += done - failed
        self.failed += failed

    @property
    def done(self) -> int:
        """Images that are classified or failed."""
        return self.classified + self.failed

    @property
    def exit_code(self) -> int:
        """The code a command ends with after this run."""
        return EXIT_SOME_IMAGES_FAILED if self.failed else EXIT_OK

    def text(self) -> str:
        """Return the accounts on one line."""
        done = self.done - self.earlier
        rate = done / self.seconds if self.seconds > 0 else 0.0
        earlier = f" ({self.earlier} of them earlier)" if self.earlier else ""
        return (
            f"found {self.found} = classified {self.classified} + failed {self.failed}{earlier}, "
            f"{self.seconds:.1f} s, {rate:.1f} images/s"
        )

    def details(self) -> list[str]:
        """Return lines that tell why images failed, where the time went, and the slowest files."""
        lines = [
            f"failed: {count} x {reason}" for reason, count in self.reasons.most_common(_SHOWN)
        ]
        rest = len(self.reasons) - _SHOWN
        if rest > 0:
            lines.append(f"failed: {rest} more kinds of reasons")
        shares = self.shares()
        if shares:
            told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
            lines.append(f"time of {self.workers} threads: {told}")
        slowest = ", ".join(
            f"{printable(name)} {1000 * seconds:.0f} ms" for seconds, name in self.times.slowest
        )
        if slowest:
            lines.append(f"slowest to read: {slowest}")
        return lines

    def shares(self) -> dict[str, float]:
        """Return each stage's share, 0 to 1, of the time that all threads had."""
        seconds = {name: getattr(self.times, name) for name in STAGES}
        total = sum(seconds.values())
        return {name: value / total for name, value in seconds.items()} if total else {}


def account(summary: Summary, prediction: Prediction, report: Callable[[str], None]) -> None:
    """Count a prediction, and report why it failed if it did."""
    if prediction.error is None:
        summary.classified += 1
    else:
        summary.failed += 1
        summary.reasons[_NUMBERS.sub("N", prediction.error)] += 1
        report(f"{printable(prediction.path)}: {prediction.error}")
