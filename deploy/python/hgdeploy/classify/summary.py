# SPDX-License-Identifier: Apache-2.0
"""The account of a run: found, classified, failed, and the time."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from hgdeploy.classify.settings import STAGES, StageTimes
from hgdeploy.errors import EXIT_OK, EXIT_SOME_IMAGES_FAILED
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.prediction import Prediction, printable

_SHOWN = 5
_NUMBERS = re.compile(r"\d+")


@dataclass
class Summary:
    """The account of a run; found = classified + failed once it is over.

    Attributes:
        found: images that the inputs named.
        classified: images with a prediction.
        failed: images with a reason instead.
        seconds: wall time of the run, without loading the model.
        reasons: how many images failed for each reason, with every number replaced by N.
        earlier: how many of the classified and failed images were done in an earlier run.
        times: where the time went, summed over threads.
        workers: how many threads there were at the end.
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
        """Count the `done` images of an earlier run, of which `failed` failed."""
        self.earlier = done
        self.classified += done - failed
        self.failed += failed

    @property
    def done(self) -> int:
        """Images that are classified or failed."""
        return self.classified + self.failed

    @property
    def exit_code(self) -> int:
        """The exit code of a command after this run."""
        return EXIT_SOME_IMAGES_FAILED if self.failed else EXIT_OK

    def text(self) -> str:
        """Return the account as one line."""
        done = self.done - self.earlier
        rate = done / self.seconds if self.seconds > 0 else 0.0
        earlier = f" ({self.earlier} of them earlier)" if self.earlier else ""
        return (
            f"found {self.found} = classified {self.classified} + failed {self.failed}{earlier}, "
            f"{self.seconds:.1f} s, {rate:.1f} images/s"
        )

    def details(self) -> list[str]:
        """Return lines about why images failed, where the time went, and the slowest files."""
        lines = [
            f"failed: {count} x {reason}" for reason, count in self.reasons.most_common(_SHOWN)
        ]
        rest = len(self.reasons) - _SHOWN
        if rest > 0:
            lines.append(f"failed: {rest} more kinds of reasons")
        shares = self.shares()
        if shares:
            stages = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
            lines.append(f"time of {self.workers} threads: {stages}")
        slowest = ", ".join(
            f"{printable(name)} {1000 * seconds:.0f} ms" for seconds, name in self.times.slowest
        )
        if slowest:
            lines.append(f"slowest to read: {slowest}")
        return lines

    def shares(self) -> dict[str, float]:
        """Return each stage's share, 0 to 1, of the time that all stages took."""
        seconds = {name: getattr(self.times, name) for name in STAGES}
        total = sum(seconds.values())
        return {name: value / total for name, value in seconds.items()} if total else {}


def count_prediction(summary: Summary, prediction: Prediction, on_warning: OnLine) -> None:
    """Count a prediction in `summary`; if it failed, pass the reason to `on_warning`."""
    if prediction.error is None:
        summary.classified += 1
    else:
        summary.failed += 1
        summary.reasons[_NUMBERS.sub("N", prediction.error)] += 1
        on_warning(f"{printable(prediction.path)}: {prediction.error}")
