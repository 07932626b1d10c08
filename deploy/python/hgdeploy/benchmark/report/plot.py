# SPDX-License-Identifier: Apache-2.0
"""Plots of benchmark results: accuracy against latency, and the spread of each case's latency.

matplotlib is loaded only when a plot is drawn. The same results give the same bytes.
"""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hgdeploy.benchmark.report.labels import Box, place_labels
from hgdeploy.benchmark.report.lookup import Lookup
from hgdeploy.benchmark.report.points import (
    Panel,
    Point,
    accuracy_points,
    frontiers,
    measured_cases,
    panels_of,
)
from hgdeploy.benchmark.report.results import ReportedCase, Results
from hgdeploy.benchmark.report.tables import milliseconds
from hgdeploy.system.libraries import import_library
from hgdeploy.zoo.published import table_name

if TYPE_CHECKING:
    from types import ModuleType

_EXTRA = "plot"
_PPHGNET, _OTHERS, _FAINT = "#c0392b", "#34608c", "#8a8a8a"
_STYLE = {
    "font.size": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "axes.edgecolor": "#999999",
    "svg.fonttype": "none",  # text stays text: it can be searched, and it needs no glyph outlines
    "svg.hashsalt": "hgdeploy",
}
_NO_DATES = {"Date": None, "Creator": None, "Format": None, "Type": None}
_BINS = 80
_WIDEST = 2.0  # end of the distribution's axis, in medians; samples beyond are counted


def accuracy_figure(results: Results) -> Any:
    """Draw published top-1 against the measured median, with PP-HGNet's points joined.

    Args:
        results: the results files.

    Returns:
        A matplotlib figure with a panel for each configuration.

    Raises:
        ConfigError: no case was measured.
        EngineError: matplotlib is not installed.
    """
    lookup = Lookup(results)
    with _library().rc_context(_STYLE):
        figure, axes, panels = _grid(lookup, (7.6, 5.4))
        for ax, panel in zip(axes, panels, strict=True):
            _draw_accuracy(ax, lookup, panel)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the labels are placed in what is laid out now
        for ax, panel in zip(axes, panels, strict=True):
            _label_points(ax, accuracy_points(lookup, panel)[0])
    return figure


def distribution_figure(results: Results) -> Any:
    """Draw a histogram of each case's samples, as multiples of the case's own median.

    Args:
        results: the results files.

    Returns:
        A matplotlib figure with a panel for each configuration and a row for each model.

    Raises:
        ConfigError: no case was measured.
        EngineError: matplotlib is not installed.
    """
    lookup = Lookup(results)
    with _library().rc_context(_STYLE):
        rows = max(len(measured_cases(lookup, panel)) for panel in panels_of(lookup))
        figure, axes, panels = _grid(lookup, (7.6, 1.2 + 0.34 * rows))
        for ax, panel in zip(axes, panels, strict=True):
            _draw_distribution(ax, measured_cases(lookup, panel), panel.title(lookup))
    return figure


def as_svg(figure: Any) -> str:
    """Return a figure as an SVG element for an HTML page."""
    stream = io.StringIO()
    with _library().rc_context(_STYLE):
        figure.savefig(stream, format="svg", metadata=_NO_DATES)
    text = stream.getvalue()
    return text[text.index("<svg") :]


def as_png(figure: Any) -> bytes:
    """Return a figure as a PNG file's bytes."""
    stream = io.BytesIO()
    with _library().rc_context(_STYLE):
        figure.savefig(stream, format="png", dpi=130, metadata={"Software": None})
    return stream.getvalue()


def _library() -> ModuleType:
    return import_library("matplotlib", _EXTRA)


def _grid(lookup: Lookup, size: tuple[float, float]) -> tuple[Any, list[Any], list[Panel]]:
    """Return a figure with the hardware at its bottom, its axes, and the panel of each."""
    panels = panels_of(lookup)
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    hardware = [textwrap.fill(file.hardware(), 118 * columns) for file in lookup.results.files]
    height = size[1] * rows + 0.25 * len(hardware)
    figure_class = import_library("matplotlib.figure", _EXTRA).Figure
    figure = figure_class((size[0] * columns, height), layout="constrained")
    figure.supxlabel("\n".join(dict.fromkeys(hardware)), fontsize=7, color="#555555")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[len(panels) :]:
        unused.remove()
    return figure, axes[: len(panels)], panels


def _draw_accuracy(ax: Any, lookup: Lookup, panel: Panel) -> None:
    points, absent = accuracy_points(lookup, panel)
    ax.set_title(panel.title(lookup), loc="left", fontsize=10)
    ax.set_ylabel("ImageNet top-1, % (published)")
    notes = ["median latency, ms (measured; logarithmic)"]
    if any(point.borrowed for point in points):
        notes.append("hollow: latency of the same network, measured under another model's name")
    if absent:
        notes.append(f"not shown: {len(absent)} of the models in the tables")
    ax.set_xlabel("\n".join(notes))
    if not points:
        ax.text(0.5, 0.5, "no measured model has a published accuracy", ha="center")
        return
    ax.set_xscale("log")
    _plain_ticks(ax)
    for frontier in frontiers(points):
        ax.plot(*_columns(frontier), color=_PPHGNET, linewidth=1.4, zorder=2)
    for point in points:
        color = _color(point.model)
        fill = "white" if point.borrowed else color
        ax.plot(point.latency, point.top1, "o", color=color, markerfacecolor=fill, zorder=3)
    ax.margins(x=0.16, y=0.12)


def _columns(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.latency for point in points], [point.top1 for point in points]


def _color(model: str) -> str:
    return _PPHGNET if model.startswith("PPHGNet") else _OTHERS


def _plain_ticks(ax: Any) -> None:
    """Write 5, 10 and 20 on a logarithmic axis instead of powers of ten."""
    ticker = import_library("matplotlib.ticker", _EXTRA)
    ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=15))
    ax.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    ax.xaxis.set_minor_locator(ticker.NullLocator())


def _label_points(ax: Any, points: Sequence[Point]) -> None:
    """Write the models' names beside their points, with a thin line to names further away."""
    if not points:
        return
    renderer = (
        import_library("matplotlib.backends.backend_agg", _EXTRA)
        .FigureCanvasAgg(ax.figure)
        .get_renderer()
    )
    scale = 72 / ax.figure.dpi  # from pixels to points, the unit of all offsets
    at = ax.transData.transform(np.column_stack(_columns(points))) * scale
    texts = [ax.annotate(point.model, (point.latency, point.top1), fontsize=8) for point in points]
    extents = [text.get_window_extent(renderer) for text in texts]
    sizes = [(extent.width * scale, extent.height * scale) for extent in extents]
    frame = ax.get_window_extent(renderer)
    bounds = Box(frame.x0 * scale, frame.y0 * scale, frame.x1 * scale, frame.y1 * scale)
    markers = [Box(x, y, x, y).grown(4) for x, y in at]
    obstacles = [*markers, *_frontier_boxes(ax, scale)]
    boxes = place_labels([(x, y) for x, y in at], sizes, bounds, obstacles)
    for text, point, (x, y), box in zip(texts, points, at, boxes, strict=True):
        text.remove()
        middle = ((box.left + box.right) / 2 - x, (box.bottom + box.top) / 2 - y)
        ax.annotate(
            point.model,
            (point.latency, point.top1),
            middle,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            color=_color(point.model),
            arrowprops={"arrowstyle": "-", "color": _FAINT, "linewidth": 0.5, "shrinkB": 3},
        )


def _frontier_boxes(ax: Any, scale: float) -> list[Box]:
    """Return small boxes along the frontiers, so that no label covers one."""
    boxes = []
    for line in ax.lines:
        pixels = line.get_transform().transform(line.get_xydata()) * scale
        for start, end in itertools.pairwise(pixels):
            for share in np.linspace(0, 1, max(2, int(np.hypot(*(end - start)) / 3))):
                x, y = start + share * (end - start)
                boxes.append(Box(x, y, x, y).grown(1))
    return boxes


def _draw_distribution(ax: Any, cases: Sequence[ReportedCase], title: str) -> None:
    """Draw one row per case: a histogram, a tick at its p99, and its figures beside it."""
    relative = [
        (np.asarray(result.samples_ms) / result.stats.median, result.stats)
        for result in (case.result for case in cases)
        if result.stats
    ]
    low = min(float(values.min()) for values, _ in relative) - 0.01
    widest = max(1.1 * stats.p99 / stats.median for _, stats in relative)
    high = max(min(_WIDEST, widest), low + 0.02)
    edges = np.linspace(low, high, _BINS + 1)
    for row, (case, (values, stats)) in enumerate(zip(cases, relative, strict=True)):
        base = len(cases) - 1 - row
        counts, _ = np.histogram(values, edges)
        heights = 0.8 * counts / max(1, counts.max())
        ax.stairs(base + heights, edges, baseline=base, fill=True, color=_color(case.result.model))
        p99 = stats.p99 / stats.median
        if p99 <= high:
            ax.plot([p99, p99], [base, base + 0.5], color="black", linewidth=1)
        beyond = int((values > high).sum())
        text = f"{milliseconds(stats.median)} ms, n {stats.n}" + f", {beyond} beyond" * bool(beyond)
        ax.text(1.01, base + 0.3, text, transform=ax.get_yaxis_transform(), fontsize=7)
    ax.axvline(1, color=_FAINT, linewidth=0.8, linestyle=":")
    ax.set_xlim(low, high)
    ax.set_ylim(-0.1, len(cases))
    ax.set_yticks([len(cases) - 0.7 - row for row in range(len(cases))])
    ax.set_yticklabels([table_name(case.result.model) for case in cases], fontsize=8)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.set_title(title, loc="left", fontsize=10)
    ax.set_xlabel("latency as a multiple of the case's own median; black tick: p99")
