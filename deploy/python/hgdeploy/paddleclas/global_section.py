# SPDX-License-Identifier: Apache-2.0
"""The `Global` section: every key of PaddleClas's is served, refused or unknown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hgdeploy.errors import ConfigError
from hgdeploy.system.checks import Given, Kind, check, mapping
from hgdeploy.system.kinds import (
    as_text,
    keys,
    list_of,
    literal,
    optional,
    rounded,
    switch,
    whole,
)


@dataclass(frozen=True)
class GlobalSection:
    """PaddleClas's `Global` section, with its defaults where PaddleClas has one."""

    infer_imgs: tuple[str, ...] = ()
    inference_model_dir: str = ""
    batch_size: int = 1
    use_gpu: bool = False
    gpu_id: int = 0
    gpu_mem: int = 8000
    enable_mkldnn: bool | None = None
    cpu_num_threads: int | None = None
    ir_optim: bool = True
    use_tensorrt: bool = False
    use_fp16: bool = False
    use_int8: bool = False
    use_onnx: bool = False
    enable_profile: bool = False
    benchmark: bool = False
    save_log_path: str | None = None
    model_name: str | None = None
    enable_benchmark: bool = False
    engine: str | None = None
    precision: str | None = None
    output_name: str | None = None


# What a PaddleClas user may have in a config and HGDeploy does not serve; an error where it is on.
_UNSERVED = {
    "use_npu": "HGDeploy has no Ascend NPU engine; use_gpu=True or use_gpu=False are served",
    "use_xpu": "HGDeploy has no Kunlun XPU engine; use_gpu=True or use_gpu=False are served",
    "use_mlu": "HGDeploy has no Cambricon MLU engine; use_gpu=True or use_gpu=False are served",
    "use_dcu": "HGDeploy has no Hygon DCU engine; use_gpu=True or use_gpu=False are served",
    "use_gcu": "HGDeploy has no Enflame GCU engine; use_gpu=True or use_gpu=False are served",
    "use_multiprocess": "it belongs to PaddleClas's Python package, not to predict_cls.py",
    "det_inference_model_dir": "it belongs to PP-ShiTu (detection), which HGDeploy does not do",
    "rec_inference_model_dir": "it belongs to PP-ShiTu (retrieval), which HGDeploy does not do",
}


def _names(given: Given) -> tuple[str, ...]:
    """Is the kind of one path, or of a list of them."""
    try:
        return list_of(as_text, 1)(given) if isinstance(given.value, list) else (as_text(given),)
    except ConfigError:
        raise given.refused("a path, or a list of paths") from None


def _threads(given: Given) -> int:
    """Is the kind of numbers of threads; Paddle takes 0 for one thread, and so do PaddleClas's."""
    return max(_INDEX(given), 1)


def _is_on(value: object) -> bool:
    """Return whether a switch is on, or a text is there."""
    try:
        return switch(Given("", value))
    except ConfigError:
        return value not in (None, "", "None", "null", "~")


_COUNT, _INDEX = literal(rounded(whole(1))), literal(rounded(whole(0)))
_KINDS: Mapping[str, Kind[Any]] = {
    "infer_imgs": _names,
    "inference_model_dir": as_text,
    "batch_size": _COUNT,
    "gpu_id": _INDEX,
    "gpu_mem": _COUNT,
    "cpu_num_threads": _threads,
    "save_log_path": as_text,
    "model_name": as_text,
    "engine": as_text,
    "precision": as_text,
    "output_name": as_text,
}


def parse_global(section: object) -> GlobalSection:
    """Turn the `Global` mapping into its dataclass; every key is checked by name and type."""
    given = Given("Global", section).or_empty()
    values = {}
    for key, value in mapping(given).items():
        if key not in _UNSERVED:
            values[key] = None if value in ("None", "null", "~") else value
        elif _is_on(value):
            raise ConfigError(f"Global.{key} cannot be served: {_UNSERVED[key]}")
    known = [item.name for item in dataclasses.fields(GlobalSection)]
    kinds = {name: optional(_KINDS.get(name, switch)) for name in known}
    found = check("Global", values, keys(kinds))
    return GlobalSection(**{key: value for key, value in found.items() if value is not None})


def keys_without_effect(settings: GlobalSection) -> list[str]:
    """Return a line for each key that is set and has no effect."""
    warnings = []
    if settings.enable_benchmark:
        warnings.append(
            "Global.enable_benchmark has no effect, as in PaddleClas; "
            "Global.benchmark=True prints where the time goes"
        )
    if settings.save_log_path and not settings.benchmark:
        warnings.append("Global.save_log_path has no effect without Global.benchmark=True")
    if settings.model_name:
        warnings.append("Global.model_name has no effect: the bundle knows its model's name")
    return warnings
