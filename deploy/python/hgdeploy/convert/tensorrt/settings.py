# SPDX-License-Identifier: Apache-2.0
"""The settings of TensorRT's builder that users of trtexec reach for, by the same names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hgdeploy.bundle.names import TensorRtRuntime
from hgdeploy.errors import ConfigError
from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import MANY, flag, one_of, optional, whole

AMPERE_PLUS, SAME_CAPABILITY = "ampere+", "same-compute-capability"
# How often a kernel is timed before the fastest is chosen: as by trtexec (defaultAvgTiming in its
# sampleOptions.h). The library's own figure is 1, which leaves the choice to noise.
TIMING_RUNS = 8
# The first compute capability that has TF32, and that each compatibility can be built on: NVIDIA,
# "Ampere Architecture Whitepaper", 2020, and the Python API's HardwareCompatibilityLevel.
_FROM = {"tf32": 8.0, AMPERE_PLUS: 8.0, SAME_CAPABILITY: 7.5}


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """Settings of the builder; None is the library's own.

    Attributes:
        workspace_mb: memory a layer may take for itself, in MiB.
        optimization_level: 0 (fast to build) to 5 (fast to run).
        int8_rest: what an int8 model computes in where it has no int8: `fp16` or `fp32`.
        hardware_compatibility: the other GPUs that shall run the engine: `none`, `ampere+` for all
            from compute capability 8.0 on, or `same-compute-capability`.
        version_compatible: let later versions of the library run it, within its major version.
        max_aux_streams: streams beside the main one that its layers may run on.
        tiling_level: 0 to 3, how long to search for tilings that keep data in the L2 cache.
        sparsity: `disable`, or `enable` to use weights that have two zeros among each four.
    """

    workspace_mb: int | None = None
    optimization_level: int | None = None
    int8_rest: str = "fp16"
    hardware_compatibility: str = "none"
    version_compatible: bool = False
    max_aux_streams: int | None = None
    tiling_level: int | None = None
    sparsity: str = "disable"

    def check(self) -> None:
        """Refuse values that no library takes.

        Raises:
            ConfigError: the value, and what is allowed.
        """
        check_fields(
            self,
            workspace_mb=optional(whole(1, MANY)),
            optimization_level=optional(whole(0, 5)),
            int8_rest=one_of(("fp16", "fp32")),
            hardware_compatibility=one_of(("none", AMPERE_PLUS, SAME_CAPABILITY)),
            version_compatible=flag,
            max_aux_streams=optional(whole(0, 127)),
            tiling_level=optional(whole(0, 3)),
            sparsity=one_of(("disable", "enable")),
        )

    def flags(self, precision: str, runtime: TensorRtRuntime) -> dict[str, str]:
        """Return what belongs to an engine's key; what is rarely set, only where it is set."""
        level, workspace = self.optimization_level, self.workspace_mb
        found = {
            "optimization_level": "default" if level is None else str(level),
            "tf32": "on" if precision == "tf32" else "off",
            "workspace_mb": "default" if workspace is None else str(workspace),
        }
        if runtime.needs_gpu:  # the other library times nothing
            found["timing_runs"] = str(TIMING_RUNS)
        if precision == "int8":
            found["int8_rest"] = self.int8_rest
        return found | {name: str(value) for name, value in self._rarely_set().items()}

    def _rarely_set(self) -> dict[str, object]:
        usual = BuildSettings()
        names = (
            *("hardware_compatibility", "version_compatible", "max_aux_streams"),
            *("tiling_level", "sparsity"),
        )
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value != getattr(usual, name)}

    def check_library(self, trt: Any, runtime: TensorRtRuntime) -> None:
        """Refuse what this library, or this version of it, does not have.

        Raises:
            ConfigError: the setting, and what to do.
        """
        name = f"{runtime.name} {trt.__version__}"
        compatible = self.hardware_compatibility
        if compatible != "none" and not runtime.needs_gpu:
            raise ConfigError(
                f"{name} has no --hardware-compatibility; it builds for several GPUs at once, such "
                "as --compute-capability 8.6,12.0"
            )
        if self.version_compatible and not runtime.needs_gpu:
            raise ConfigError(
                f"{name} has no --version-compatible; build again for each version, in seconds"
            )
        if compatible == SAME_CAPABILITY and not hasattr(
            trt.HardwareCompatibilityLevel, "SAME_COMPUTE_CAPABILITY"
        ):
            raise ConfigError(f"{name} has no --hardware-compatibility {compatible}; 10.9 has")
        if self.tiling_level is not None and not hasattr(trt, "TilingOptimizationLevel"):
            raise ConfigError(f"{name} has no --tiling-level; 10.8 has")

    def check_gpus(self, precision: str, compute_capabilities: Sequence[str]) -> None:
        """Refuse what the GPUs that are built for do not have.

        Raises:
            ConfigError: the precision or setting, and the first compute capability that has it.
        """
        for wanted in (precision, self.hardware_compatibility):
            least = _FROM.get(wanted, 0.0)
            lacking = [name for name in compute_capabilities if float(name) < least]
            if lacking and wanted == "tf32":
                raise ConfigError(
                    f"tf32 needs compute capability {least} (Ampere) or later, and "
                    f"{', '.join(lacking)} computes fp32 as it is; build with --precision fp32"
                )
            if lacking:
                raise ConfigError(
                    f"--hardware-compatibility {wanted} needs compute capability {least} or later, "
                    f"and this GPU has {', '.join(lacking)}; leave it out"
                )


def apply_settings(trt: Any, config: Any, settings: BuildSettings, precision: str) -> None:
    """Configure a build.

    Args:
        trt: the library; it must have what is set.
        config: its `IBuilderConfig`.
        settings: what to set.
        precision: what the model computes in.
    """
    change = config.set_flag if precision == "tf32" else config.clear_flag
    change(trt.BuilderFlag.TF32)
    config.avg_timing_iterations = TIMING_RUNS
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the list of layers
    if settings.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mb * 2**20)
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    if settings.hardware_compatibility == AMPERE_PLUS:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if settings.hardware_compatibility == SAME_CAPABILITY:
        same = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
        config.hardware_compatibility_level = same
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.sparsity == "enable":
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if settings.max_aux_streams is not None:
        config.max_aux_streams = settings.max_aux_streams
    if settings.tiling_level is not None:
        levels = trt.TilingOptimizationLevel
        known = (levels.NONE, levels.FAST, levels.MODERATE, levels.FULL)
        config.tiling_optimization_level = known[settings.tiling_level]
