# SPDX-License-Identifier: Apache-2.0
"""Fixtures and rules that all tests share."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hgdeploy.engines import ENGINES, engine_module
from hgdeploy.system.machine import child_processes
from hgdeploy.system.processes import ChildProcess

pytest_plugins = ["registry_fixtures", "paddleclas_cache"]

REPO = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"
DOUBLES = Path(__file__).parent / "doubles"
MAKERS = Path(__file__).parent / "makers"
IMAGES = REPO / "deploy" / "images"
MINI = DATA / "pphgnet_mini"

# Files that take longest, most of it first: `make test` begins with them, so that no worker is left
# with one at the end while the other has nothing to do.
LONGEST = (
    "test_docs.py",
    "test_foreign_models.py",
    "test_convert.py",
    "test_build.py",
    "test_zoo.py",
)

# The command as a user runs it, for tests that start it and do not wait for its end.
HGDEPLOY = (sys.executable, "-c", "import sys; from hgdeploy.cli import main; sys.exit(main())")
# Seconds until a test gives up waiting; what it waits for comes long before, or never.
DEADLINE = 300

with warnings.catch_warnings():
    # Importing Paddle warns of a missing compiler cache and of deprecations in its own
    # dependencies; it is imported here once, so that every other warning stays an error.
    warnings.simplefilter("ignore")
    with contextlib.suppress(ImportError):
        import paddle.inference  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def has(module: str) -> bool:
    """Return whether a library is installed, without loading it."""
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


@pytest.fixture(scope="session")
def cpp_build() -> Path:
    """The folder in which `make cpp` has built; another in HGDEPLOY_CPP_BUILD."""
    build = Path(os.environ.get("HGDEPLOY_CPP_BUILD", REPO / "build" / "cpp"))
    if not (build / "hgdeploy-predict").is_file():
        if "cpp" in os.environ.get("HGDEPLOY_REQUIRED_ENGINES", "").split(","):
            pytest.fail(f"the C++ part is required here, and is not built in {build}")
        pytest.skip(
            f"the C++ part is not built in {build}: `make cpp` builds it where the packages of "
            "deploy/cpp/packages.txt are installed"
        )
    return build


@pytest.fixture(scope="session", autouse=True)
def current_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty current folder, so that tests find nothing that a user left in the checkout."""
    folder, before = tmp_path_factory.mktemp("current"), Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this run's own, for this process and those that it starts."""
    folder = tmp_path_factory.mktemp("user_cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", str(folder))
        yield folder / "hgdeploy"


@pytest.fixture(autouse=True)
def _current_folder_stays_empty(current_folder: Path) -> Iterator[None]:
    yield
    left = sorted(current_folder.iterdir())
    for path in left:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not left, "this test wrote into the current folder; let it write below tmp_path"


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as at a terminal, for this process and for those that it starts.

    A shell starts its background jobs with SIGINT ignored, and children inherit that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
    return mini_bundle(tmp_path / "mini")


def mini_bundle(bundle: Path) -> Path:
    """Make the bundle of the fixture `mini`."""
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


@pytest.fixture(scope="session")
def foreign_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the bundle of one of `foreign.MODELS`, made once; it must not be changed."""
    folder = tmp_path_factory.mktemp("foreign")

    def made(name: str) -> Path:
        pytest.importorskip("paddle")
        from foreign import make_foreign

        return folder / name if (folder / name).exists() else make_foreign(name, folder / name)

    return made


class KeptProcess(ChildProcess):
    """A process that is not closed after its task, because a start of Paddle takes seconds."""

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def one_trial_process() -> Iterator[None]:
    """Let one process try oneDNN on all models of a file of tests, until one of them ends it."""
    kept: list[KeptProcess] = []

    def process(module: str, *, quiet: bool) -> KeptProcess:
        if not (kept and kept[-1].alive):
            kept.append(KeptProcess(module, quiet=quiet))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hgdeploy.engines.paddle.onednn.ChildProcess", process)
        yield
    for each in kept:
        each.close()


@pytest.fixture
def foreign(
    foreign_models: Callable[[str], Path], one_trial_process: None, tmp_path: Path
) -> Callable[[str], Path]:
    """Give a copy of the bundle of one of `foreign.MODELS`, for this test alone."""
    return lambda name: Path(shutil.copytree(foreign_models(name), tmp_path / name))


@pytest.fixture(scope="session")
def foreign_onnx_models(
    foreign_models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """As `foreign_onnx`, but the one bundle for all tests; it must not be changed."""
    folder = tmp_path_factory.mktemp("foreign_onnx")

    @functools.cache
    def made(name: str, description: str) -> Path:
        from hgdeploy.bundle.model_bundle import open_bundle
        from hgdeploy.convert.variants import ConvertOptions, convert_to_onnx

        bundle = folder / f"{len(list(folder.iterdir()))}"
        shutil.copytree(foreign_models(name), bundle)
        with (bundle / "inference.yml").open("a", encoding="utf-8") as file:
            file.write(description)
        convert_to_onnx(open_bundle(bundle), ConvertOptions(check=False), lambda _: None)
        return bundle

    return made


@pytest.fixture
def foreign_onnx(
    foreign_onnx_models: Callable[[str, str], Path], one_trial_process: None, tmp_path: Path
) -> Callable[..., Path]:
    """Give such a bundle with its unchecked ONNX file, and with more at the end of its yml."""
    return lambda name, more="": Path(
        shutil.copytree(foreign_onnx_models(name, more), tmp_path / name)
    )


def run_command(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command line of ours as a user would, in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def hgdeploy(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `hgdeploy ARGUMENTS`."""
    return run_command(*HGDEPLOY[1:], *arguments, cwd=cwd)


def predict_cls(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `predict_cls.py ARGUMENTS`."""
    return run_command(REPO / "deploy" / "python" / "predict_cls.py", *arguments, cwd=cwd)


@pytest.fixture
def run_here(
    capfd: pytest.CaptureFixture[str],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command line's function in this process, where the libraries are already loaded."""

    def run(
        command: Callable[[list[str]], int], *arguments: object
    ) -> subprocess.CompletedProcess[str]:
        words = list(map(str, arguments))
        capfd.readouterr()
        code = command(words)
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(words, code, out, err)

    return run


def children(module: str, parent: int | None = None) -> list[int]:
    """Return the processes that run `module` and were started by `parent`, or by this process."""
    found = child_processes(parent)
    return [pid for pid in found if module in Path(f"/proc/{pid}/cmdline").read_text()]


def wait_for_a_row(process: subprocess.Popen[str] | subprocess.Popen[bytes], rows: Path) -> None:
    """Wait until the first row is safe, or the process has ended.

    A signal may undo the row that is just being written, so the first row is safe once there is a
    second.
    """
    while process.poll() is None and (not rows.exists() or rows.read_bytes().count(b"\n") < 2):
        time.sleep(0.001)
