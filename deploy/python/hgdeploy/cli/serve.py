# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy serve`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from hgdeploy.cli.engine_flags import add_engine_flags, with_own_options
from hgdeploy.cli.progress import told_if_slow
from hgdeploy.cli.terminal import Verbs, opened_bundle, say, warn
from hgdeploy.errors import EXIT_OK, ConfigError, HGDeployError
from hgdeploy.system.kinds import MANY
from hgdeploy.system.progress import OnLine

if TYPE_CHECKING:
    from hgdeploy.engines.auto.saved import Saved
    from hgdeploy.engines.options import EngineOptions
    from hgdeploy.serving.server.doors import DoorOptions
    from hgdeploy.serving.server.grpc.service import GrpcServer
    from hgdeploy.serving.server.http.body import BodyLimits
    from hgdeploy.serving.server.model import ServedModel, ServedOptions
    from hgdeploy.serving.server.models import Models

# The most images of an inference where nobody says it: on a CPU larger batches are no faster.
_BATCH_ON_GPU = 8


def add_serve(verbs: Verbs) -> None:
    """Add `hgdeploy serve`."""
    parser = verbs.add_parser("serve", help="answer requests for models over HTTP and gRPC")
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help="a model's folder")
    parser.add_argument(
        "--model-name", metavar="NAME", help="the name of one model with the bundles as versions"
    )
    parser.add_argument("--engine", help="as for hgdeploy predict")
    parser.add_argument("--precision", help="as for hgdeploy predict")
    parser.add_argument("--device", help="cpu (default) or gpu:N")
    add_engine_flags(parser)
    parser.add_argument("--threads", type=int, help="CPU threads (default: all this process has)")
    parser.add_argument(
        "--streams", type=int, help="inferences at once (default: one for each of the threads)"
    )
    parser.add_argument(
        "--http",
        default="127.0.0.1:8000",
        metavar="HOST:PORT",
        help="where to listen (default: 127.0.0.1:8000, this machine only)",
    )
    parser.add_argument(
        "--grpc", metavar="HOST:PORT", help="where to listen for gRPC as well (default: nowhere)"
    )
    parser.add_argument(
        "--max-batch",
        type=int,
        help=f"most images of an inference (default: 1 on a CPU, {_BATCH_ON_GPU} on a "
        "GPU; with --engine auto, as measured)",
    )
    parser.add_argument(
        "--max-delay-ms",
        type=float,
        default=0.0,
        help="how long an image may wait for others to share its inference (default: 0)",
    )
    parser.add_argument(
        "--max-queue",
        type=int,
        default=128,
        help="most images that wait; further requests get status 503 (default: 128)",
    )
    parser.add_argument(
        "--max-body-mb", type=float, default=16.0, help="largest request (default: 16)"
    )
    parser.add_argument(
        "--max-pixels", type=int, default=1 << 26, help="largest picture (default: 67108864)"
    )
    parser.add_argument(
        "--drain-seconds",
        type=float,
        default=30.0,
        help="how long requests that have begun may take after SIGTERM (default: 30)",
    )
    parser.add_argument(
        "--api-key-file",
        type=Path,
        help="a file with the key that requests must bring as Authorization: Bearer KEY",
    )
    parser.add_argument(
        "--tls-certificate", type=Path, metavar="FILE", help="serve over TLS with this PEM file"
    )
    parser.add_argument(
        "--tls-key", type=Path, metavar="FILE", help="the certificate's private key, in PEM"
    )
    parser.add_argument(
        "--model-control",
        choices=("none", "explicit"),
        default="none",
        help="explicit: requests to /v2/repository may load models again and unload them",
    )
    parser.add_argument(
        "--paddle-serving", action="store_true", help="answer PaddleClas's old /imagenet/prediction"
    )
    parser.add_argument(
        "--access-log", action="store_true", help="print a line of JSON for each request"
    )
    parser.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.serving.server.model import ServedOptions
    from hgdeploy.serving.server.models import Models
    from hgdeploy.serving.server.running import Listener, run_server
    from hgdeploy.system.checks import check
    from hgdeploy.system.kinds import number
    from hgdeploy.system.libraries import import_library

    for library in ("starlette", "uvicorn", "httptools", "python_multipart"):
        import_library(library, "serve")
    from hgdeploy.serving.server.http.app import Api
    from hgdeploy.serving.server.http.body import BodyLimits
    from hgdeploy.serving.server.http.listen import HttpServer

    drain = check("--drain-seconds", arguments.drain_seconds, number(0, 3600))
    limits = BodyLimits(arguments.max_body_mb)
    served = ServedOptions(
        name=arguments.model_name,
        max_queue=arguments.max_queue,
        max_delay_ms=arguments.max_delay_ms,
        max_pixels=arguments.max_pixels,
    )
    http_at = _address("--http", arguments.http)
    grpc_at = None if arguments.grpc is None else _address("--grpc", arguments.grpc)
    hosts = [one[0] for one in (http_at, grpc_at) if one is not None]
    models, doors = Models(drain), _doors(arguments, out, hosts)
    app = Api(models, limits, doors).app()
    # Both take their ports before the models are loaded, which may take long.
    http = HttpServer(app, http_at, doors.tls)
    with contextlib.closing(http):
        grpc = None if grpc_at is None else _grpc_server(grpc_at, models, limits, doors)

        def on_ready() -> None:
            for name, version, model in models.all():
                ran = model.classifier.engine.runtime
                say(f"{name} (version {version}): {ran.engine} {ran.precision} on {ran.device}")
            if grpc is not None:
                say(f"gRPC at {grpc.address}")
            say(f"ready at {http.address}")

        say(f"listening at {http.address}, and not ready until its models are loaded")
        loads = [
            functools.partial(_load, arguments, folder, served) for folder in arguments.bundles
        ]
        listeners: list[Listener] = [http] if grpc is None else [http, grpc]
        ended = run_server(models, loads, listeners, drain, on_ready)
    say("ended" if ended else "ended; some requests took too long and have no answer")
    return EXIT_OK


def _doors(arguments: argparse.Namespace, out: TextIO, hosts: Sequence[str]) -> DoorOptions:
    """Return who may ask for what.

    Raises:
        ConfigError: the options do not fit each other, or a file or key cannot be used.
    """
    from hgdeploy.serving.server.doors import DoorOptions, Tls

    files = (arguments.tls_certificate, arguments.tls_key)
    if (files[0] is None) != (files[1] is None):
        raise ConfigError("--tls-certificate and --tls-key go together; give both or none")
    key, control = _key(arguments.api_key_file), arguments.model_control == "explicit"
    if control and key is None and not all(_is_loopback(host) for host in hosts):
        raise ConfigError(
            "--model-control explicit at an address that others reach needs --api-key-file; else "
            "anybody could unload the models"
        )
    return DoorOptions(
        key=key,
        control=control,
        paddle_serving=arguments.paddle_serving,
        tls=None if files[0] is None else Tls(*files),
        on_access=_logger(out) if arguments.access_log else None,
    )


def _load(arguments: argparse.Namespace, folder: Path, served: ServedOptions) -> ServedModel:
    from hgdeploy.classify.settings import ClassifierSettings
    from hgdeploy.convert.engine_files import ensure_artifact
    from hgdeploy.engines.auto.choose import Asked, choose
    from hgdeploy.engines.options import EngineOptions
    from hgdeploy.serving.server.model import ServedModel

    asked = Asked(arguments.engine, arguments.precision, arguments.device)
    run, saved = choose(folder, asked, say)
    options = run.options(EngineOptions())
    batch = arguments.max_batch
    if batch is None and saved is not None:
        batch = saved.batch
    elif batch is None:
        batch = 1 if options.device == "cpu" else _BATCH_ON_GPU
    options = dataclasses.replace(
        options, threads=arguments.threads, max_batch=batch, cache_dir=folder / ".cache"
    )
    options = with_own_options(arguments, run.engine, _divided(options, arguments.streams, saved))
    bundle = opened_bundle(folder)
    if run.engine is not None:
        ensure_artifact(bundle, run.engine, options, say, warn)
    with told_if_slow(f"loading {folder}"):
        model = ServedModel(bundle, ClassifierSettings(run.engine, batch, options), served)
    for warning in model.classifier.warnings:
        if warning not in bundle.notes:
            warn(warning)
    return model


def _divided(options: EngineOptions, streams: int | None, saved: Saved | None) -> EngineOptions:
    """Return options that divide the CPU threads among inferences.

    Raises:
        ConfigError: there are fewer threads than streams, or a GPU runs the model.
    """
    from hgdeploy.classify.folder import folder_options

    if streams is None:
        return folder_options(options, MANY, saved)
    if options.device != "cpu":
        raise ConfigError("--streams divides CPU threads; leave it out where a GPU runs the model")
    if (most := options.cpu_threads) < streams or streams < 1:
        raise ConfigError(f"--streams is {streams}, expected 1 to {most}, the CPU threads")
    return dataclasses.replace(options, threads=most // streams, streams=streams)


def _grpc_server(
    where: tuple[str, int], models: Models, limits: BodyLimits, doors: DoorOptions
) -> GrpcServer:
    """Return the server for gRPC, whose libraries are loaded only where it is asked for."""
    from hgdeploy.serving.server.grpc import LIBRARIES
    from hgdeploy.system.libraries import import_library

    for library in LIBRARIES:
        import_library(library, "serve")
    from hgdeploy.serving.server.grpc.service import GrpcServer

    return GrpcServer(models, where, limits.max_body_mb, doors)


def _address(flag: str, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port[:9]) > 65535:
        raise ConfigError(f"{flag} is {text!r}, expected HOST:PORT, such as 127.0.0.1:8000")
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _key(path: Path | None) -> str | None:
    """Return the key in a file.

    Raises:
        ConfigError: the file cannot be read, or does not hold one line.
    """
    if path is None:
        return None
    from hgdeploy.system.documents import read_lines

    try:
        lines = [line.strip() for line in read_lines(path) if line.strip()]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--api-key-file {path} cannot be read: {reason}") from None
    if len(lines) != 1:
        raise ConfigError(f"--api-key-file {path} has {len(lines)} lines, expected one: the key")
    return lines[0]


def _logger(out: TextIO) -> OnLine:
    lost = False

    def write(line: str) -> None:
        nonlocal lost
        try:
            out.write(line + "\n")
            out.flush()
        except (OSError, HGDeployError):  # no reason not to answer requests
            if not lost:
                warn("the access log cannot be written any more; the server goes on without it")
            lost = True

    return write
