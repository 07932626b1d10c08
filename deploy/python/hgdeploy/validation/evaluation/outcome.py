# SPDX-License-Identifier: Apache-2.0
"""What one run gave on labelled images, and the same as plain data for JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hgdeploy.engines import RuntimeInfo
from hgdeploy.engines.run import Run
from hgdeploy.validation.evaluation.attributes import AttributeEvaluation
from hgdeploy.validation.evaluation.calibration import Calibration, calibration
from hgdeploy.validation.evaluation.classes import Evaluation
from hgdeploy.validation.evaluation.judged import Judged, Paired, confusion, paired
from hgdeploy.validation.evaluation.share import Share


@dataclass
class Outcome:
    """What one run gave.

    Attributes:
        runtime: what really ran.
        evaluation: the figures.
        judged: what each image was taken for, by its number in the list.
        failed: how many images could not be classified.
    """

    runtime: RuntimeInfo
    evaluation: Evaluation | AttributeEvaluation
    judged: dict[int, Judged] = field(default_factory=dict)
    failed: int = 0

    @property
    def run(self) -> str:
        """What ran, as `--against` would name it."""
        return Run(self.runtime.engine, self.runtime.precision, self.runtime.device).name

    @property
    def right(self) -> Share:
        """The share of images that are answered right."""
        return Share(sum(each.right for each in self.judged.values()), len(self.judged))

    def calibration(self) -> Calibration | None:
        """Measure it; None where the scores are no probabilities of one class."""
        if not isinstance(self.evaluation, Evaluation) or not self.evaluation.probabilities:
            return None
        return calibration(self.judged.values())


def evaluation_facts(
    outcome: Outcome,
    reference: Outcome | None,
    labels: Sequence[Any],
    names: Mapping[int, str],
) -> dict[str, Any]:
    """Return all figures of a run as plain data.

    Args:
        outcome: the run.
        reference: the run that it is compared with; None for none.
        labels: what each image shows.
        names: the classes' names by number, as far as they have one.
    """
    facts = {"schema": 1, **_facts(outcome, labels, names)}
    if reference is None:
        return facts
    found = _paired_facts(paired(outcome.judged, reference.judged))
    return {**facts, "against": {**_facts(reference, labels, names), "paired": found}}


def _paired_facts(found: Paired) -> dict[str, Any]:
    return {
        "same": _share(found.same),
        **{name: getattr(found, name) for name in ("both", "lost", "gained", "neither")},
        "difference": found.difference,
        "difference_interval": found.interval,
        "mcnemar_p": found.p_value,
    }


def _share(share: Share) -> dict[str, Any]:
    facts = {"hits": share.hits, "images": share.images, "share": share.value}
    return {**facts, "interval": share.interval}


def _facts(outcome: Outcome, labels: Sequence[Any], names: Mapping[int, str]) -> dict[str, Any]:
    evaluation = outcome.evaluation
    facts: dict[str, Any] = {
        "run": outcome.run,
        "runtime": dataclasses.asdict(outcome.runtime),
        "images": len(outcome.judged),
        "failed": outcome.failed,
        "right": _share(outcome.right),
    }
    facts["classes"] = [
        {
            "class": each.index,
            "name": names.get(each.index),
            "recall": _share(each.recall),
            "precision": _share(each.precision),
        }
        for each in evaluation.per_class
    ]
    if not isinstance(evaluation, Evaluation):
        facts["figures"] = evaluation.figures()
        facts["intervals"] = {name: each.interval for name, each in evaluation.shares.items()}
        return facts
    found = outcome.calibration()
    facts["topk"] = {str(k): _share(evaluation.accuracy(k)) for k in evaluation.topk}
    facts["calibration"] = None if found is None else dataclasses.asdict(found)
    pairs = confusion(labels, outcome.judged)
    facts["confusion"] = [[*pair, count] for pair, count in sorted(pairs.items())]
    return facts
