# SPDX-License-Identifier: Apache-2.0
"""Rules about the source: imports point downward, rooms stay small, heavy libraries stay put."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

from conftest import REPO

PACKAGE = REPO / "deploy" / "python" / "hgdeploy"
MODULES = sorted(PACKAGE.rglob("*.py"))

# The floors of the house, from the ground up, and the rooms on each: a folder, or a module that
# lies in no folder. A room may import from itself and from lower floors, not from its neighbours.
FLOORS = (
    ("errors", "_version"),
    ("system",),
    ("transforms",),
    ("images", "bundle", "gpu"),
    ("engines", "results"),
    ("classify", "validation", "zoo"),
    ("convert", "serving", "training"),
    ("benchmark", "paddleclas"),
    ("cli", "hgdeploy"),
)
# Modules that only give a name of the rooms to users; they stand on the top floor.
DOORS = ("folder", "preprocess", "resume", "triton")
MOST_LINES = 300
MOST_MODULES = 12
# What makes a file whole, locks it, or reads text from outside without bounds, and the one module
# that may call it. (Scratch that is not published, by TemporaryFile and TemporaryDirectory, may be
# made anywhere.)
ONE_PLACE = {
    **dict.fromkeys(
        (
            *("replace", "rename", "renames", "move", "link", "hardlink_to", "fsync", "fdatasync"),
            *("mkstemp", "mkdtemp", "mktemp", "NamedTemporaryFile"),
        ),
        "system/files.py",
    ),
    **dict.fromkeys(("flock", "lockf", "locking"), "system/locks.py"),
    **dict.fromkeys(("loads", "safe_load"), "system/documents.py"),
}
# Who may import what is slow to load or may be missing.
HEAVY = {
    "paddle": ("engines/paddle/", "zoo/", "training/"),
    "onnxruntime": ("engines/onnxruntime.py",),
    "openvino": ("engines/openvino/",),
    "onnx": ("convert/", "engines/onnx_taps.py"),
    "cuda": ("gpu/bindings.py",),
    "pycuda": ("gpu/pycuda.py",),
    "pynvml": ("gpu/nvml.py",),
    "tensorrt": ("convert/tensorrt/", "engines/tensorrt/"),
    "tensorrt_rtx": ("convert/tensorrt/", "engines/tensorrt/"),
    "MNN": ("engines/mnn/",),
    "ncnn": ("engines/ncnn/",),
    "starlette": ("serving/server/http/",),
    "uvicorn": ("serving/server/http/",),
    "grpc": ("serving/server/grpc/",),
    "grpc_health": ("serving/server/grpc/",),
    "tritonclient": ("serving/triton/", "serving/server/grpc/"),
    "cv2": ("images/", "transforms/", "training/data/"),
    "simplejpeg": ("images/jpeg.py",),
    "matplotlib": (
        "benchmark/report/plot.py",
        "validation/evaluation/plot.py",
        "training/report.py",
    ),
    "visualdl": ("training/journal.py",),
    "pyarrow": ("results/tables.py",),
    "ray": ("classify/ray",),
    "yaml": ("system/documents.py", "bundle/description.py"),
}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(module: str) -> str:
    """Return the room of a dotted name; the package itself stands above all rooms."""
    parts = module.split(".")
    if len(parts) == 1 or parts[1] in DOORS:
        return "hgdeploy"
    return "cli" if parts[1] == "__main__" else parts[1]


def floor_of(room: str) -> int:
    floors = [floor for floor, rooms in enumerate(FLOORS) if room in rooms]
    assert floors, f"the room {room} stands on no floor; name it in FLOORS"
    return floors[0]


def imports_of(path: Path, *, when_loaded: bool = False) -> list[str]:
    """Every module a file imports; with `when_loaded`, only those that its own import imports."""
    found = []
    tree = parsed(path)
    for node in tree.body if when_loaded else ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
            found += [name for name in names if name in BY_NAME] or [module]
    return found


def own_module(path: Path) -> str:
    parts = ["hgdeploy", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


BY_NAME = {own_module(path): path for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_downward(path: Path):
    own = room_of(own_module(path))
    for name in imports_of(path):
        if name.split(".")[0] != "hgdeploy":
            continue
        room = room_of(name)
        assert room == own or floor_of(room) < floor_of(own), (
            f"{name_of(path)} imports {name}: the room {own} (floor {floor_of(own)}) may not "
            f"import from the room {room} (floor {floor_of(room)})"
        )


def test_no_modules_import_each_other_in_a_circle():
    """Imports inside functions do not count: they run when all modules are loaded."""
    below = {
        own_module(path): {n for n in imports_of(path, when_loaded=True) if n in BY_NAME}
        for path in MODULES
    }
    while below:
        ready = {name for name, needs in below.items() if not needs & (below.keys() - {name})}
        assert ready, f"these import each other: {sorted(below)}"
        below = {name: needs for name, needs in below.items() if name not in ready}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_longer_than_a_reader_can_hold(path: Path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{name_of(path)} has {lines} lines; split it by what it does"


def test_no_folder_has_more_modules_than_a_glance_takes_in():
    for folder in {path.parent for path in MODULES}:
        modules = [p.name for p in folder.glob("*.py") if p.name != "__init__.py"]
        assert len(modules) <= MOST_MODULES, f"{folder} has {len(modules)} modules; make rooms"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_libraries_are_imported_by_their_own_module_only(path: Path):
    for name in imports_of(path):
        allowed = HEAVY.get(name.split(".")[0])
        if allowed is not None:
            assert name_of(path).startswith(allowed), f"{name_of(path)} imports {name}"


def names_called(path: Path) -> set[str]:
    """The last names of all that a file calls; `replace` and `rename` only where of a path.

    A path's takes one argument; a string's takes two, a dataclass's and a date's have keywords.
    """
    found = set()
    for node in ast.walk(parsed(path)):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            found.add(node.func.id)
        elif isinstance(node.func, ast.Attribute):
            of_os = isinstance(node.func.value, ast.Name) and node.func.value.id == "os"
            of_path = len(node.args) == 1 and not node.keywords
            if node.func.attr not in ("replace", "rename") or of_os or of_path:
                found.add(node.func.attr)
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_are_published_and_locked_in_one_place(path: Path):
    called = names_called(path)
    for name, allowed in ONE_PLACE.items():
        if name in called:
            assert name_of(path) == allowed, f"{name_of(path)} calls {name}; {allowed} does that"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_evaluated_or_asserted(path: Path):
    tree = parsed(path)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    called = [
        n.func.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    ]
    assert not {"eval", "exec"} & set(called)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_each_module_has_its_licence_line_and_docstring(path: Path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert ast.get_docstring(parsed(path))
