# SPDX-License-Identifier: Apache-2.0
"""What runs, and what is done to images and scores: as the settings say, or as the bundle does."""

from __future__ import annotations

import dataclasses

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.bundle.names import DESCRIPTION
from hgdeploy.classify.settings import ClassifierSettings
from hgdeploy.engines.auto.choose import AUTO, Asked, choose, with_saved
from hgdeploy.engines.run import Run
from hgdeploy.errors import ConfigError
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.attributes import Attributes
from hgdeploy.transforms.difference import ops_difference
from hgdeploy.transforms.operators import Op
from hgdeploy.transforms.postprocess import Postprocess, Topk
from hgdeploy.transforms.postprocess_config import SAVE


def asked_precision(settings: ClassifierSettings) -> str | None:
    """Return the precision of settings; None where `auto` may choose it: fp32 is their default."""
    precision = settings.options.precision
    return None if settings.engine == AUTO and precision == "fp32" else precision


def chosen_run(
    settings: ClassifierSettings, precision: str | None, bundle: ModelBundle, on_choice: OnLine
) -> tuple[ClassifierSettings, Run]:
    """Return what runs, and settings that ask for just that.

    Args:
        settings: the settings; with the engine `auto`, their default device is left open.
        precision: the precision that was asked for, if any.
        bundle: the bundle.
        on_choice: see `choose`.

    Raises:
        BundleError: see `choose`.
        ConfigError: likewise.
    """
    engine, options = settings.engine, settings.options
    device = None if engine == AUTO and options.device == "cpu" else options.device
    chosen = choose(bundle.root, Asked(engine, precision, device), on_choice)
    options = chosen.run.options(with_saved(options, chosen.saved))
    options = dataclasses.replace(options, max_batch=settings.batch_size)
    return dataclasses.replace(settings, engine=chosen.run.engine, options=options), chosen.run


def chosen_ops(settings: ClassifierSettings, bundle: ModelBundle) -> tuple[Op, ...]:
    """Return the settings' transform ops, else the bundle's.

    Raises:
        ConfigError: neither has any.
        BundleError: the bundle's are needed, and not served.
    """
    if settings.preprocess is not None:
        return settings.preprocess
    try:
        return bundle.own_preprocess()
    except ConfigError as error:
        raise ConfigError(
            f"{error}; write one, or give a PaddleClas config whose labels fit too (see --help)"
        ) from None


def chosen_postprocess(settings: ClassifierSettings, bundle: ModelBundle) -> Postprocess:
    """Return the settings' postprocessing, else the bundle's, else Top-5 without names.

    Raises:
        ConfigError: `settings.topk` does not apply.
        BundleError: the bundle's is needed, and not served.
    """
    chosen = settings.postprocess or bundle.own_postprocess()
    chosen = chosen or Postprocess(Topk(5), labels_given=False)
    if not chosen.labels_given and bundle.labels is not None:
        chosen = chosen.with_labels(bundle.labels)
    return chosen if settings.topk is None else chosen.with_topk(settings.topk)


def choice_warnings(settings: ClassifierSettings, bundle: ModelBundle) -> list[str]:
    """Return what to tell where what is used differs from the bundle, or from its network."""
    warnings = [
        f"{reason}; it is not used, since the config has its own"
        for reason in bundle.unserved.values()
    ]
    if bundle.asks_for_copies:
        warnings.append(
            f"{bundle.root / DESCRIPTION}: PostProcess.{SAVE} is not followed, since a model does "
            f"not say where files are written; predict_cls.py copies the images with "
            f"-o PostProcess.{SAVE}.save_dir=FOLDER"
        )
    output = chosen_postprocess(settings, bundle).output
    if isinstance(output, Attributes):
        warnings += output.notes
    used = chosen_ops(settings, bundle)
    differences = [] if bundle.preprocess is None else ops_difference(used, bundle.preprocess)
    if not differences:
        warnings += bundle.feed_notes(used, sizes=settings.preprocess is None)
    else:
        warnings.append(
            f"the config's preprocessing differs from the bundle's own ({bundle.root}) and is "
            f"used: {'; '.join(differences)}; leave PreProcess out of the config to use the "
            "bundle's own"
        )
    return warnings
