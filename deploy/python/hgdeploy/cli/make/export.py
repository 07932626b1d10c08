# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TextIO

from hgdeploy.cli.terminal import Verbs, say
from hgdeploy.errors import EXIT_OK, ConfigError
from hgdeploy.system.checks import check
from hgdeploy.system.kinds import MANY, whole


def add_export(verbs: Verbs) -> None:
    """Add `hgdeploy export`."""
    parser = verbs.add_parser("export", help="write a bundle from a zoo model and its weights")
    parser.add_argument("name", metavar="NAME", help="a model of the zoo; see hgdeploy models")
    parser.add_argument("--weights", required=True, help=".pdparams or .pth file, or 'none'")
    parser.add_argument("--output", type=Path, required=True, help="the bundle's folder")
    parser.add_argument(
        "--num-classes", type=int, default=1000, help="classes of the weights (1000)"
    )
    parser.add_argument("--labels", type=Path, help="label file with one 'ID NAME' per line")
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.transforms.postprocess_config import read_labels
    from hgdeploy.zoo.export import bundle_from_weights

    check("--num-classes", arguments.num_classes, whole(1, MANY))
    labels = None
    if arguments.labels is not None:
        named = read_labels(arguments.labels)
        if set(named) != set(range(arguments.num_classes)):
            raise ConfigError(
                f"--labels {arguments.labels} names {len(named)} classes, expected ids 0 to "
                f"{arguments.num_classes - 1}; check --num-classes"
            )
        labels = [named[i] for i in range(arguments.num_classes)]
    bundle = bundle_from_weights(
        arguments.name,
        None if arguments.weights == "none" else Path(arguments.weights),
        arguments.output,
        num_classes=arguments.num_classes,
        labels=labels,
        on_progress=say,
    )
    out.write(f"{bundle}\n")
    return EXIT_OK
