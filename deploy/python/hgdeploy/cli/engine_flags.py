# SPDX-License-Identifier: Apache-2.0
"""Flags that only one engine has."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from hgdeploy.errors import ConfigError

if TYPE_CHECKING:
    from hgdeploy.engines.options import EngineOptions
    from hgdeploy.engines.tensorrt.options import TensorRtOptions


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that only one engine has."""
    parser.add_argument(
        "--onednn",
        choices=("on", "off"),
        help="with the paddle engine on a CPU (default: on, unless it computes the model wrongly)",
    )
    add_host_code_flag(parser)


def add_host_code_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag with which an engine file may run code on the CPU."""
    parser.add_argument(
        "--allow-host-code",
        action="store_true",
        help="with the tensorrt engine: run the code for the CPU that a version-compatible engine "
        "file has in it; only for files that you trust",
    )


def with_own_options(
    arguments: argparse.Namespace, engine: str | None, options: EngineOptions
) -> EngineOptions:
    """Return options with the engine's own as its flags say.

    Raises:
        ConfigError: a flag of another engine was given.
    """
    from hgdeploy.engines.paddle.options import PaddleOptions

    own: dict[type, object] = {type(each): each for each in options.own}
    if arguments.onednn is not None:
        if (engine, options.device) != ("paddle", "cpu"):
            raise ConfigError("--onednn has no effect but with --engine paddle on the CPU")
        paddle = options.own_of(PaddleOptions)
        own[PaddleOptions] = dataclasses.replace(paddle, onednn=arguments.onednn == "on")
    return dataclasses.replace(options, own=(*own.values(), *host_code_options(arguments, engine)))


def host_code_options(
    arguments: argparse.Namespace, *engines: str | None
) -> tuple[TensorRtOptions, ...]:
    """Return the options for `--allow-host-code`, empty where it is not given.

    Args:
        arguments: the parsed flags.
        engines: those that run.

    Raises:
        ConfigError: it was given, and TensorRT is none of them.
    """
    from hgdeploy.engines.tensorrt.options import TensorRtOptions

    if not arguments.allow_host_code:
        return ()
    if "tensorrt" not in engines:
        raise ConfigError("--allow-host-code has no effect without the engine tensorrt")
    return (TensorRtOptions(host_code=True),)
