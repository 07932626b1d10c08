# SPDX-License-Identifier: Apache-2.0
"""A run over many images as one self-contained HTML page of bounded size.

The data kept in memory does not grow with the images: counts, and the few images that the page
shows. It shows them small, and says how many there are in all.
"""

from __future__ import annotations

import base64
import contextlib
import heapq
import html
import io
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hgdeploy.errors import ImageError
from hgdeploy.images.decode import read_image
from hgdeploy.results.outputs import claiming
from hgdeploy.results.rows import FileFacts
from hgdeploy.system.files import write_text
from hgdeploy.transforms.prediction import Prediction, printable

_PICTURES = 24  # in each of the two galleries
_PIXELS = 160
_CLASSES = 30
_CLASSES_OF_ONE = 5
_FAILURES = 100
_REASONS = 20
_DISTINCT_REASONS = 1000  # that are counted; some have figures that are never the same twice
_OTHER = "other reasons"
_CHARACTERS = 200  # of a name or a reason
# The browser itself keeps the page from fetching anything and from running any script.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#222;background:#fff}"
    "section{margin:0 0 2rem}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.25rem .6rem;text-align:left;overflow-wrap:anywhere}"
    "th{background:#f3f3f3}td:first-child{min-width:8rem}td.number{text-align:right}td.bar{width:20rem}"
    ".bar div{background:#34608c;height:1em}.note{font-size:.85em;color:#555}"
    ".gallery{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;width:10rem}"
    "figcaption{font-size:.8em;overflow-wrap:anywhere}figcaption b{display:block}"
    f".picture{{height:{_PIXELS}px;display:flex;align-items:center;justify-content:center;"
    "background:#f3f3f3;font-size:.8em;color:#555}.failed td{background:#fde2e2}"
)


@dataclass(frozen=True)
class _Picture:
    """An image that the page will show."""

    prediction: Prediction
    file: Path


@dataclass
class _Gathered:
    """What a page is made from; its size does not depend on the number of images."""

    classified: int = 0
    failed: int = 0
    bare_scores: bool = False
    classes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    sample: list[_Picture] = field(default_factory=list)
    # A heap whose first entry is the surest of those kept: (-confidence, -number, picture).
    unsure: list[tuple[float, int, _Picture]] = field(default_factory=list)


class ReportWriter:
    """Gathers predictions and makes the page; see the module.

    Args:
        path: the page; an existing file is replaced when the run is finished.
        about: what the page says about the run: model, engine, precision and so on.

    Raises:
        OutputError: the page cannot be written, or another process is writing it.
    """

    def __init__(self, path: Path, about: Mapping[str, str]) -> None:
        self._claim = contextlib.ExitStack()
        self._claim.enter_context(claiming([path]))
        self._path = path
        self._about = about
        self._gathered = _Gathered()
        self._random = random.Random(0)  # equal runs give equal pages

    def write(self, prediction: Prediction, facts: FileFacts) -> None:
        """Take one prediction."""
        gathered = self._gathered
        if prediction.error is not None:
            gathered.failed += 1
            reason = _cut(prediction.error)
            if reason not in gathered.reasons and len(gathered.reasons) >= _DISTINCT_REASONS:
                reason = _OTHER
            gathered.reasons[reason] += 1
            if len(gathered.failures) < _FAILURES:
                gathered.failures.append((_cut(prediction.path), _cut(prediction.error)))
            return
        gathered.classified += 1
        picture = _Picture(prediction, facts.path)
        self._sample(picture)
        if prediction.class_ids is None:
            gathered.bare_scores = True
            return
        best = max(range(len(prediction.scores)), key=prediction.scores.__getitem__, default=None)
        gathered.classes["no class" if best is None else _class_name(prediction, best)] += 1
        confidence = 0.0 if best is None else prediction.scores[best]
        entry = (-confidence, -gathered.classified, picture)
        if len(gathered.unsure) < _PICTURES:
            heapq.heappush(gathered.unsure, entry)
        else:
            heapq.heappushpop(gathered.unsure, entry)

    def finish(self) -> None:
        """Make the page; the images that it shows are read once more.

        Raises:
            OutputError: it cannot be written; an existing page is unchanged.
        """
        write_text(self._path, _page(self._gathered, self._about))

    def close(self) -> None:
        """Let others write; without `finish` there is no page."""
        self._claim.close()

    def _sample(self, picture: _Picture) -> None:
        """Keep it with such a probability that every image is equally likely to be shown."""
        sample = self._gathered.sample
        if len(sample) < _PICTURES:
            sample.append(picture)
        else:
            place = self._random.randrange(self._gathered.classified)
            if place < _PICTURES:
                sample[place] = picture


def _page(gathered: _Gathered, about: Mapping[str, str]) -> str:
    found = gathered.classified + gathered.failed
    return "".join(
        [
            "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>",
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<title>Classified images</title><style>{_STYLE}</style></head><body>",
            f"<h1>{found:,} images</h1>\n<p>found {found:,} = classified {gathered.classified:,} "
            f"+ failed {gathered.failed:,}</p>\n",
            _table("The run", ("", ""), about.items()),
            _failures(gathered),
            _classes(gathered),
            _gallery("Least sure", _least_sure(gathered), gathered, "the lowest best scores first"),
            _gallery("A sample", gathered.sample, gathered, "drawn at random"),
            "</body></html>\n",
        ]
    )


def _failures(gathered: _Gathered) -> str:
    if not gathered.failed:
        return ""
    reasons = gathered.reasons.most_common(_REASONS)
    note = _of(len(reasons), len(gathered.reasons), "reasons")
    if _OTHER in gathered.reasons:
        note += f"; all beyond the first {_DISTINCT_REASONS:,} count as {_OTHER}"
    by_reason = _table("Why images failed", ("Reason", "Images"), reasons, note)
    note = _of(len(gathered.failures), gathered.failed, "failed images, the first ones")
    head = ("Image", "Reason")
    return by_reason + _table("Failed images", head, gathered.failures, note, " class='failed'")


def _classes(gathered: _Gathered) -> str:
    if not gathered.classes:
        return ""
    shown = gathered.classes.most_common(_CLASSES)
    most = shown[0][1]
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td class='number'>{count:,}</td><td class='bar'>"
        f"<div style='width:{100 * count / most:.1f}%'></div></td></tr>\n"
        for name, count in shown
    )
    note = _of(len(shown), len(gathered.classes), "classes, the most frequent ones")
    return _section("Best class of each image", f"<table>{rows}</table>", note)


def _least_sure(gathered: _Gathered) -> list[_Picture]:
    return [picture for *_, picture in sorted(gathered.unsure, key=lambda e: (-e[0], -e[1]))]


def _gallery(title: str, pictures: list[_Picture], gathered: _Gathered, how: str) -> str:
    if not pictures:
        return ""
    figures = "".join(map(_figure, pictures))
    note = _of(len(pictures), gathered.classified, f"classified images, {how}")
    return _section(title, f"<div class='gallery'>{figures}</div>", note)


def _figure(picture: _Picture) -> str:
    prediction = picture.prediction
    if prediction.class_ids is None:
        lines = [f"{score:.5g}" for score in prediction.scores[:_CLASSES_OF_ONE]]
    else:
        lines = [
            f"{_class_name(prediction, i)}: {prediction.scores[i]:.2f}"
            for i in range(min(len(prediction.scores), _CLASSES_OF_ONE))
        ] or ["no class"]
    scores = "<br>".join(map(html.escape, lines))
    name = html.escape(_cut(prediction.path))
    shown = _thumbnail(picture.file)
    return (
        f"<figure><div class='picture'>{shown}</div><figcaption><b>{name}</b>{scores}</figcaption>"
        "</figure>\n"
    )


def _thumbnail(path: Path) -> str:
    """Return an HTML element with the image made small; else the reason why there is none."""
    from PIL import Image

    try:
        image = Image.fromarray(read_image(path))
    except ImageError as error:  # it was removed or changed since it was classified
        return html.escape(_cut(str(error)))
    image.thumbnail((_PIXELS, _PIXELS))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f"<img alt='' src='data:image/jpeg;base64,{data}'>"


def _class_name(prediction: Prediction, i: int) -> str:
    ids, labels = prediction.class_ids or (), prediction.labels
    return _cut(f"{ids[i]} {labels[i]}" if labels else str(ids[i]))


def _table(
    title: str,
    head: tuple[str, str],
    rows: Iterable[tuple[str, str | int]],
    note: str = "",
    row_attributes: str = "",
) -> str:
    parts = [f"<tr><th>{head[0]}</th><th>{head[1]}</th></tr>\n"] if any(head) else []
    for name, value in rows:
        shown = f"{value:,}" if isinstance(value, int) else html.escape(_cut(value))
        parts.append(
            f"<tr{row_attributes}><td>{html.escape(_cut(name))}</td><td>{shown}</td></tr>\n"
        )
    return _section(title, f"<table>{''.join(parts)}</table>", note)


def _section(title: str, body: str, note: str) -> str:
    paragraph = f"<p class='note'>{html.escape(note)}</p>\n" if note else ""
    return f"<section><h2>{html.escape(title)}</h2>\n{paragraph}{body}\n</section>\n"


def _of(shown: int, there: int, what: str) -> str:
    """Return how many of how many are shown."""
    return f"{shown:,} of {there:,} {what}"


def _cut(text: str) -> str:
    """Return text as the page may show it: printable, and of limited length."""
    shown = printable(text)
    return shown if len(shown) <= _CHARACTERS else shown[:_CHARACTERS] + "…"
