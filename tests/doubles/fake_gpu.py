# SPDX-License-Identifier: Apache-2.0
"""A machine with two GPUs, for a process of its own: the fake driver and the fake TensorRT.

`check_on_fake_gpu` runs test files in such a process, where this module is a pytest plugin: after
each test everything must be freed, and nothing may have happened that a real GPU would punish.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DOUBLES = TESTS / "doubles"
_MUST_BE_ZERO = (
    "streams",
    "events",
    "graphs",
    "device bytes",
    "pinned bytes",
    "pushed",
    "violations",
)
# pycuda is linked to hundreds of functions; a lazy loader looks up only those that are used.
_LAZY = "import os, sys; sys.setdlopenflags(os.RTLD_LAZY)\n"
_METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"


def make_fake_gpu(folder: Path) -> dict[str, str]:
    """Compile the driver into `folder` and put the fake libraries there.

    Returns:
        The environment of a process on that machine.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler (cc) for the fake CUDA driver")
    if not sys.platform.startswith("linux"):
        pytest.skip("the fake CUDA driver is for Linux")
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    for name, library in (("cuda", "libcuda.so.1"), ("nvml", "libnvidia-ml.so.1")):
        soname = [f"-Wl,-soname,{library}", "-o", str(folder / library)]
        source = DOUBLES / "fake_cuda" / f"fake_{name}.c"
        subprocess.run([compiler, *flags, *soname, str(source)], check=True)
    (folder / "sitecustomize.py").write_text(_LAZY)
    for name in ("tensorrt", "tensorrt_rtx"):
        module = __import__(f"fake_{name}")
        package = folder / name
        package.mkdir()
        (package / "__init__.py").write_text(
            f"from fake_{name} import *\nfrom fake_{name} import __version__\n"
            + ("from fake_builder import *\n" if name == "tensorrt" else "")
        )
        facts = folder / f"{name}-{module.__version__}.dist-info"
        facts.mkdir()
        metadata = _METADATA.format(name=name.replace("_", "-"), version=module.__version__)
        (facts / "METADATA").write_text(metadata)
    paths = [str(folder), str(DOUBLES), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "FAKE_CUDA_DEVICES": "2",
    }


def check_on_fake_gpu(environment: dict[str, str], *arguments: str, may_skip: bool = False) -> None:
    """Run pytest with `arguments` on the fake machine; every test must run and pass."""
    command = [sys.executable, "-m", "pytest", "-p", "fake_gpu", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(
        [*command, *arguments],
        cwd=TESTS.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    output = done.stdout[-20000:] + done.stderr[-4000:]
    assert done.returncode == 0, output
    assert re.search(r"\b\d+ passed", done.stdout), output
    assert may_skip or "skipped" not in done.stdout, output


def driver() -> ctypes.CDLL:
    """Return the fake driver of this process."""
    library = ctypes.CDLL("libcuda.so.1")
    library.fake_cuda_count.argtypes = [ctypes.c_char_p]
    library.fake_cuda_count.restype = ctypes.c_longlong
    library.fake_cuda_first_violation.restype = ctypes.c_char_p
    return library


def count(what: str) -> int:
    """Return one of the driver's counters."""
    value = driver().fake_cuda_count(what.encode())
    assert value >= 0, f"the driver counts no {what}"
    return value


def fail(function: str, code: int, after: int = 0) -> None:
    """Make a call of a driver function fail once, after `after` successful ones."""
    driver().fake_cuda_fail(function.encode(), code, after)


def _scope(fixture_name: str, config: pytest.Config) -> str:
    """Return `module` for the contract of all engines, whose tests share one engine."""
    return "module" if "HGDEPLOY_TEST_ENGINE" in os.environ else "function"


@pytest.fixture(autouse=True, scope=_scope)
def nothing_is_left():
    """Check after the tests that everything is freed and the driver saw no violation."""
    if os.environ.get("FAKE_CUDA_DEVICES") is None:  # imported for its functions only
        yield
        return
    yield
    fail("", 0)
    reason = driver().fake_cuda_first_violation().decode()
    left = {what: count(what) for what in _MUST_BE_ZERO if count(what)}
    assert not left, f"{left} {reason}"
    # Each device's context is retained once, and stays until the process ends.
    assert count("retains") == count("contexts"), "a context was retained again, or was released"
