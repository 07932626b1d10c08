# SPDX-License-Identifier: Apache-2.0
"""Write the forms of an fp32 ONNX model that MNN and ncnn read.

Both converters print, leave files about, and say little where they fail, so they run in a child
process and a folder of their own, and what they wrote is compared with the ONNX file.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hgdeploy.bundle.names import mnn_name, ncnn_name
from hgdeploy.convert.artifact import (
    converter_versions,
    described,
    source_facts,
    write_artifact,
)
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.graph_parts import describe, dims_of
from hgdeploy.convert.onnx import large
from hgdeploy.convert.onnx.from_paddle import Verify
from hgdeploy.errors import BundleError, EngineError
from hgdeploy.system.libraries import installed_version, installing
from hgdeploy.system.messages import Message
from hgdeploy.system.processes import ChildError, ChildProcess, ChildTimeoutError

_MODULE = "hgdeploy.convert.mobile.child"
# Hundreds of megabytes take seconds; this limit is for a process that hangs.
_TIME_LIMIT_S = 900
_MOST_LETTERS = 300

TARGETS = ("mnn", "ncnn")
"""The engines whose own formats are made from ONNX here."""

# What the converters are told of the weights, by the precision that these are stored in. MNN's int8
# takes a scale for each 32 of them, and chooses it by HQQ: with the plain one for each channel,
# EfficientNet-Lite0 lost 5 % of its best classes; so, 1 %.
STORED: dict[str, dict[str, tuple[str, ...]]] = {
    "mnn": {
        "fp32": (),
        "fp16": ("--fp16",),
        "int8": ("--weightQuantBits", "8", "--weightQuantBlock", "32", "--hqq"),
    },
    "ncnn": {"fp32": ("fp16=0",), "fp16": ("fp16=1",)},
}
_LIBRARIES = {"mnn": ("MNN",), "ncnn": ("pnnx", "ncnn"), "paddle-lite": ("paddlelite",)}


def mnn_from_onnx(source: Path, *, verify: Verify | None) -> Path:
    """Write `inference.mnn`, for images in batches of any size.

    Args:
        source: the fp32 model.
        verify: compares the two models before the file is published; None skips that.

    Returns:
        Path of the file, beside the source.

    Raises:
        BundleError: the source is no fp32 classifier, MNN cannot convert it, or the result differs.
        EngineError: MNN or onnx is missing.
        OutputError: the file cannot be written.
    """
    return _beside("mnn", source, source.with_name(mnn_name("fp32")), verify)


def ncnn_from_onnx(source: Path, *, verify: Verify | None) -> Path:
    """Write `inference.ncnn.param` and `inference.ncnn.bin`, for one image at a time.

    Arguments, result and errors are those of `mnn_from_onnx`; the converter is pnnx.
    """
    return _beside("ncnn", source, source.with_name(ncnn_name("fp32")), verify)


def _beside(engine: str, source: Path, target: Path, verify: Verify | None) -> Path:
    check_converter(engine)
    facts = mobile_facts(engine, source, "fp32")

    def write(aside: Path) -> None:
        write_mobile(engine, source, aside)
        if verify is not None:
            with described(aside, facts):
                facts["verdict"] = verify(source, aside)

    return write_artifact(target, write, facts)


def check_converter(engine: str) -> None:
    """Refuse an engine whose converter is not installed.

    Args:
        engine: one of `TARGETS`.

    Raises:
        EngineError: what is missing, and how to install it.
    """
    if engine == "ncnn":
        _pnnx()
    elif installed_version("MNN") is None:
        raise EngineError(f"MNN is not installed; {installing('mnn')}")


def write_mobile(engine: str, source: Path, aside: Path, precision: str = "fp32") -> None:
    """Write an engine's form of an ONNX file, unchecked.

    Args:
        engine: one of `TARGETS`.
        source: the fp32 model.
        aside: where the file goes; of ncnn's two, the graph.
        precision: what the weights are stored in, one of `STORED`; both libraries widen them where
            they compute in fp32.

    Raises:
        BundleError: the engine cannot convert it.
        EngineError: onnx is missing.
    """
    writers = {"mnn": _write_mnn, "ncnn": _write_ncnn}
    writers[engine](source, aside, STORED[engine][precision])


def _write_mnn(source: Path, aside: Path, stored: Sequence[str]) -> None:
    # Absolute, since the converter has a current folder of its own.
    files = {"source": str(source.absolute()), "target": str(aside.absolute())}
    request = {"do": "mnn", **files, "options": list(stored)}
    run_converter(request, "MNN's converter", source, aside.parent, aside)


def _write_ncnn(source: Path, aside: Path, stored: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="hgdeploy-pnnx-") as name:
        folder = Path(name)
        model = folder / "model.onnx"
        # Written anew: with its weights, and without outputs that are not the scores.
        graph = OnnxGraph.read(source, external_data=True)
        model.write_bytes(graph.to_bytes())
        shape = ",".join(map(str, _image_shape(graph)))
        options = [f"inputshape=[1,{shape}]", *stored]
        request = {"do": "program", "program": _pnnx(), "source": model.name, "options": options}
        made = folder / "model.ncnn.param"
        run_converter(request, "pnnx", source, folder, made)
        _check_layers(made, source)
        shutil.copyfile(made, aside)
        shutil.copyfile(made.with_suffix(".bin"), aside.with_suffix(".bin"))


def mobile_facts(engine: str, source: Path, precision: str) -> dict[str, Any]:
    """Return what the sidecar of an engine's form of an ONNX file says, without a verdict.

    Args:
        engine: one of `TARGETS`, or `paddle-lite`.
        source: the fp32 model.
        precision: in which the weights are stored.

    Raises:
        BundleError: the engine cannot be given what the model takes.
    """
    large.check_not_large(source, "no other format than ONNX is available")
    graph = OnnxGraph.read(source)
    shape = _image_shape(graph)
    facts: dict[str, Any] = {
        **source_facts(source),
        "converter": converter_versions(*_LIBRARIES[engine], "onnx"),
        "precision": precision,
        **graph.facts(),
        "verdict": None,
    }
    facts["inputs"][0]["shape"] = [-1, *shape]
    facts["outputs"][0]["shape"][0] = -1
    return facts


def _image_shape(graph: OnnxGraph) -> list[int]:
    """Return channels, height and width of the images, which these formats fix.

    Raises:
        BundleError: the batch is fixed, the size is not, or the numbers are not float32.
    """
    taken = describe(graph.input)["dtype"]
    if taken != "float32":
        raise BundleError(
            f"{graph.source} takes {taken}, and mnn and ncnn are given float32; export it with a "
            "float32 input, and leave the normalising to NormalizeImage"
        )
    batch, *image = dims_of(graph.input)
    if isinstance(batch, int) and batch != 1:
        raise BundleError(
            f"{graph.source} takes {batch} images at a time, and phones classify one; make it with "
            "hgdeploy convert BUNDLE --batch dynamic, from a model exported so"
        )
    sizes = [size for size in image if isinstance(size, int)]
    if len(sizes) != len(image):
        raise BundleError(
            f"{graph.source} takes images of any size, and mnn and ncnn plan for one; make it with "
            "hgdeploy convert BUNDLE, without --dynamic-size"
        )
    return sizes


def _pnnx() -> str:
    """Return the path of the program pnnx: that of its package, or the one on PATH.

    The package is not imported: it would need torch, which pnnx itself does not.
    """
    package = importlib.util.find_spec("pnnx")
    for folder in (package.submodule_search_locations or []) if package is not None else []:
        found = shutil.which("pnnx", path=folder)
        if found is not None:
            return found
    found = shutil.which("pnnx")
    if found is None:
        raise EngineError(
            "pnnx, which converts ONNX to ncnn, is not installed; pip install --no-deps pnnx "
            "(without --no-deps it would bring torch, which is not needed)"
        )
    return found


def _check_layers(param: Path, source: Path) -> None:
    """Refuse a network in which pnnx left operators that ncnn lacks.

    These keep their names of PyTorch, such as `Tensor.to`; those of ncnn's layers have no points.

    Raises:
        BundleError: there are such operators.
    """
    lines = param.read_text(encoding="utf-8", errors="replace").splitlines()[2:]
    kinds = {line.split()[0] for line in lines if line.strip()}
    unknown = sorted(kind for kind in kinds if "." in kind or ":" in kind)
    if unknown:
        raise BundleError(
            f"ncnn has no {', '.join(unknown)[:_MOST_LETTERS]}, which {source} needs; export it "
            "without, or run it in another engine"
        )


def run_converter(
    request: dict[str, Any], what: str, source: Path, folder: Path, made: Path
) -> None:
    """Run a converter in a child process.

    Args:
        request: what `convert.mobile.child` is asked.
        what: what the converter is called, for errors.
        source: the model that it converts, for errors.
        folder: its current folder.
        made: the file that it is to write.

    Raises:
        BundleError: it wrote none; with what it said.
    """
    with ChildProcess(_MODULE, folder=folder, quiet=True) as child:
        try:
            child.ask(Message(request), _TIME_LIMIT_S)
            how = "it wrote no model"
        except ChildTimeoutError:
            raise BundleError(f"{what} did not convert {source} in {_TIME_LIMIT_S} s") from None
        except ChildError as error:
            how = f"it ended ({error.how})"
    if made.is_file() and made.stat().st_size:
        return
    said = [line.strip() for line in child.printed.splitlines() if line.strip()]
    last = f"; it said: {said[-1][:_MOST_LETTERS]}" if said else ""
    raise BundleError(f"{what} cannot convert {source}: {how}{last}")
