# SPDX-License-Identifier: Apache-2.0
"""The frame of our HTML pages: one file each, in the reader's light or dark theme."""

from __future__ import annotations

import base64
import hashlib
import html

# With this policy, the browser itself keeps a page from fetching anything and running any script.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_PICTURES = "; img-src data:"  # those in the page itself
_SCRIPT = "; connect-src 'self'; img-src blob:; script-src 'sha256-{}'"  # this one and no other
_STYLE = (
    ":root{color-scheme:light dark;--text:#222;--back:#fff;--line:#ccc;--head:#f3f3f3;--dim:#555;"
    "--bar:#34608c;--failed:#fde2e2}"
    "@media(prefers-color-scheme:dark){:root{--text:#ddd;--back:#181a1b;--line:#444;--head:#26292b;"
    "--dim:#aaa;--bar:#6ea3d8;--failed:#4d2328}}"
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:var(--text);background:var(--back)}"
    "section{margin:0 0 2rem}table{border-collapse:collapse}td,th{border:1px solid var(--line)}"
    "th{background:var(--head)}.bar div{background:var(--bar);height:1em}"
    ".failed td{background:var(--failed)}@media(max-width:30rem){body{margin:.8rem}}"
)


def framed(title: str, style: str, body: str, *, pictures: bool = False, script: str = "") -> str:
    """Return a page that needs no other file.

    Args:
        title: its title, as text.
        style: its own rules, which may use the frame's variables for colours: `--text`, `--back`,
            `--line`, `--head`, `--dim`, `--bar` and `--failed`.
        body: its content, as HTML.
        pictures: it has pictures in it, as `data:` addresses.
        script: its script, which may ask the page's own server and show files that the reader
            chooses; empty for none.
    """
    policy = _POLICY + _PICTURES * pictures
    if script:
        digest = hashlib.sha256(script.encode()).digest()
        policy += _SCRIPT.format(base64.b64encode(digest).decode())
        body += f"<script>{script}</script>"
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}{style}</style></head><body>"
        f"{body}</body></html>\n"
    )
