# SPDX-License-Identifier: Apache-2.0
"""The entry points of the command lines, and the list of verbs.

Only results go to stdout; progress, warnings, errors and whatever native libraries print go to
stderr.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from hgdeploy._version import __version__
from hgdeploy.cli.terminal import Command, Parser, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `hgdeploy` command.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit code; see `hgdeploy.errors`.
    """
    return run_command(lambda: _hgdeploy(argv))


def predict_cls(argv: Sequence[str] | None = None) -> int:
    """Run `predict_cls.py`, with PaddleClas's arguments; see `main`."""
    from hgdeploy.cli.predict_cls import predict_cls_command

    return run_command(lambda: predict_cls_command(argv))


def paddleclas(argv: Sequence[str] | None = None) -> int:
    """Run `hgdeploy-paddleclas`, with the arguments of PaddleClas's package; see `main`."""
    from hgdeploy.cli.paddleclas import paddleclas_command

    return run_command(lambda: paddleclas_command(argv))


def tool(name: str, argv: Sequence[str] | None = None) -> int:
    """Run PaddleClas's `train.py`, `infer.py`, `eval.py` or `export_model.py`; see `main`."""
    from hgdeploy.cli.tools.script import tool_command

    return run_command(lambda: tool_command(name, argv))


def paddle2onnx(argv: Sequence[str] | None = None) -> int:
    """Run `deploy/paddle2onnx/convert.py`, with paddle2onnx's arguments; see `main`."""
    from hgdeploy.cli.make.paddle2onnx import paddle2onnx_command

    return run_command(lambda: paddle2onnx_command(argv))


def _hgdeploy(argv: Sequence[str] | None) -> Command:
    # Here, since the two scripts beside this command need none of them.
    from hgdeploy.cli.doctor import add_doctor
    from hgdeploy.cli.make.build import add_build
    from hgdeploy.cli.make.convert import add_convert
    from hgdeploy.cli.make.export import add_export
    from hgdeploy.cli.make.export_mobile import add_export_mobile
    from hgdeploy.cli.make.quantize import add_quantize
    from hgdeploy.cli.measure.benchmark import add_benchmark
    from hgdeploy.cli.measure.explain import add_explain
    from hgdeploy.cli.measure.recommend import add_recommend
    from hgdeploy.cli.measure.tune import add_tune
    from hgdeploy.cli.measure.validate import add_validate
    from hgdeploy.cli.models import add_models
    from hgdeploy.cli.predict import add_predict
    from hgdeploy.cli.serve import add_serve
    from hgdeploy.cli.tools.eval import add_eval
    from hgdeploy.cli.tools.infer import add_infer
    from hgdeploy.cli.tools.train import add_train
    from hgdeploy.cli.tools.train_report import add_train_report

    add_all = (
        add_predict,
        add_train,
        add_train_report,
        add_infer,
        add_eval,
        add_export,
        add_models,
        add_convert,
        add_quantize,
        add_export_mobile,
        add_build,
        add_validate,
        add_explain,
        add_benchmark,
        add_recommend,
        add_tune,
        add_serve,
        add_doctor,
    )
    parser = Parser(prog="hgdeploy", description="Deploy a PaddleClas-style classifier.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for add in add_all:
        add(verbs)
    arguments = parser.parse_args(argv)
    return functools.partial(arguments.run, arguments)
