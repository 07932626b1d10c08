# SPDX-License-Identifier: Apache-2.0
"""The documents lead where they say, and become a site with all public names."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_architecture import FLOORS, PACKAGE

from conftest import REPO, has

ARCHITECTURE = REPO / "docs" / "architecture.md"
CONTRIBUTING = REPO / "CONTRIBUTING.md"
DOCUMENTS = [*REPO.glob("*.md"), *(REPO / "docs").glob("*.md")]
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)")
# A path in backticks; one with a word in capitals stands for several.
PATH = re.compile(r"`((?:\w+/)+(?:\w+\.\w+)?)`")
# The names that users import: a module each, with its `__all__`.
PUBLIC = re.findall(r"^::: (\S+)$", (REPO / "docs" / "api.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_to_files(document: Path):
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", [ARCHITECTURE, CONTRIBUTING], ids=lambda path: path.name)
def test_the_files_that_contributors_are_sent_to_exist(document: Path):
    paths = PATH.findall(document.read_text(encoding="utf-8"))
    named = [path for path in paths if not re.search(r"[A-Z]{4}", path)]
    assert len(named) > 20
    for path in named:
        there = any((root / path).exists() for root in (REPO, PACKAGE, PACKAGE.parent))
        assert there or path.startswith("build/"), f"{document.name} names {path}"


def test_the_floors_are_drawn_as_they_are():
    text = ARCHITECTURE.read_text(encoding="utf-8")
    picture = text.partition("```mermaid")[2].partition("```")[0]
    drawn = [tuple(label.split(", ")) for label in re.findall(r'\["(.+?)"\]', picture)]
    assert drawn[::-1] == [tuple(rooms) for rooms in FLOORS]
    table = text.partition("| room |")[2].partition("\n\n")[0]
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|(.+?)\|", table, re.MULTILINE)))
    assert listed == [room for rooms in FLOORS for room in rooms if room != "hgdeploy"]


def test_the_targets_of_make_that_are_named_exist():
    targets = re.findall(r"^([\w-]+):", (REPO / "Makefile").read_text(), re.MULTILINE)
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"(?:^|`)make ([a-z-]+)(?:`| |$)", text, re.MULTILINE):
            assert target in targets, f"{document.name} names make {target}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, in which a warning is an error."""
    if not (has("mkdocs") and has("material") and has("mkdocstrings")):
        pytest.skip("the extra docs is not installed; make lint or make docs installs it")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", folder],
        cwd=REPO, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return folder


def test_every_document_is_a_page_of_the_site(site: Path):
    names = {path.stem.lower() for path in DOCUMENTS} - {"readme"} | {"index", "photographs", "404"}
    assert {path.stem for path in site.glob("*.html")} == names
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "```" not in text, f"{page.name} has a fence that is not rendered"
        assert "no-test:" not in re.sub(r"<code>.*?</code>", "", text), page.name


def test_the_reference_has_every_public_name(site: Path):
    page = (site / "api.html").read_text(encoding="utf-8")
    assert len(PUBLIC) > 5
    for module in PUBLIC:
        names = getattr(importlib.import_module(module), "__all__", ())
        for name in names:
            assert name == "__version__" or f'id="{module}.{name}"' in page, f"{module}.{name}"


def test_the_site_is_read_from_the_file_system_with_nobody_elses_fonts(site: Path):
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'href="[^"#:]*/"', text), f"{page.name} links to a folder"
        assert "fonts.g" not in text, page.name
