# SPDX-License-Identifier: Apache-2.0
"""The `Global` section: every key of PaddleClas's is served, refused or unknown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hgdeploy.errors import ConfigError, nearest
from hgdeploy.paddleclas.overrides import literal


@dataclass(frozen=True)
class GlobalSection:
    """PaddleClas's `Global` section, with its defaults where PaddleClas has one."""

    infer_imgs: tuple[str, ...] = ()
    inference_model_dir: str = ""
    batch_size: int = 1
    use_gpu: bool = False
    gpu_id: int = 0
    gpu_mem: int = 8000
    enable_mkldnn: bool = True
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


def _as_bool(value: object) -> bool:
    value = literal(value)
    if isinstance(value, bool):
        return value
    raise ValueError("True or False")


def _as_whole(value: object, least: int) -> int:
    value = literal(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise ValueError(f"a whole number from {least}")


def _as_count(value: object) -> int:
    return _as_whole(value, 1)


def _as_index(value: object) -> int:
    return _as_whole(value, 0)


def _as_text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # a folder may be called 2024
    raise ValueError("a text")


def _as_texts(value: object) -> tuple[str, ...]:
    if isinstance(value, list) and value:
        return tuple(_as_text(item) for item in value)
    try:
        return (_as_text(value),)
    except ValueError:
        raise ValueError("a path, or a list of paths") from None


_CONVERTERS: Mapping[str, Callable[[object], object]] = {
    "infer_imgs": _as_texts,
    "inference_model_dir": _as_text,
    "batch_size": _as_count,
    "gpu_id": _as_index,
    "gpu_mem": _as_count,
    "cpu_num_threads": _as_count,
    "save_log_path": _as_text,
    "model_name": _as_text,
    "engine": _as_text,
    "precision": _as_text,
}


def parse_global(section: object) -> GlobalSection:
    """Turn the `Global` mapping into its dataclass; every key is checked by name and type."""
    if section is None:
        section = {}
    if not isinstance(section, dict):
        raise ConfigError("Global is not a mapping of keys to values")
    known = [item.name for item in dataclasses.fields(GlobalSection)]
    values: dict[str, Any] = {}
    for key, value in section.items():
        if key in _UNSERVED:
            if literal(value):
                raise ConfigError(f"Global.{key} cannot be served: {_UNSERVED[key]}")
            continue
        if key not in known:
            raise ConfigError(f"unknown key Global.{key}, {nearest(str(key), known)}")
        if value is None or value == "None":
            continue
        try:
            values[key] = _CONVERTERS.get(key, _as_bool)(value)
        except ValueError as error:
            raise ConfigError(f"Global.{key} is {value!r}, expected {error}") from None
    return GlobalSection(**values)
