# SPDX-License-Identifier: Apache-2.0
"""Measure models, engines and precisions, each case in a process of its own.

`run_suite` measures a `Suite` into a `Record`, which keeps the results file; `load_results` reads
that again; `summarize`, `compare_samples` and `advise` say what samples mean.
"""

from __future__ import annotations

from hgdeploy.benchmark.case import Case, Settings, Suite, load_suite
from hgdeploy.benchmark.machine import describe_environment
from hgdeploy.benchmark.record import Record
from hgdeploy.benchmark.result_file import SCHEMA, Head, ResultFile, load_results
from hgdeploy.benchmark.row import Row
from hgdeploy.benchmark.stats import (
    Ratio,
    Stats,
    advise,
    compare_samples,
    split_rounds,
    summarize,
)
from hgdeploy.benchmark.suite import Runner, run_suite

__all__ = [
    "SCHEMA",
    "Case",
    "Head",
    "Ratio",
    "Record",
    "ResultFile",
    "Row",
    "Runner",
    "Settings",
    "Stats",
    "Suite",
    "advise",
    "compare_samples",
    "describe_environment",
    "load_results",
    "load_suite",
    "run_suite",
    "split_rounds",
    "summarize",
]
