# SPDX-License-Identifier: Apache-2.0
"""The files that Triton's back ends for ONNX files and for images serve, and their tensors."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

from hgdeploy.bundle.engine_key import Profile
from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.bundle.names import onnx_name
from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.classify.folder import folder_options
from hgdeploy.classify.settings import ClassifierSettings
from hgdeploy.engines import TensorSpec, engine_module, load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import BundleError, ConfigError
from hgdeploy.serving.server.model import ServedModel, ServedOptions
from hgdeploy.serving.server.protocol import ERROR_OUTPUT, IMAGE_INPUT
from hgdeploy.system.kinds import MANY
from hgdeploy.transforms.operators import Op

BYTES = "bytes"
"""The type of tensors of byte strings."""
FACTS = "hgdeploy"
"""The parameter of a model's config that carries our own facts, as JSON."""
WARMUP_FILE = "picture"
"""The file in the model's folder `warmup` with the picture that the server sends it first."""


@dataclass(frozen=True)
class Network:
    """The inputs and outputs of the served file; `profile` is that of a TensorRT engine."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profile: Profile | None = None

    @property
    def any_batch(self) -> bool:
        """Whether every input and output leaves its first axis open."""
        return all(spec.shape[:1] == (-1,) for spec in (*self.inputs, *self.outputs))

    @property
    def takes_images(self) -> bool:
        """Whether the input is image files, not the tensors that are made of them."""
        return self.inputs[0].dtype == BYTES


def find_onnx(engine: str, bundle: ModelBundle, precision: str) -> dict[str, Path]:
    """Return the ONNX file that one of our engines reads, and the files with its weights."""
    names = engine_module(engine).artifact_names(precision)
    path = bundle.find([name for name in names if name.endswith(".onnx")])
    beside = (read_sidecar(path) or {}).get("files")
    files = {"model.onnx": path}
    for name in beside if isinstance(beside, dict) else ():
        if (
            not name
            or Path(name).name != name
            or name in files
            or not path.with_name(name).is_file()
        ):
            raise BundleError(
                f"{path} keeps weights in {name!r}, which is not a file beside it; make it again "
                "with hgdeploy convert"
            )
        files[name] = path.with_name(name)
    return files


def find_images_model(bundle: ModelBundle, precision: str) -> dict[str, Path]:
    """Return the same files by the names that bundles call them, as our engine looks for them."""
    path, *weights = find_onnx("onnxruntime", bundle, precision).values()
    if bundle.preprocess is None:
        raise ConfigError(
            f"{bundle.root} does not say how images are prepared; describe it in inference.yml, or "
            "serve tensors with onnxruntime"
        )
    return {onnx_name(precision): path, **{file.name: file for file in weights}}


def read_onnx(_bundle: ModelBundle, source: Path, copy: Path, precision: str) -> Network:
    """Load the copy, which shows that it is complete, with the weights in files beside it."""
    own = "fp32" if precision == "bf16" else precision  # OpenVINO makes bf16 of the fp32 file
    options = EngineOptions(precision=own, threads=1, graph_optimization=False)
    try:
        engine = load_engine("onnxruntime", copy, options)
    except BundleError as error:
        raise BundleError(
            f"{source} cannot be served, its copy does not load ({error}); make it again with "
            "hgdeploy convert or quantize"
        ) from None
    try:
        return Network(engine.inputs, engine.outputs)
    finally:
        engine.close()


def read_images_model(bundle: ModelBundle, source: Path, copy: Path, precision: str) -> Network:
    """Load the copy, and let it answer; the tensors are those of our own server."""
    options = EngineOptions(precision=precision, threads=1)
    try:
        model = open_images_model(copy.parent, bundle.own_preprocess(), options)
    except (BundleError, ConfigError) as error:
        raise BundleError(
            f"{source} cannot be served, its copy does not load ({error}); make it again with "
            "hgdeploy convert or quantize"
        ) from None
    model.close()
    taken, told = (TensorSpec(name, BYTES, (-1, 1)) for name in (IMAGE_INPUT, ERROR_OUTPUT))
    return Network((taken,), (model.output, told))


def open_images_model(
    folder: Path, preprocess: tuple[Op, ...], options: EngineOptions, batch: int = 1
) -> ServedModel:
    """Load a folder of `find_images_model` as our own server does.

    Args:
        folder: the folder.
        preprocess: how images are prepared.
        options: those of ONNX Runtime.
        batch: the most images of one inference.

    Raises:
        HGDeployError: it cannot be loaded, or does not answer.
    """
    bundle = ModelBundle(folder, None, preprocess, None)
    settings = ClassifierSettings("onnxruntime", batch, folder_options(options, MANY))
    return ServedModel(bundle, settings, ServedOptions(max_queue=MANY))


def write_warmup(folder: Path) -> None:
    """Write a gray picture as a tensor of one string, where the server looks for it."""
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(picture, "JPEG")
    data = picture.getvalue()
    (folder / "warmup").mkdir()
    (folder / "warmup" / WARMUP_FILE).write_bytes(struct.pack("<I", len(data)) + data)
