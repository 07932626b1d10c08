# SPDX-License-Identifier: Apache-2.0
"""The confusion matrix as a picture; matplotlib is loaded only when it is drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np

from hgdeploy.system.libraries import import_library

_EXTRA = "plot"
_NAMED, _NUMBERED = 40, 20  # up to so many classes have names, and numbers in their cells
_LONGEST = 24  # letters of a name
_DARK = 0.5  # from this share on, a cell's number is white
_PER_CLASS, _LEAST, _MOST = 0.42, 4.0, 14.0  # inches


def confusion_png(pairs: Mapping[tuple[int, int], int], names: Sequence[str], title: str) -> bytes:
    """Draw a confusion matrix: a row for each class, coloured by the share of its images.

    The same counts give the same bytes.

    Args:
        pairs: how many images there are of each pair of class and answer.
        names: what each class is called, one for each.
        title: stands above it.

    Returns:
        A PNG file's bytes.

    Raises:
        EngineError: matplotlib is not installed.
    """
    counts = np.zeros((len(names), len(names)), np.int64)
    for (label, answer), count in pairs.items():
        counts[label, answer] = count
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(_PER_CLASS * len(names), _LEAST), _MOST)
    figure = import_library("matplotlib.figure", _EXTRA).Figure((side + 1.4, side), dpi=110)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(drawn, label="share of the class's images")
    axes.set(title=title, xlabel="answer", ylabel="class")
    if len(names) <= _NAMED:
        ticks = _ticks(names)
        axes.set_xticks(range(len(names)), ticks, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), ticks, fontsize=8)
    if len(names) <= _NUMBERED:
        for (label, answer), count in pairs.items():
            color = "white" if shares[label, answer] >= _DARK else "black"
            axes.text(answer, label, str(count), ha="center", va="center", color=color, fontsize=7)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _ticks(names: Sequence[str]) -> list[str]:
    """Return what the classes are called in the picture: by number where the font lacks a letter.

    matplotlib draws boxes for the letters that its font lacks, such as Chinese.
    """
    fonts = import_library("matplotlib.font_manager", _EXTRA)
    font = fonts.get_font(fonts.findfont(fonts.FontProperties()))
    return [
        name[:_LONGEST].replace("$", r"\$")
        if all(font.get_char_index(ord(letter)) for letter in name[:_LONGEST])
        else str(number)
        for number, name in enumerate(names)
    ]
