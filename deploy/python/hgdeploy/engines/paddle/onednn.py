# SPDX-License-Identifier: Apache-2.0
"""Whether oneDNN computes a program as Paddle does without it: tried once, and kept.

oneDNN is Paddle's fast path on a CPU, and Paddle 3.3.1 cannot run some programs in it and computes
others wrongly: ConvNeXt's normalisation is off by 1.0 of a probability, without a word. So before a
program is run in oneDNN for the first time, a process of its own answers the same test images with
and without it. What was found is kept in the user's cache, under the digest of program and
parameters, Paddle's version and the CPU.

The rule: oneDNN is off for a program that fails in it, or whose answers differ by more than 1 % of
the largest number in the answer, or in its logarithm where it is a softmax. Rounding in fp32 is
1e-5 to 1e-3 of that where a network is random and deep, and less where it is trained; the faults
that were met are 0.1 to 1. A program for which bf16 is asked is judged in fp32 as well, because
bf16 alone would differ by that much.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.model_files import model_digest
from hgdeploy.engines.base import Tensors
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.engines.paddle.trial_inputs import trial_feeds
from hgdeploy.engines.processes import MODULE, load_request, specs_of
from hgdeploy.errors import EngineError, HGDeployError, OutputError, ResourceError
from hgdeploy.system.documents import read_json
from hgdeploy.system.files import user_cache, write_text, writing
from hgdeploy.system.libraries import installed_version
from hgdeploy.system.machine import cpu_flags, cpu_model
from hgdeploy.system.messages import Message
from hgdeploy.system.processes import ChildError, ChildProcess, ChildTimeoutError

_MOST_DIFFERENCE = 0.01
# What is smaller counts as this: Paddle's own softmax stops at exp(-64), oneDNN's at 0.
_LEAST_PROBABILITY = 1e-20
# Another number makes what was kept by an older rule be found again.
_RULE = 1
_RIGHT, _WRONG, _FAILS, _UNKNOWN = "right", "wrong", "fails", "unknown"
# For loading, and for each test input. What takes longer is not judged.
_MOST_SECONDS = 120.0
# What Paddle and C++ say where memory is short: no reason to leave oneDNN off for good.
_MEMORY_WORDS = ("bad_alloc", "MemoryError", "ResourceExhausted", "out of memory")


class Verdict(NamedTuple):
    """What was found.

    Attributes:
        kind: `right`, `wrong`, `fails` (cannot be run in oneDNN) or `unknown` (cannot be judged).
        detail: the figures or the error; empty where it is right.
    """

    kind: str
    detail: str = ""


class Decision(NamedTuple):
    """With which options to load a program.

    Attributes:
        options: those that were asked for, with oneDNN on or off.
        warnings: what the user should know, one line each.
        seconds: how long it took to decide.
    """

    options: EngineOptions
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


_found: dict[str, Verdict] = {}


def decide_onednn(source: Path, options: EngineOptions) -> Decision:
    """Decide whether a program is run in oneDNN.

    Args:
        source: the program, with its parameters beside it.
        options: with `PaddleOptions.onednn` None, oneDNN is on unless it is wrong or fails.

    Raises:
        EngineError: it is wrong or fails, and was asked for, by itself or as bf16.
        BundleError: a file cannot be read.
    """
    own = options.own_of(PaddleOptions)
    if options.device != "cpu" or options.precision not in ("fp32", "bf16") or own.tensorrt:
        return Decision(options)
    if own.onednn is False:
        return Decision(options)
    start = time.perf_counter()
    verdict = _verdict(source, options)
    seconds = time.perf_counter() - start
    if verdict.kind == _RIGHT:
        return Decision(_with_onednn(options, True), (), seconds)
    if verdict.kind == _UNKNOWN:
        warning = (
            f"whether oneDNN computes {source} rightly cannot be checked ({verdict.detail}); it is "
            "on, and --onednn off (Global.enable_mkldnn=False) turns it off"
        )
        return Decision(_with_onednn(options, True), (warning,), seconds)
    does = "computes %s wrongly" if verdict.kind == _WRONG else "cannot run %s"
    fault = f"oneDNN {does % source} ({verdict.detail})"
    if options.precision == "bf16":
        raise EngineError(f"bf16 on a CPU needs oneDNN, and {fault}; use fp32, or another engine")
    if own.onednn:
        raise EngineError(
            f"{fault}, and it was asked for: leave out --onednn on (-o Global.enable_mkldnn=True), "
            "or use another engine"
        )
    warning = (
        f"{fault}, so it is off for this model, as with --onednn off (Global.enable_mkldnn=False)"
    )
    return Decision(_with_onednn(options, False), (warning,), seconds)


def _with_onednn(options: EngineOptions, on: bool) -> EngineOptions:
    own = dataclasses.replace(options.own_of(PaddleOptions), onednn=on)
    others = (each for each in options.own if not isinstance(each, PaddleOptions))
    return dataclasses.replace(options, own=(own, *others))


def _verdict(source: Path, options: EngineOptions) -> Verdict:
    """Return what is known of a program, in this process or in the cache, or try it."""
    version = installed_version("paddlepaddle", "paddlepaddle-gpu")
    cpu = cpu_model(), sorted(cpu_flags())
    facts = _RULE, model_digest(source), version, cpu, options.graph_optimization
    key = hashlib.sha256(repr(facts).encode()).hexdigest()
    cache = user_cache()
    kept = None if cache is None else cache / "onednn" / f"{key}.json"
    verdict = _found.get(key) or (None if kept is None else _read(kept))
    if verdict is None:
        verdict = _tried(source, options)
        if verdict.kind == _UNKNOWN:
            return verdict  # another time, or at another size, it may be known
        if kept is not None:
            _keep(kept, verdict, source)
    _found[key] = verdict
    return verdict


def _read(kept: Path) -> Verdict | None:
    """Return the verdict in a file; None where there is none that can be read."""
    try:
        content = read_json(kept)
        kind, detail = content["onednn"], content["detail"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    known = kind in (_RIGHT, _WRONG, _FAILS) and isinstance(detail, str)
    return Verdict(kind, detail.partition("\n")[0]) if known else None


def _keep(kept: Path, verdict: Verdict, source: Path) -> None:
    """Keep a verdict; where the cache cannot be written, the next process tries again."""
    content = {"onednn": verdict.kind, "detail": verdict.detail, "program": source.name}
    try:
        with writing(kept):
            kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, json.dumps(content) + "\n")
    except OutputError:
        return


def _tried(source: Path, options: EngineOptions) -> Verdict:
    """Run a program without and with oneDNN, in a process that may crash, and compare."""
    try:
        child = ChildProcess(MODULE, quiet=True)
    except HGDeployError as error:
        return Verdict(_UNKNOWN, str(error))
    with child:
        try:
            plain = list(_answers(child, source, options, onednn=False))
        except (HGDeployError, ChildError) as error:
            return Verdict(_UNKNOWN, f"without oneDNN: {_told(error)}")
        answers = _answers(child, source, options, onednn=True)
        try:
            found = list(itertools.islice(answers, len(plain)))
        except (HGDeployError, ChildError) as error:
            return Verdict(_UNKNOWN if _may_pass(error) else _FAILS, _told(error))
    difference = _difference(plain, found)
    if difference <= _MOST_DIFFERENCE:
        return Verdict(_RIGHT)
    if np.isinf(difference):
        return Verdict(_WRONG, "its answers to test images have another shape, or are not finite")
    return Verdict(_WRONG, f"its answers to test images are off by {difference:.0%}")


def _told(error: Exception) -> str:
    """Return an error without its place in Paddle's own sources."""
    if isinstance(error, ChildError):
        return f"its process {error}"
    return str(error).partition(" (at ")[0].strip()


def _may_pass(error: Exception) -> bool:
    """Tell whether an error is not the program's: time or memory was short."""
    if isinstance(error, ChildTimeoutError | ResourceError):
        return True
    killed = isinstance(error, ChildError) and error.how == "SIGKILL"
    return killed or any(word in str(error) for word in _MEMORY_WORDS)


def _answers(
    child: ChildProcess, source: Path, options: EngineOptions, *, onednn: bool
) -> Iterator[Tensors]:
    """Load a program and yield its answers; in fp32, whatever the precision.

    Without oneDNN they end at a batch that the program cannot take.
    """
    tried = dataclasses.replace(
        _with_onednn(options, onednn),
        precision="fp32",
        threads=options.cpu_threads * options.streams,
        profile=False,
    )
    loaded = child.ask(load_request("paddle", source, tried), _MOST_SECONDS)
    inputs, _ = specs_of(loaded)
    for number, feeds in enumerate(trial_feeds(inputs, source)):
        try:
            yield child.ask(Message({"do": "infer"}, feeds), _MOST_SECONDS).arrays
        except HGDeployError:
            if onednn or number == 0:
                raise
            return


def _difference(plain: Sequence[Tensors], found: Sequence[Tensors]) -> float:
    """Return the largest difference, as a part of the largest number in the same output.

    Class numbers that come with scores are not compared: two scores that are nearly equal may
    change places. Numbers that are not finite without oneDNN are nobody's answer.
    """
    worst = 0.0
    names = [name for name, value in plain[0].items() if value.dtype.kind == "f"]
    for name in names or list(plain[0]):
        pairs = [(a[name], b[name]) for a, b in zip(plain, found, strict=True)]
        worst = max([worst, *(_relative(a, b) for a, b in pairs)])
    return worst


def _relative(plain: NDArray[Any], found: NDArray[Any]) -> float:
    if plain.shape != found.shape:
        return float("inf")
    a, b = plain.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(a)
    if not finite.any():
        return 0.0
    difference = _gap(a[finite], b[finite], float(np.finfo(np.float32).tiny))
    if difference <= _MOST_DIFFERENCE and _is_softmax(a):
        # A saturated answer is 0 and 1 whatever the scores behind it are; its logarithm is not.
        logs = [np.log(np.maximum(each, _LEAST_PROBABILITY)) for each in (a, b)]
        difference = _gap(logs[0], logs[1], 1.0)
    return difference


def _gap(a: NDArray[np.float64], b: NDArray[np.float64], least: float) -> float:
    """Return the largest difference as a part of the largest number in `a`, or of `least`."""
    gaps = np.nan_to_num(np.abs(a - b), nan=np.inf)
    return float(gaps.max() / max(float(np.abs(a).max()), least))


def _is_softmax(a: NDArray[np.float64]) -> bool:
    rows = a.reshape(a.shape[: max(1, np.flatnonzero(np.array(a.shape) > 1).max(initial=0) + 1)])
    return bool(a.min() >= 0 and np.allclose(rows.sum(axis=-1), 1, atol=1e-3))
