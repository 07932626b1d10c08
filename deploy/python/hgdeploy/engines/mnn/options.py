# SPDX-License-Identifier: Apache-2.0
"""The options that only the mnn engine has."""

from __future__ import annotations

from dataclasses import dataclass

from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import whole


@dataclass(frozen=True)
class MnnOptions:
    """Options of the mnn engine's own; see `EngineOptions.own`.

    Attributes:
        winograd_level: which tiles Winograd's algorithm may use (MNN's hint WINOGRAD_MEMORY_LEVEL,
            0 to 3). MNN's own default, 3, has tiles so large that rounding moves a log-probability
            of PP-HGNet by 2e-4, which is more than validation allows fp32; up to 1, by 5e-6, as in
            other engines.
    """

    winograd_level: int = 1

    def __post_init__(self) -> None:
        check_fields(self, winograd_level=whole(0, 3))
