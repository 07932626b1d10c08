# SPDX-License-Identifier: Apache-2.0
"""Before measuring: find each case's bundle, and make what can be made without weights or images.

Latency does not depend on the weights, so a bundle of the zoo that is missing is exported with
random ones, and the results say so. Reduced precisions need real images, and are not made here but
for an engine file: TensorRT's is built for the very batch that is measured, see
`convert.engine_files`.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path

from hgdeploy import zoo
from hgdeploy.benchmark.case import Case, Suite, usual_device
from hgdeploy.bundle.model_bundle import ModelBundle, open_bundle, open_model
from hgdeploy.bundle.model_files import model_digest
from hgdeploy.bundle.names import ALONE, ONNX_FILE, mnn_name, ncnn_name
from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.convert.engine_files import check_buildable, is_built, with_engine
from hgdeploy.engines import engine_module
from hgdeploy.engines.auto.choose import AUTO, Asked, choose
from hgdeploy.engines.run import artifact_of
from hgdeploy.errors import ConfigError, nearest
from hgdeploy.system.progress import OnLine

_STEM = "inference"  # the sidecar of the bundle itself is inference.meta.json
# What conversion makes without asking for more, such as images to calibrate on.
_MADE = frozenset({ONNX_FILE, mnn_name("fp32"), ncnn_name("fp32")})
# The default photograph for the scope `pipeline`, relative to the top folder of HGDeploy.
_PHOTO = Path("deploy") / "images" / "coffee.jpg"


@dataclass(frozen=True)
class ModelFacts:
    """What a result says about the model that was measured.

    Attributes:
        artifact: the file's name.
        file: the file itself, where it is not the bundle's; else None.
        sha256: hash of the file, or of its hash and those of the weights beside it.
        weights: `random` or `file`; None if unknown.
    """

    artifact: str
    sha256: str
    weights: str | None
    file: Path | None = None


def bundle_folder(case: Case, bundles: Path) -> Path:
    """Return the folder of a case's bundle, which may not exist yet, or its file.

    Args:
        case: its model is a name of the zoo, a folder, or a model file that stands alone.
        bundles: the folder of the zoo's bundles.

    Raises:
        ConfigError: the model is none of these.
    """
    if case.model in zoo.names():
        return (bundles / f"{case.model}_infer").absolute()
    place = Path(case.model)
    if place.is_dir() or (place.is_file() and place.suffix in ALONE):
        return place.absolute()
    raise ConfigError(
        f"model {case.model!r} is neither a folder, nor a file that ends with {', '.join(ALONE)}, "
        f"nor in the zoo, {nearest(case.model, zoo.names())}"
    )


def served(suite: Suite, bundles: Path, on_choice: OnLine) -> Suite:
    """Return a suite with the engine and precision that serve each model, where it names none.

    The engine `auto` becomes the one that was saved for a model; threads and batches are those of
    the suite.

    Args:
        suite: the suite.
        bundles: the folder of the zoo's bundles.
        on_choice: called with a line where that is not Paddle in fp32, or `auto` chose.

    Raises:
        ConfigError: a model is neither in the zoo nor a folder, or see `choose`.
    """
    if not suite.models or (suite.engines and suite.precisions and AUTO not in suite.engines):
        return suite
    asked = list(itertools.product(suite.engines or (None,), suite.precisions or (None,)))
    chosen = {
        model: [
            _chosen(suite, bundle_folder(Case(model), bundles), *each, on_choice) for each in asked
        ]
        for model in suite.models
    }
    runs = list(itertools.chain(*chosen.values()))
    engines, precisions = (tuple(dict.fromkeys(names)) for names in zip(*runs, strict=True))
    others = tuple(
        {"model": model, "engine": engine, "precision": precision}
        for model, own in chosen.items()
        for engine, precision in itertools.product(engines, precisions)
        if (engine, precision) not in own
    )
    exclude = (*suite.exclude, *others)
    return dataclasses.replace(suite, engines=engines, precisions=precisions, exclude=exclude)


def _chosen(
    suite: Suite, folder: Path, engine: str | None, precision: str | None, on_choice: OnLine
) -> tuple[str, str]:
    """Return the engine and the precision that serve a model; see `served`."""
    run = choose(folder, Asked(engine, precision, suite.device), on_choice).run
    if engine == AUTO and run.device != (suite.device or usual_device(run.engine)):
        raise ConfigError(f"engine auto is {run.name} for {folder}; add --device {run.device}")
    return run.engine, run.precision


def photograph(image: Path | None) -> Path:
    """Return the path of the photograph for the scope `pipeline`.

    Args:
        image: the suite's own; None for HGDeploy's.

    Raises:
        ConfigError: the file does not exist.
    """
    path = image or Path(__file__).resolve().parents[5] / _PHOTO
    if not path.is_file():
        raise ConfigError(
            f"the scope pipeline needs a photograph, and {path} is no file; name one with --image"
        )
    return path.absolute()


def is_missing(case: Case, folder: Path) -> bool:
    """Return whether `make_missing` has something to do for a case, or must look for itself."""
    if not folder.exists() or is_built(case.engine, case.precision):
        return True
    names = engine_module(case.engine).artifact_names(case.precision)
    absent = not any((folder / name).is_file() for name in names)
    return folder.is_dir() and not _MADE.isdisjoint(names) and absent


def make_missing(case: Case, folder: Path, on_line: OnLine) -> Path | None:
    """Export the bundle if it does not exist, and convert or build it if the case needs that.

    Args:
        case: the case.
        folder: its bundle's folder, or the file that stands for it.
        on_line: called with a line for each thing that is made, for each warning, and on how far a
            build is.

    Returns:
        The file to measure, where it is not one of the bundle's usual ones; else None.

    Raises:
        HGDeployError: the bundle or its file cannot be made.
    """
    from hgdeploy.convert.mobile.from_onnx import TARGETS
    from hgdeploy.convert.mobile.variants import convert_for_engine
    from hgdeploy.convert.variants import ConvertOptions, convert_to_onnx
    from hgdeploy.zoo.export import bundle_from_weights

    if is_built(case.engine, case.precision):
        check_buildable(case.options)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        bundle_from_weights(case.model, None, folder)
        on_line(f"made {folder} with random weights, for timing only")
    if is_built(case.engine, case.precision):
        return with_engine(open_model(folder), case.options, on_line, on_line).file
    if is_missing(case, folder):
        bundle = open_bundle(folder)
        if case.engine in TARGETS:
            made = convert_for_engine(bundle, case.engine, on_line)
        else:
            made = convert_to_onnx(bundle, ConvertOptions(), on_line)
        on_line(f"made {made}")
    return None


def bundle_to_measure(folder: Path, file: Path | None) -> ModelBundle:
    """Open a case's bundle.

    Args:
        folder: its folder, or the file that stands for it.
        file: what `make_missing` returned.

    Raises:
        BundleError: it cannot be opened.
    """
    bundle = open_model(folder)
    return bundle if file is None else dataclasses.replace(bundle, file=file)


def model_facts(case: Case, folder: Path, file: Path | None) -> ModelFacts:
    """Return the facts about the file that a case's engine will load; see `bundle_to_measure`.

    Raises:
        BundleError: the bundle does not have the file, or it is stale.
    """
    artifact = artifact_of(bundle_to_measure(folder, file), case.run)
    return ModelFacts(artifact.name, model_digest(artifact), _weights(folder), file)


def _weights(folder: Path) -> str | None:
    """Return where the weights come from, according to the bundle's own sidecar."""
    origin = (read_sidecar(folder / _STEM) or {}).get("weights")
    source = origin.get("source") if isinstance(origin, dict) else None
    return source if isinstance(source, str) else None
