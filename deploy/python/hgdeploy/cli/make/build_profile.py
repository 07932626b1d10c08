# SPDX-License-Identifier: Apache-2.0
"""The layers of an engine as a table, and as a page with a bar for each layer's time."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hgdeploy.cli.terminal import aligned, say
from hgdeploy.results.frame import framed
from hgdeploy.system.files import write_text

if TYPE_CHECKING:
    from hgdeploy.convert.tensorrt.layers import Layer

_HEAD = ("layer", "type", "precision", "ms", "share", "computes")
_LONGEST = 60  # of a cell in the terminal
_STYLE = "td,th{padding:.25rem .6rem;text-align:left;overflow-wrap:anywhere}td.bar{width:20rem}"


def write_profile(engine: Path, layers: Sequence[Layer]) -> str:
    """Write `ENGINE.profile.html`, and return the same as a table for the terminal.

    Args:
        engine: the engine file; the page lies beside it.
        layers: its layers, with or without times.

    Raises:
        OutputError: the page cannot be written.
    """
    rows = _rows(layers)
    page = engine.with_name(f"{engine.name}.profile.html")
    write_text(page, _page(engine.name, layers, rows))
    say(f"{page}: {len(layers)} layers")
    return aligned([_HEAD, *(tuple(map(_cut, row)) for row in rows)])


def _total(layers: Sequence[Layer]) -> float:
    return sum(layer.ms or 0.0 for layer in layers)


def _rows(layers: Sequence[Layer]) -> list[tuple[str, ...]]:
    total = _total(layers)
    rows: list[tuple[str, ...]] = [
        (
            layer.name,
            layer.kind,
            layer.precision,
            "" if layer.ms is None else f"{layer.ms:.4f}",
            "" if layer.ms is None or not total else f"{layer.ms / total:.1%}",
            ", ".join(layer.onnx),
        )
        for layer in layers
    ]
    if total:
        rows.append(("all layers", "", "", f"{total:.4f}", "100.0%", ""))
    return rows


def _cut(cell: str) -> str:
    return cell if len(cell) <= _LONGEST else f"{cell[: _LONGEST - 3]}..."


def _page(name: str, layers: Sequence[Layer], rows: Sequence[Sequence[str]]) -> str:
    longest = max((layer.ms or 0.0 for layer in layers), default=0.0)
    widths = [100 * (layer.ms or 0.0) / longest if longest else 0.0 for layer in layers]
    widths += [0.0] * (len(rows) - len(widths))
    head = "".join(f"<th>{word}</th>" for word in (*_HEAD, "time"))
    body = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + f'<td class="bar"><div style="width:{width:.1f}%"></div></td></tr>\n'
        for row, width in zip(rows, widths, strict=True)
    )
    table = f"<table><tr>{head}</tr>\n{body}</table>"
    return framed(name, _STYLE, f"\n<h1>{html.escape(name)}</h1>\n{table}")
