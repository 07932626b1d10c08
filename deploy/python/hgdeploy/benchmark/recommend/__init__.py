# SPDX-License-Identifier: Apache-2.0
"""Find the fastest way to run a bundle on this machine that still gives the right answers.

`ways` says what is wanted and what was found; `agreeing` keeps what loads and agrees with fp32;
`measuring` measures that within a time budget; `tuning` makes what the bundle lacks first, and
saves the best for the engine `auto`.
"""

from __future__ import annotations

from hgdeploy.benchmark.recommend.measuring import recommend
from hgdeploy.benchmark.recommend.tuning import TuneOptions, choice_of, tune
from hgdeploy.benchmark.recommend.ways import (
    HEAD,
    NO_IMAGES,
    Evidence,
    Recommendation,
    RecommendOptions,
)

__all__ = [
    "HEAD",
    "NO_IMAGES",
    "Evidence",
    "RecommendOptions",
    "Recommendation",
    "TuneOptions",
    "choice_of",
    "recommend",
    "tune",
]
