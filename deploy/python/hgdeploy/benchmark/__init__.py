# SPDX-License-Identifier: Apache-2.0
"""Measure models, engines and precisions, each case in its own process.

`run_suite` measures a `Suite` into a `Record`, which keeps the results file; `load_results` reads
that file; `summarize`, `compare_samples` and `advise` say what the samples mean.
"""

from __future__ import annotations

from hgdeploy.benchmark.advice import advise
from hgdeploy.benchmark.case import Case, Settings, Suite
from hgdeploy.benchmark.case_result import CaseResult
from hgdeploy.benchmark.machine import describe_environment
from hgdeploy.benchmark.record import Record
from hgdeploy.benchmark.result_file import SCHEMA, Head, ResultFile, load_results
from hgdeploy.benchmark.stats import (
    Ratio,
    Stats,
    compare_samples,
    split_rounds,
    summarize,
)
from hgdeploy.benchmark.suite import Runner, run_suite
from hgdeploy.benchmark.suite_file import load_suite

__all__ = [
    "SCHEMA",
    "Case",
    "CaseResult",
    "Head",
    "Ratio",
    "Record",
    "ResultFile",
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
