# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's YAML config and `-o` overrides, turned into frozen dataclasses at the door.

Every key that PaddleClas's `predict_cls.py` knows is served, warned about by name, or refused with
a reason; an unknown key is refused with the nearest name. Values are parsed as literals, never
evaluated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hgdeploy.bundle.names import RUNTIMES, engine_name
from hgdeploy.classify.settings import ClassifierSettings
from hgdeploy.engines.auto.choose import AUTO, Asked, Chosen, choose
from hgdeploy.engines.auto.saved import Saved
from hgdeploy.engines.base import device_index
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.errors import ConfigError
from hgdeploy.paddleclas.global_section import GlobalSection, keys_without_effect, parse_global
from hgdeploy.paddleclas.overrides import SECTIONS, override
from hgdeploy.system.checks import Given, check, mapping
from hgdeploy.system.documents import read_yaml
from hgdeploy.system.kinds import one_of
from hgdeploy.system.machine import available_cpus
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.operators import Op
from hgdeploy.transforms.operators_config import parse_ops
from hgdeploy.transforms.postprocess import Postprocess
from hgdeploy.transforms.postprocess_config import (
    LABEL_KEYS,
    SAVE,
    parse_postprocess,
    parse_save_dir,
)


@dataclass(frozen=True)
class PredictConfig:
    """Everything `predict_cls.py` does, decided.

    Attributes:
        bundle: the model's folder.
        inputs: files, folders, globs or text lists of images.
        engine: the engine's name.
        batch_size: images an inference takes.
        options: what is asked of the engine.
        preprocess: the config's own transform ops; None to use the bundle's.
        postprocess: the config's own postprocessing; None to use the bundle's.
        copies: the folder into which copies of the images are sorted by class; None for no copies.
        benchmark: print where the time went after the run.
        benchmark_log: also write that to this file.
        warnings: one line for each key that has no effect or not the effect that was asked for.
        saved: the choice of `Global.engine: auto` that runs, and `notes` to tell of it; else None.
    """

    bundle: Path
    inputs: tuple[str, ...]
    engine: str
    batch_size: int
    options: EngineOptions
    preprocess: tuple[Op, ...] | None
    postprocess: Postprocess | None
    copies: Path | None = None
    benchmark: bool = False
    benchmark_log: Path | None = None
    warnings: tuple[str, ...] = field(default=())
    saved: Saved | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def settings(self) -> ClassifierSettings:
        """How to load the bundle and classify with it."""
        return ClassifierSettings(
            self.engine, self.batch_size, self.options, self.preprocess, self.postprocess
        )


def load_config(
    path: Path | None,
    overrides: Sequence[str] = (),
    given: Mapping[str, object] = MappingProxyType({}),
) -> PredictConfig:
    """Read a PaddleClas config and apply overrides to it.

    Relative paths inside the file are taken from the current directory, as PaddleClas does; where
    nothing lies there, from the folder above the config's own (`deploy/` for
    `deploy/configs/x.yaml`), so that the shipped configs work from any directory. Paths in
    `overrides` are always taken from the current directory.

    Args:
        path: the YAML file, or None for no file.
        overrides: `Section.key=value` texts, as after `-o`.
        given: values of `Global` instead of the file's, such as `infer_imgs`; see `given_values`.

    Raises:
        ConfigError: the file, a key or a value is wrong.
    """
    raw = read_yaml(path, "config file", texts=LABEL_KEYS) if path is not None else {}
    if given:
        raw["Global"] = {**mapping(Given("Global", raw.get("Global")).or_empty()), **given}
    for text in overrides:
        override(raw, text)
    overridden = {text.partition("=")[0].strip() for text in overrides}
    config = decide(raw, overridden | {f"Global.{key}" for key in given}, path)
    if not config.inputs:
        raise ConfigError(_UNSET.format("infer_imgs"))
    return config


_UNSET = "Global.{0} is not set; give it with -o Global.{0}=PATH"


def decide(
    raw: Mapping[str, Any], overridden: Collection[str] = (), path: Path | None = None
) -> PredictConfig:
    """Turn the tree of keys that a config is into what will be done.

    Args:
        raw: the sections, with overrides applied.
        overridden: the keys that were not in the config's file, such as `Global.batch_size`.
        path: the file, from which relative paths may count; None where there is none.

    Raises:
        ConfigError: a key or a value is wrong, or there is no `Global.inference_model_dir`.
    """
    for section in raw:
        check("section", section, one_of(SECTIONS))
    return _decide(raw, _Place(path, overridden))


def given_values(engine: str | None, precision: str | None, device: str | None) -> dict[str, Any]:
    """Return the values of `Global` that ask for these, and for nothing that contradicts them.

    Args:
        engine: the engine's name; None for what the config says.
        precision: the precision; None likewise.
        device: `cpu` or `gpu:N`; None likewise.
    """
    given: dict[str, Any] = {}
    if engine is not None:
        others = (switch for switch, engines in _GOES_WITH.items() if engine not in engines)
        given |= {"engine": engine, **dict.fromkeys(others, False)}
    if precision is not None:
        given |= {"precision": precision, "use_fp16": False, "use_int8": False}
    if device is not None:
        index = device_index(device)
        given |= {"use_gpu": index is not None, "gpu_id": index or 0}
    return given


@dataclass(frozen=True)
class _Place:
    """Where a relative path in the config counts from."""

    config: Path | None
    overridden: Collection[str]

    def is_overridden(self, key: str) -> bool:
        """Return whether `-o` gave this key, or one that it is part of."""
        return any(f"{key}.".startswith(f"{given}.") for given in self.overridden)

    def resolve(self, key: str, value: str) -> str:
        """Return `value`, or its place under the folder above the config's, as documented."""
        path = Path(value)
        if self.config is None or key in self.overridden or path.is_absolute() or path.exists():
            return value
        beside = self.config.resolve().parent.parent / path
        return str(beside) if beside.exists() else value


def _decide(raw: Mapping[str, Any], place: _Place) -> PredictConfig:
    """Turn the sections into what will be done."""
    settings = parse_global(raw.get("Global"))
    if not settings.inference_model_dir:
        raise ConfigError(_UNSET.format("inference_model_dir"))
    bundle = Path(place.resolve("Global.inference_model_dir", settings.inference_model_dir))
    choices: list[str] = []
    run, saved = _chosen(settings, bundle, choices.append)
    warnings = [*keys_without_effect(settings), *(choices if saved is None else ())]
    threads = settings.cpu_num_threads
    if threads is not None and threads > available_cpus():
        warnings.append(
            f"Global.cpu_num_threads={threads} is more than the {available_cpus()} CPUs this "
            f"process may use, and would only slow it down: using {available_cpus()}"
        )
        threads = available_cpus()
    preprocess = None
    section = raw.get("PreProcess")
    if section is not None:
        if not isinstance(section, dict) or list(section) != ["transform_ops"]:
            raise ConfigError("PreProcess must hold exactly one key: transform_ops")
        preprocess = parse_ops(section["transform_ops"], "PreProcess.transform_ops")
    section = raw.get("PostProcess")
    copies, ignored = _copies(section, place)
    warnings += ignored
    onednn = settings.enable_mkldnn
    if onednn and "Global.enable_mkldnn" not in place.overridden:
        onednn = None  # PaddleClas's own configs all say True: only -o asks for it
    return PredictConfig(
        bundle=bundle,
        inputs=tuple(place.resolve("Global.infer_imgs", item) for item in settings.infer_imgs),
        engine=run.engine,
        batch_size=settings.batch_size,
        options=EngineOptions(
            device=run.device,
            precision=run.precision,
            threads=threads,
            max_batch=settings.batch_size,
            graph_optimization=settings.ir_optim,
            profile=settings.enable_profile,
            output_name=settings.output_name,
            own=(PaddleOptions(onednn, settings.use_tensorrt, settings.gpu_mem),),
        ),
        preprocess=preprocess,
        postprocess=_postprocess(section, place),
        copies=copies,
        benchmark=settings.benchmark,
        benchmark_log=Path(settings.save_log_path) if settings.save_log_path else None,
        warnings=tuple(warnings),
        saved=saved,
        notes=() if saved is None else tuple(choices),
    )


def _postprocess(section: object, place: _Place) -> Postprocess | None:
    if section is None or (isinstance(section, dict) and list(section) == [SAVE]):
        return None
    return parse_postprocess(section, "PostProcess", place.resolve)


def _copies(section: object, place: _Place) -> tuple[Path | None, list[str]]:
    """Return the folder for copies of the images, and what to tell where nobody asked for them.

    PaddleClas's shipped configs have a `SavePreLabel`, and it does nothing there.
    """
    folder = parse_save_dir(section, "PostProcess")
    if folder is None or place.is_overridden(f"PostProcess.{SAVE}.save_dir"):
        return folder, []
    return None, [
        f"PostProcess.{SAVE} saves no copies of the images, as in PaddleClas; to have them sorted "
        f"into folders by class, add -o PostProcess.{SAVE}.save_dir={folder}"
    ]


# PaddleClas's switches, and the engines that can be asked for beside each.
_GOES_WITH = {
    "use_onnx": ("onnxruntime", "openvino", "tensorrt"),
    "use_tensorrt": ("paddle", "tensorrt"),
}


def _chosen(settings: GlobalSection, bundle: Path, on_choice: OnLine) -> Chosen:
    """Decide what runs from PaddleClas's switches and HGDeploy's two own keys."""
    precision = _precision(settings)
    engine = settings.engine or _switched_engine(settings, bundle, precision)
    device = f"gpu:{settings.gpu_id}" if settings.use_gpu else "cpu"
    chosen = choose(bundle, Asked(engine, precision, device), on_choice)
    name = AUTO if engine == AUTO else chosen.run.engine
    for switch, engines in _GOES_WITH.items():
        if getattr(settings, switch) and name not in engines:
            both = f"Global.{switch}=True contradicts Global.engine={name}"
            raise ConfigError(f"{both}; drop one of them")
    if chosen.run.engine == "tensorrt" and not settings.use_gpu:
        raise ConfigError(
            "TensorRT runs on an NVIDIA GPU and Global.use_gpu is False; set it to True, or drop "
            "Global.use_tensorrt (Global.engine=tensorrt)"
        )
    return chosen


def _switched_engine(settings: GlobalSection, bundle: Path, precision: str | None) -> str | None:
    """Return the engine that PaddleClas's two switches ask for; None where both are off.

    TensorRT itself runs what is built from ONNX, which both switches together ask for, or an engine
    file that is there already; otherwise Paddle hands parts of its own model to TensorRT.
    """
    if not settings.use_tensorrt:
        return "onnxruntime" if settings.use_onnx else None
    files = (bundle / engine_name(precision or "fp32", runtime) for runtime in RUNTIMES)
    return "tensorrt" if settings.use_onnx or any(map(Path.is_file, files)) else "paddle"


def _precision(settings: GlobalSection) -> str | None:
    """Return the precision that was asked for, if any."""
    switches = {"fp16": settings.use_fp16, "int8": settings.use_int8}
    asked = [name for name, on in switches.items() if on]
    if settings.precision is not None:
        asked.append(settings.precision)
    if len(set(asked)) > 1:
        raise ConfigError(
            f"{' and '.join(sorted(set(asked)))} were asked for at once; keep one of "
            "Global.use_fp16, Global.use_int8 and Global.precision"
        )
    return asked[0] if asked else None
