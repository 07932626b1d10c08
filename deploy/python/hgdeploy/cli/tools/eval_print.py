# SPDX-License-Identifier: Apache-2.0
"""What `hgdeploy eval` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from hgdeploy.cli.terminal import aligned, warn
from hgdeploy.transforms.prediction import printable

if TYPE_CHECKING:
    from hgdeploy.cli.tools.eval_plan import EvalPlan
    from hgdeploy.validation.evaluation.outcome import Outcome

_SHOWN = 20  # classes, those that are recognised least; and images whose answer changes


def print_outcome(
    out: TextIO,
    plan: EvalPlan,
    outcome: Outcome,
    reference: Outcome | None,
    *,
    as_paddleclas: bool,
) -> None:
    """Print the figures with their intervals, and the classes that are recognised least.

    Args:
        out: stdout.
        plan: what was measured.
        outcome: the run.
        reference: the run of `--against`.
        as_paddleclas: print PaddleClas's own line first.
    """
    from hgdeploy.paddleclas.answers import write_logged
    from hgdeploy.validation.evaluation import Evaluation

    evaluation = outcome.evaluation
    if as_paddleclas:
        write_logged(out, evaluation.paddleclas_line() + "\n")
    ran = "" if as_paddleclas else f" with {outcome.run}"
    out.write(f"{len(outcome.judged)} images{ran}, with 95 % intervals:\n")
    if isinstance(evaluation, Evaluation):
        out.write(aligned([(f"top-{k}", str(evaluation.accuracy(k))) for k in evaluation.topk]))
        _print_calibration(out, outcome)
    else:
        if not as_paddleclas:  # whose line has them
            named = evaluation.figures().items()
            out.write(aligned([(name, f"{value:.5f}") for name, value in named]))
        shares = [(name, str(share)) for name, share in evaluation.shares.items()]
        out.write(aligned([*shares, ("all labels right", str(outcome.right))]))
    if reference is not None:
        _print_paired(out, plan, outcome, reference)
    figures = sorted(evaluation.per_class, key=lambda each: (each.recall.value, each.index))
    rows = [("class", "images", "recall", "precision", "name")]
    for each in figures[:_SHOWN]:
        cells = (str(each.index), str(each.recall.images), str(each.recall), str(each.precision))
        rows.append((*cells, plan.names.get(each.index, "")))
    shown = f"{min(_SHOWN, len(figures))} of {len(figures)} classes, the least recognised first"
    out.write(f"\n{shown}:\n{aligned(rows)}")


def _print_calibration(out: TextIO, outcome: Outcome) -> None:
    found = outcome.calibration()
    if found is None:
        warn(
            "the scores are no probabilities, so there is no calibration error; --softmax makes "
            "probabilities of logits"
        )
    else:
        out.write(f"calibration error  {found}\n")


def _print_paired(out: TextIO, plan: EvalPlan, outcome: Outcome, reference: Outcome) -> None:
    from hgdeploy.validation.evaluation import changes, paired

    found = paired(outcome.judged, reference.judged)
    low, high = found.interval
    rows = [
        ("its accuracy", str(reference.right)),
        ("same answers", str(found.same)),
        ("right no longer", f"{found.lost} images"),
        ("right only now", f"{found.gained} images"),
        ("difference", f"{found.difference:+.2%} ({low:+.2%} to {high:+.2%})"),
        ("McNemar's test", f"p = {found.p_value:.2g}"),
    ]
    out.write(f"\nagainst {reference.run}, on {found.images} images:\n{aligned(rows)}")
    moved = [(n, how) for n, how in changes(outcome.judged, reference.judged).items() if how]
    if not moved:
        return
    table = [("image", "label", reference.run, outcome.run, "")]
    for number, how in moved[:_SHOWN]:
        before, now = (text_of(run.judged[number].answer) for run in (reference, outcome))
        name = printable(plan.files[number].name)
        table.append((name, text_of(label_of(plan, number)), before, now, how))
    out.write(
        f"\n{min(_SHOWN, len(moved))} of {len(moved)} images whose answer changes:\n"
        f"{aligned(table)}"
    )


def label_of(plan: EvalPlan, number: int) -> tuple[int, ...]:
    """Return the class of an image, or the labels that it is known to have."""
    label = plan.labels[number]
    if not plan.several:
        return (int(label),)
    return tuple(index for index, known in enumerate(label) if known == 1)


def text_of(classes: Sequence[int]) -> str:
    """Return classes as they stand in a table."""
    return " ".join(map(str, classes)) or "none"
