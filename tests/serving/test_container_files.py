# SPDX-License-Identifier: Apache-2.0
"""The Dockerfile and the YAML of docs/serving.md fit the server."""

from __future__ import annotations

import argparse
import configparser
import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from conftest import REPO, has
from hgdeploy.cli.serve import add_serve
from hgdeploy.serving.server.models import Models

TEXT = (REPO / "docs" / "serving.md").read_text(encoding="utf-8")


def fences(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def parsed(arguments: list[str]) -> argparse.Namespace:
    """What the command understands; it exits where it does not."""
    parser = argparse.ArgumentParser()
    add_serve(parser.add_subparsers())
    return parser.parse_args(["serve", *arguments])


def lines_of(dockerfile: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in dockerfile.splitlines():
        word, _, rest = line.partition(" ")
        found.setdefault(word, []).append(rest)
    return found


def test_the_dockerfile_installs_what_there_is_and_starts_the_server():
    (text,) = fences("dockerfile")
    lines = lines_of(text)
    assert set(lines) <= {"FROM", "COPY", "RUN", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}
    for copied in lines["COPY"]:
        for source in shlex.split(copied)[:-1]:
            assert (REPO / source).exists(), source
    setup = configparser.ConfigParser()
    setup.read(REPO / "setup.cfg")
    (extras,) = re.findall(r"/opt/hgdeploy\[(.*)\]", lines["RUN"][0])
    assert set(extras.split(",")) <= set(setup["options.extras_require"])
    needed = {setup["metadata"]["license_files"], "README.md", "setup.cfg", "pyproject.toml"}
    assert needed <= set(shlex.split(lines["COPY"][0]))
    assert json.loads(lines["ENTRYPOINT"][0]) == ["hgdeploy", "serve"]
    asked = parsed(json.loads(lines["CMD"][0]))
    assert asked.http == f"0.0.0.0:{lines['EXPOSE'][0]}"


def probes(document: Any) -> Iterator[dict[str, Any]]:
    """Every `httpGet` in a document."""
    if isinstance(document, dict):
        yield from [document["httpGet"]] if "httpGet" in document else []
        document = list(document.values())
    if isinstance(document, list):
        for one in document:
            yield from probes(one)


def test_the_probes_and_the_runtime_fit_the_server():
    if not has("starlette"):
        pytest.skip("the extra serve is not installed")
    from hgdeploy.serving.server.doors import DoorOptions
    from hgdeploy.serving.server.http.app import Api
    from hgdeploy.serving.server.http.body import BodyLimits

    app = Api(Models(), BodyLimits(), DoorOptions()).app()
    paths = {route.path for route in app.routes}
    pod, runtime = [yaml.safe_load(text) for text in fences("yaml")]
    for document in (pod, runtime):
        assert len(list(probes(document))) >= 2
        assert {one["path"] for one in probes(document)} <= paths
    assert runtime["kind"] == "ServingRuntime"
    (container,) = runtime["spec"]["containers"]
    asked = parsed([argument.replace("{{.Name}}", "flowers") for argument in container["args"]])
    assert (asked.model_name, str(asked.bundles[0])) == ("flowers", "/mnt/models")
    port = container["ports"][0]["containerPort"]
    assert {one["port"] for one in probes(runtime)} == {port}
    assert asked.http == f"0.0.0.0:{port}"
    wait = parsed(["/models"]).drain_seconds + pod["lifecycle"]["preStop"]["sleep"]["seconds"]
    (grace,) = re.findall(r"terminationGracePeriodSeconds: (\d+)", TEXT)
    assert wait < int(grace)
