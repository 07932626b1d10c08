# SPDX-License-Identifier: Apache-2.0
"""The scripts of PaddleClas's folder `tools`, with their arguments."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from hgdeploy.cli.make.export import declare_export_model
from hgdeploy.cli.terminal import Command, Parser
from hgdeploy.cli.tools.eval import declare_eval
from hgdeploy.cli.tools.infer import declare_infer
from hgdeploy.cli.tools.train import declare_train

_SCRIPTS = {
    "train.py": (declare_train, "Train a network as PaddleClas's training config says."),
    "infer.py": (declare_infer, "Classify images as PaddleClas's training config says."),
    "eval.py": (declare_eval, "Measure accuracy as PaddleClas's training config says."),
    "export_model.py": (declare_export_model, "Export the model of PaddleClas's training config."),
}


def tool_command(name: str, argv: Sequence[str] | None) -> Command:
    """Parse the command line of one of the scripts.

    Args:
        name: the script: `train.py`, `infer.py`, `eval.py` or `export_model.py`.
        argv: its arguments; None for those of the process.
    """
    declare, description = _SCRIPTS[name]
    parser = Parser(prog=name, description=description)
    declare(parser)
    arguments = parser.parse_args(argv)
    return functools.partial(arguments.run, arguments)
