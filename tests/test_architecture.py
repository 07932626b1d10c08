# SPDX-License-Identifier: Apache-2.0
"""Rules about the source: imports point downward, and heavy libraries stay where they are."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from conftest import REPO

PACKAGE = REPO / "deploy" / "python" / "hgdeploy"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Lowest first; a module may import from its own floor and from those below.
FLOORS = (
    ("errors", "_version"),
    ("system",),
    ("gpu",),
    ("transforms",),
    ("images", "bundle"),
    ("engines", "results"),
    ("classify", "validation", "paddleclas", "zoo", "serving"),
    ("convert",),
    ("benchmark",),
    ("cli", "hgdeploy", "preprocess", "resume", "folder", "triton"),
)
# Who may import what is slow to load or may be missing.
HEAVY = {
    "paddle": ("engines/paddle/", "zoo/"),
    "onnxruntime": ("engines/onnxruntime.py",),
    "openvino": ("engines/openvino/",),
    "onnx": ("convert/", "engines/onnx_taps.py"),
    "cuda": ("convert/tensorrt/target_gpu.py", "gpu/bindings.py"),
    "pycuda": ("gpu/pycuda.py",),
    "tensorrt": ("convert/tensorrt", "engines/tensorrt/"),
    "tensorrt_rtx": ("convert/tensorrt", "engines/tensorrt/"),
    "tritonclient": ("serving/triton/",),
    "cv2": ("images/", "transforms/"),
    "simplejpeg": ("images/jpeg.py",),
    "matplotlib": ("benchmark/report/plot.py",),
    "pyarrow": ("results/tables.py",),
    "ray": ("classify/ray",),
}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def floor_of(module: str) -> int:
    parts = module.split(".")
    top = parts[1] if len(parts) > 1 else "hgdeploy"
    return next(i for i, names in enumerate(FLOORS) if top in names)


def imports_of(path: Path) -> list[str]:
    """Every module a file imports, at the top or inside a function."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            if node.module == "hgdeploy":
                found += [f"hgdeploy.{alias.name}" for alias in node.names]
            else:
                found.append(node.module or "")
    return found


def own_module(path: Path) -> str:
    parts = ["hgdeploy", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_downward(path: Path):
    own = own_module(path)
    for name in imports_of(path):
        if name.split(".")[0] != "hgdeploy" or (name == "hgdeploy" and own != "hgdeploy"):
            continue
        if name == "hgdeploy.zoo" or name.count(".") >= 1:
            assert floor_of(name) <= floor_of(own), f"{own} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_libraries_are_imported_by_their_own_module_only(path: Path):
    for name in imports_of(path):
        allowed = HEAVY.get(name.split(".")[0])
        if allowed is not None:
            assert name_of(path).startswith(allowed), f"{name_of(path)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_evaluated_or_asserted(path: Path):
    tree = ast.parse(path.read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    called = [
        n.func.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    ]
    assert not {"eval", "exec"} & set(called)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_each_module_has_its_licence_line_and_docstring(path: Path):
    text = path.read_text()
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert ast.get_docstring(ast.parse(text))
