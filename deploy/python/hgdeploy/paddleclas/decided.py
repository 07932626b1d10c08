# SPDX-License-Identifier: Apache-2.0
"""The config that PaddleClas's class and command run: a model's own, overrides, arguments."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hgdeploy.bundle.model_bundle import POSTPROCESS, PREPROCESS, open_bundle
from hgdeploy.bundle.names import DESCRIPTION
from hgdeploy.engines import engine_module
from hgdeploy.engines.auto.choose import AUTO, Asked, choose
from hgdeploy.engines.base import device_index
from hgdeploy.errors import BundleError, ConfigError
from hgdeploy.paddleclas import names
from hgdeploy.paddleclas.arguments import THRESHOLDS, checked
from hgdeploy.paddleclas.config import PredictConfig, decide, given_values
from hgdeploy.paddleclas.overrides import SECTIONS, override
from hgdeploy.system.checks import check, cut, mapping
from hgdeploy.system.documents import read_yaml
from hgdeploy.system.kinds import anything, list_of
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.transforms.difference import ops_difference
from hgdeploy.transforms.families import published_feed, published_ops
from hgdeploy.transforms.operators import NormalizeImage, Op
from hgdeploy.transforms.operators_config import ops_to_config, parse_ops
from hgdeploy.transforms.postprocess_config import LABEL_KEYS, SAVE, parameters_of
from hgdeploy.zoo.fetch.http import OnBytes
from hgdeploy.zoo.registry import imagenet_labels

_TOPK = 5
# Arguments that are keys of Global by the same name.
_GLOBAL = (
    *("use_gpu", "gpu_mem", "enable_mkldnn", "cpu_num_threads", "use_tensorrt", "use_fp16"),
    "batch_size",
)
_LABELLED = ("Topk", "ThreshOutput", "MultiLabelThreshOutput")


@dataclass(frozen=True)
class Decided:
    """What PaddleClas's class or command will do.

    Attributes:
        config: all that the run needs; its `inputs` are empty.
        notes: what the user should know beside the config's warnings, one line each.
    """

    config: PredictConfig
    notes: tuple[str, ...]


def decided(
    arguments: Mapping[str, object], on_progress: OnLine = nothing, on_bytes: OnBytes | None = None
) -> Decided:
    """Return what these arguments ask for; download the model that they name.

    The config is the model's own: that of its folder's `inference.yml`, or of its name. Overrides
    change it, and arguments change it after them.

    Args:
        arguments: those of PaddleClas's class, by name.
        on_progress: called with a line about a download.
        on_bytes: see `download_file`.

    Raises:
        ConfigError: an argument, an override or the config is wrong.
        BundleError: there is no model in the folder.
        DownloadError: the model cannot be downloaded.
        EngineError: the engine does not exist.
    """
    values = checked(arguments)
    name, folder = values.get("model_name"), values.get("inference_model_dir")
    if name is not None:
        name = names.known_name(name)
        folder = names.fetched_model(name, on_progress, on_bytes)
    elif folder is None:
        raise ConfigError(
            "no model was given; give model_name (such as PPHGNet_small, which is downloaded) or "
            "inference_model_dir (the folder of a model)"
        )
    tree = _Tree(name, Path(folder), _own_sections(name, Path(folder)))
    for written in values.get("override", ()):
        override(tree.raw, written)
        tree.overridden.add(written.partition("=")[0].strip())
    tree.take(values)
    config = decide(tree.raw, tree.overridden)
    if config.postprocess is not None and name not in names.pulc():
        usual = dict(enumerate(imagenet_labels()))
        labelled = dataclasses.replace(config.postprocess, usual_labels=usual)
        config = dataclasses.replace(config, postprocess=labelled)
    if "save_dir" in values:
        config = dataclasses.replace(config, copies=Path(values["save_dir"]))
    if "use_gpu" not in tree.raw["Global"] and config.saved is None:
        config = tree.on_a_gpu(config, say="engine" not in values)
    return Decided(config, tuple(tree.notes))


def _own_sections(name: str | None, folder: Path) -> dict[str, Any]:
    """Return the config of a model, as PaddleClas's package has it where the model has none."""
    bundle = open_bundle(folder)
    described: Mapping[str, Any] = {}
    if bundle.preprocess is not None or bundle.postprocess is not None:
        described = read_yaml(folder / DESCRIPTION, "description", BundleError, texts=LABEL_KEYS)
    feed = names.usual_feed()
    output: dict[str, Any] = {"Topk": {"topk": _TOPK}}
    known = names.pulc().get(name or "", {})
    published = published_feed(name) if name is not None and not known else None
    if bundle.preprocess is not None:
        feed = {"transform_ops": described[PREPROCESS]["transform_ops"]}
    elif known:
        feed = known[PREPROCESS]
    elif published is not None and _differs(ops_to_config(published_ops(published))):
        feed = {"transform_ops": ops_to_config(published_ops(published))}
    if known:
        output = known[POSTPROCESS]
    elif bundle.postprocess is not None:
        output = _by_name(described[POSTPROCESS], folder)
    if len(outputs := _outputs(output)) == 1:  # which stays the one, whatever an override adds
        output = {"main_indicator": outputs[0], **output}
    return copy.deepcopy({"Global": {}, PREPROCESS: feed, POSTPROCESS: output})


def _outputs(section: Mapping[str, Any]) -> list[str]:
    return [key for key in section if key not in ("main_indicator", SAVE)]


def _by_name(section: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a `PostProcess` section by its outputs' names, with paths that count from anywhere."""
    found = dict(section)
    if "name" in found:
        found = {found.pop("name"): found}
    for output in found.values():
        file = output.get("class_id_map_file") if isinstance(output, dict) else None
        if file is not None:
            output["class_id_map_file"] = str(folder / file)
    return found


def _differs(ops: Any) -> str:
    """Return in what a feed differs from the one that PaddleClas's package has for all models."""
    return "; ".join(
        ops_difference(
            _rounded(ops), _rounded(names.usual_feed()["transform_ops"]), "here", "there"
        )
    )


def _rounded(config: Any) -> list[Op]:
    """Return operators for which 1/255 is one number, whether its config rounds it or not."""
    ops = parse_ops(config, f"{PREPROCESS}.transform_ops")
    return [
        dataclasses.replace(op, scale=round(op.scale, 8)) if isinstance(op, NormalizeImage) else op
        for op in ops
    ]


def _parameters(where: str, value: object) -> dict[str, Any]:
    """Return a mapping of a config, to be changed; an empty one for null."""
    return dict(check(where, {} if value is None else value, mapping))


@dataclass
class _Tree:
    """A config's tree of keys while it is made.

    Attributes:
        name: the model's name; None for a folder of the user's own.
        folder: the model's folder.
        raw: the sections.
        overridden: the keys that were given by overrides or arguments.
        notes: what the user should know.
    """

    name: str | None
    folder: Path
    raw: dict[str, Any]
    overridden: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def take(self, values: Mapping[str, Any]) -> None:
        """Put checked arguments into their places."""
        for section in SECTIONS:  # an override may have put anything there
            self.raw[section] = dict(_parameters(section, self.raw.get(section)))
        settings = self.raw["Global"]
        settings["inference_model_dir"] = str(self.folder)
        settings.pop("infer_imgs", None)
        given = {key: values[key] for key in _GLOBAL if key in values}
        own = given_values(*(values.get(key) for key in ("engine", "precision", "device")))
        for key in own.keys() & given.keys():
            if own[key] != given[key]:
                raise ConfigError(
                    f"{key}={given[key]} contradicts engine, precision or device; drop one of them"
                )
        settings |= given | own
        given |= own
        self.overridden |= {f"Global.{key}" for key in given}
        if "use_gpu" not in settings:
            settings |= self._implied_device(settings)
        self._take_sizes(values)
        self._take_output(values)

    def _implied_device(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the device of what runs on one only; nothing where it is open."""
        if settings.get("engine") == AUTO:
            chosen = choose(self.folder, Asked(AUTO), nothing)
            index = device_index(chosen.run.device)
            return {"use_gpu": index is not None, "gpu_id": index or 0} if chosen.saved else {}
        on_gpu = settings.get("use_tensorrt") or settings.get("engine") == "tensorrt"
        return {"use_gpu": True} if on_gpu else {}

    def _take_sizes(self, values: Mapping[str, Any]) -> None:
        if short := values.get("resize_short"):
            self._operator("resize_short", "ResizeImage", "size")["resize_short"] = short
        if crop := values.get("crop_size"):
            self._operator("crop_size", "CropImage")["size"] = crop
        changed = any(key.startswith(PREPROCESS) for key in self.overridden)
        if not changed and not {"resize_short", "crop_size"} & values.keys():
            self._note_the_feed()

    def _operator(self, argument: str, name: str, instead: str = "") -> dict[str, Any]:
        """Return an operator's parameters, for an argument to change one; `instead` excludes it."""
        where = f"{PREPROCESS}.transform_ops"
        for entry in check(where, self.raw[PREPROCESS].get("transform_ops"), list_of(anything)):
            if isinstance(entry, dict) and name in entry:
                parameters = entry[name] = _parameters(f"{where}.{name}", entry[name])
                if instead in parameters:
                    raise ConfigError(
                        f"{argument} does not apply: {self.what}'s {name} has {instead} "
                        f"{cut(parameters[instead])}; leave it out"
                    )
                return parameters
        raise ConfigError(
            f"{argument} does not apply: the preprocessing of {self.what} has no {name}; "
            "leave it out"
        )

    def _note_the_feed(self) -> None:
        """Tell where a named model is fed otherwise than PaddleClas's package feeds all of them."""
        if self.name is None or self.name in names.pulc():
            return
        difference = _differs(self.raw[PREPROCESS].get("transform_ops"))
        if difference:
            self.notes.append(
                f"{self.name} is fed as it was evaluated, and not as PaddleClas's package feeds "
                f"every model, so its scores differ: {difference}"
            )

    def _take_output(self, values: Mapping[str, Any]) -> None:
        section = self.raw[POSTPROCESS]
        outputs = _outputs(section)
        main = section.get("main_indicator") or (outputs[0] if len(outputs) == 1 else None)
        main = main[0] if isinstance(main, list) and len(main) == 1 else main
        given = {key: values[key] for key in ("topk", *THRESHOLDS) if key in values}
        known = parameters_of(main)
        if "class_id_map_file" in values:
            given["class_id_map_file"] = values["class_id_map_file"]
            known = [*known, "class_id_map_file"] if main in _LABELLED else known
        for key, value in given.items():
            if key not in known:
                self.notes.append(f"{key} has no effect: {self.what}'s output is {main}")
                continue
            section[main] = _parameters(f"{POSTPROCESS}.{main}", section.get(main))
            section[main][key] = value
            if key == "class_id_map_file":
                section[main].pop("label_list", None)

    @property
    def what(self) -> str:
        """What to call the model."""
        return self.name or os.fspath(self.folder)

    def on_a_gpu(self, config: PredictConfig, *, say: bool) -> PredictConfig:
        """Return the config on a GPU, where its engine can use one; PaddleClas's asks for that.

        Args:
            config: on the CPU.
            say: note where it stays there.
        """
        found = engine_module(config.engine).capability()
        gpus = [device for device in found.devices if device != "cpu"]
        if gpus:
            options = dataclasses.replace(config.options, device=gpus[0])
            return dataclasses.replace(config, options=options)
        if say:
            self.notes.append(
                f"the CPU is used, since {config.engine} can use no GPU here (hgdeploy doctor "
                "says why); use_gpu=False says so too"
            )
        return config
