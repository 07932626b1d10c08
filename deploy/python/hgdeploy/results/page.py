# SPDX-License-Identifier: Apache-2.0
"""A run over many images as one self-contained HTML page of bounded size.

The data kept in memory does not grow with the images: counts, and the few images that the page
shows. It shows them small, and says how many there are in all.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import html
import io
import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path

from hgdeploy.errors import ImageError
from hgdeploy.images.decode import read_image
from hgdeploy.results.frame import framed
from hgdeploy.results.gathered import DISTINCT_REASONS, OTHER, Gathered, Picture, class_name, cut
from hgdeploy.results.outputs import claiming
from hgdeploy.results.rows import FileFacts
from hgdeploy.system.documents import parse_json
from hgdeploy.system.files import write_text
from hgdeploy.transforms.prediction import Prediction

_PIXELS = 160
_CLASSES = 30
_CLASSES_OF_ONE = 5
_REASONS = 20
_STYLE = (
    "section{overflow-x:auto}"
    "td,th{padding:.25rem .6rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}"
    "td:first-child{min-width:8rem}td.number{text-align:right;white-space:nowrap}"
    "td.bar{width:20rem;min-width:4rem}td ul{margin:0;padding-left:1.1rem}"
    ".note{font-size:.85em;color:var(--dim)}"
    ".filter{display:flex;flex-wrap:wrap;gap:.25rem 1rem}"
    ".gallery{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;width:10rem}"
    "figcaption{font-size:.8em;overflow-wrap:anywhere}figcaption b{display:block}"
    f".picture{{height:{_PIXELS}px;display:flex;align-items:center;justify-content:center;"
    "background:var(--head);font-size:.8em;color:var(--dim)}"
    "@media(max-width:30rem){.gallery{gap:.6rem}figure{width:calc(50% - .3rem)}"
    ".picture img{max-width:100%}}"
)


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
        self._gathered = Gathered()

    def write(self, prediction: Prediction, facts: FileFacts) -> None:
        """Take one prediction."""
        self._gathered.take(prediction, facts)

    def finish(self) -> None:
        """Make the page; the images that it shows are read once more.

        Raises:
            OutputError: it cannot be written; an existing page is unchanged.
        """
        write_text(self._path, _page(self._gathered, self._about))

    def close(self) -> None:
        """Let others write; without `finish` there is no page."""
        self._claim.close()


def _page(gathered: Gathered, about: Mapping[str, str]) -> str:
    found = gathered.classified + gathered.failed
    unsure, sample = gathered.least_sure, _once(gathered.sample)
    names = _names_of([*unsure, *sample]) if gathered.classes else {}
    body = "".join(
        [
            f"<h1>{found:,} images</h1>\n<p>found {found:,} = classified {gathered.classified:,} "
            f"+ failed {gathered.failed:,}</p>\n",
            _failures(gathered),
            _classes(gathered),
            _filter(names),
            _gallery("Least sure", unsure, gathered, names, "the lowest best scores first"),
            _gallery("A sample", sample, gathered, names, "drawn at random"),
            _table("The run", ("", ""), about.items()),
        ]
    )
    return framed("Classified images", _STYLE, body, pictures=True)


def _failures(gathered: Gathered) -> str:
    if not gathered.failed:
        return ""
    reasons = gathered.reasons.most_common(_REASONS)
    note = _of(len(reasons), len(gathered.reasons), "reasons")
    if OTHER in gathered.reasons:
        note += f"; all beyond the first {DISTINCT_REASONS:,} count as {OTHER}"
    by_reason = _table("Why images failed", ("Reason", "Images"), reasons, note)
    note = _of(len(gathered.failures), gathered.failed, "failed images, the first ones")
    head = ("Image", "Reason")
    return by_reason + _table("Failed images", head, gathered.failures, note, " class='failed'")


def _classes(gathered: Gathered) -> str:
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


def _once(pictures: Iterable[Picture]) -> list[Picture]:
    """Return pictures without those that are equal to one before, which is given their number."""
    found: dict[Hashable, Picture] = {}
    for picture in pictures:
        if picture.content in found:
            found[picture.content].count += 1
        else:
            found[picture.content] = dataclasses.replace(picture, count=1)
    return list(found.values())


def _names_of(pictures: Iterable[Picture]) -> dict[str, int]:
    """Return the best classes of the pictures that are shown, numbered, most frequent first."""
    counted = Counter(picture.best_class for picture in pictures)
    return {name: number for number, (name, _) in enumerate(counted.most_common(_CLASSES))}


def _filter(names: Mapping[str, int]) -> str:
    """Return a choice of the class whose images are shown, which works without any script."""
    if len(names) < 2:
        return ""
    hidden = "".join(
        f"body:has(#class{n}:checked) figure:not(.class{n}){{display:none}}" for n in names.values()
    )
    choices = "".join(
        f"<label><input type='radio' name='class' id='class{number}'> {html.escape(name)}</label>\n"
        for name, number in names.items()
    )
    every = "<label><input type='radio' name='class' checked> all</label>\n"
    body = f"<style>{hidden}</style><div class='filter'>{every}{choices}</div>"
    return _section("Show images of", body, "of the images below, by their best class")


def _gallery(
    title: str,
    pictures: list[Picture],
    gathered: Gathered,
    names: Mapping[str, int],
    how: str,
) -> str:
    if not pictures:
        return ""
    figures = "".join(_figure(picture, names.get(picture.best_class)) for picture in pictures)
    shown = sum(picture.count for picture in pictures)
    note = _of(shown, gathered.classified, f"classified images, {how}")
    if shown > len(pictures):
        note += "; equal ones once"
    return _section(title, f"<div class='gallery'>{figures}</div>", note)


def _figure(picture: Picture, number: int | None) -> str:
    prediction = picture.prediction
    if isinstance(prediction.attributes, str):
        lines = [prediction.attributes]
    elif prediction.attributes is not None:
        lines = list(prediction.attributes)
    elif prediction.class_ids is None:
        lines = [f"{score:.5g}" for score in prediction.scores[:_CLASSES_OF_ONE]]
    else:
        lines = [
            f"{class_name(prediction, i)}: {prediction.scores[i]:.2f}"
            for i in range(min(len(prediction.scores), _CLASSES_OF_ONE))
        ] or ["no class"]
    if picture.count > 1:
        lines.append(f"{picture.count:,} equal images")
    scores = "<br>".join(map(html.escape, lines))
    name = html.escape(cut(prediction.path))
    shown = _thumbnail(picture.file)
    marked = "" if number is None else f" class='class{number}'"
    return (
        f"<figure{marked}><div class='picture'>{shown}</div><figcaption><b>{name}</b>{scores}"
        "</figcaption></figure>\n"
    )


def _thumbnail(path: Path) -> str:
    """Return an HTML element with the image made small; else the reason why there is none."""
    from PIL import Image

    try:
        image = Image.fromarray(read_image(path))
    except ImageError as error:  # it was removed or changed since it was classified
        return html.escape(cut(str(error)))
    image.thumbnail((_PIXELS, _PIXELS))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f"<img alt='' src='data:image/jpeg;base64,{data}'>"


def _table(
    title: str,
    head: tuple[str, str],
    rows: Iterable[tuple[str, str | int]],
    note: str = "",
    row_attributes: str = "",
) -> str:
    parts = [f"<tr><th>{head[0]}</th><th>{head[1]}</th></tr>\n"] if any(head) else []
    for name, value in rows:
        shown = f"{value:,}" if isinstance(value, int) else _value(value)
        parts.append(
            f"<tr{row_attributes}><td>{html.escape(cut(name))}</td><td>{shown}</td></tr>\n"
        )
    return _section(title, f"<table>{''.join(parts)}</table>", note)


def _value(text: str) -> str:
    """Return a value as HTML; JSON of several parts as a list."""
    try:
        parts = parse_json(text) if text[:1] in ("{", "[") else None
    except ValueError:
        parts = None
    if isinstance(parts, dict):
        lines = [_plain({key: value}) for key, value in parts.items()]
    elif isinstance(parts, list):
        lines = [_plain(value) for value in parts]
    else:
        return html.escape(cut(text))
    return "<ul>" + "".join(f"<li>{html.escape(cut(line))}</li>" for line in lines) + "</ul>"


def _plain(value: object) -> str:
    """Return a part of JSON as a reader writes it: `CropImage (size 224)`."""
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if not isinstance(value, dict):
        return value if isinstance(value, str) else "" if value is None else json.dumps(value)
    pairs = [(key, _plain(part), isinstance(part, dict)) for key, part in value.items()]
    return ", ".join(
        f"{key} ({text})" if inner and text else f"{key} {text}".rstrip()
        for key, text, inner in pairs
    )


def _section(title: str, body: str, note: str) -> str:
    paragraph = f"<p class='note'>{html.escape(note)}</p>\n" if note else ""
    return f"<section><h2>{html.escape(title)}</h2>\n{paragraph}{body}\n</section>\n"


def _of(shown: int, there: int, what: str) -> str:
    """Return how many of how many are shown."""
    return f"{shown:,} of {there:,} {what}"
