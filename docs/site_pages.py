# SPDX-License-Identifier: Apache-2.0
"""MkDocs hook: pages of the site that lie outside of docs/, and the links to and from them.

Every document keeps the links that work in the repository; here they become links of the site,
whose pages all lie in one folder.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# A document's path in the repository, and the page that it becomes.
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "deploy/images/README.md": "photographs.md",
}
PAGES = {f"docs/{path.name}": path.name for path in (ROOT / "docs").glob("*.md")} | OUTSIDE
DOCUMENTS = {page: path for path, page in PAGES.items()}
_LINK = re.compile(r"\]\((?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")
# What the tests of the documents read on a fence's first line, and Markdown does not.
_NOTE = re.compile(r"^(```\w+) no-test:.*$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside."""
    for path, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links between documents into links between pages; drop notes on fences."""
    folder = posixpath.dirname(DOCUMENTS[page.file.src_uri])

    def link(found: re.Match[str]) -> str:
        target = PAGES.get(posixpath.normpath(posixpath.join(folder, found["path"])))
        return found[0] if target is None else f"]({target}{found['anchor'] or ''})"

    return _NOTE.sub(r"\1", _LINK.sub(link, markdown))
