# SPDX-License-Identifier: Apache-2.0
"""Fixtures and rules that all tests share."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from hgdeploy.engines import ENGINES, engine_module
from hgdeploy.system.machine import child_processes

pytest_plugins = ["registry_fixtures"]

REPO = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"
DOUBLES = Path(__file__).parent / "doubles"
MAKERS = Path(__file__).parent / "makers"
IMAGES = REPO / "deploy" / "images"
MINI = DATA / "pphgnet_mini"

with warnings.catch_warnings():
    # Paddle's import warns of a compiler cache it lacks and of deprecations in its own
    # dependencies; imported here once, so that every other warning stays an error.
    warnings.simplefilter("ignore")
    with contextlib.suppress(ImportError):
        import paddle.inference  # noqa: F401


def has(module: str) -> bool:
    """Tell whether a library is installed, without loading it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def require_engine(name: str) -> None:
    """Skip where the engine's library or device is missing, unless this run must have it."""
    found = engine_module(name).capability()
    if found.version is None:
        if name in os.environ.get("HGDEPLOY_REQUIRED_ENGINES", "").split(","):
            pytest.fail(f"the {name} engine is required here, and its library is not installed")
        pytest.skip(f"the library of the {name} engine is not installed")
    if not found.devices:
        pytest.skip(f"the {name} engine {found.notes[0]}")


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    require_engine(request.param)
    return str(request.param)


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """The input `x` and `probabilities` of pphgnet_mini as Paddle 2.6.2 computed them."""
    with np.load(MINI / "golden.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    """A bundle of pphgnet_mini in both formats, with its own 64-pixel preprocessing and labels."""
    bundle = tmp_path / "mini"
    shutil.copytree(MINI, bundle)
    labels = "\n".join(f"      - name {i}, the" for i in range(10))
    (bundle / "inference.yml").write_text(
        f"""\
Global:
  model_name: pphgnet_mini
PreProcess:
  transform_ops:
    - ResizeImage: {{resize_short: 72}}
    - CropImage: {{size: 64}}
    - NormalizeImage: {{scale: 1.0/255.0, order: ''}}
    - ToCHWImage:
PostProcess:
  Topk:
    topk: 5
    label_list:
{labels}
""",
        encoding="utf-8",
    )
    return bundle


def run_command(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command line of ours as a user would, in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def hgdeploy(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `hgdeploy ARGUMENTS`."""
    code = "import sys; from hgdeploy.cli import main; sys.exit(main())"
    return run_command("-c", code, *arguments, cwd=cwd)


def predict_cls(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `predict_cls.py ARGUMENTS`."""
    return run_command(REPO / "deploy" / "python" / "predict_cls.py", *arguments, cwd=cwd)


def children(module: str, parent: int | None = None) -> list[int]:
    """Return the processes that run `module` and that `parent`, or this one, has started."""
    found = child_processes(parent)
    return [pid for pid in found if module in Path(f"/proc/{pid}/cmdline").read_text()]


def wait_for_a_row(process: subprocess.Popen[str] | subprocess.Popen[bytes], rows: Path) -> None:
    """Wait until the first row is there to stay, or the process has ended.

    A signal may take back the row that is just being written: the first is safe with the second.
    """
    while process.poll() is None and (not rows.exists() or rows.read_bytes().count(b"\n") < 2):
        time.sleep(0.001)
