# SPDX-License-Identifier: Apache-2.0
"""What is found for one image, and PaddleClas's line for it."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """What was found in one image, or why nothing was.

    Attributes:
        path: the image's path relative to the folder that was searched.
        class_ids: the classes, best first; None for a model that outputs a bare score, and for one
            of attributes.
        scores: one score a class, or the bare score, or those of all attributes.
        labels: one name a class; empty without a label file.
        error: None, or the reason why the image failed; then the other fields are empty.
        attributes: what PaddleClas calls so: a list of texts, or one text for a vehicle; None where
            the model is none of attributes.
        output: for each score of an attribute model, 1 where it is above its threshold, else 0;
            None as for `attributes`.
    """

    path: str
    class_ids: tuple[int, ...] | None
    scores: tuple[float, ...]
    labels: tuple[str, ...]
    error: str | None = None
    attributes: tuple[str, ...] | str | None = None
    output: tuple[int, ...] | None = None

    @classmethod
    def failed(cls, path: str, reason: str, *, of_attributes: bool = False) -> Prediction:
        """Return the prediction of an image that could not be classified.

        Args:
            path: as in the class.
            reason: why.
            of_attributes: the model is one of attributes, so that these are empty too.
        """
        none: tuple[()] | None = () if of_attributes else None
        return cls(path, (), (), (), reason, none, none)


def text_line(prediction: Prediction) -> str:
    r"""Return PaddleClas's line for a classified image, without the line's end.

    PaddleClas prints a file's base name. What is not `printable` in it is escaped, since a line
    break in a name would tear the output in two.

    >>> text_line(Prediction("a/b.jpg", (8,), (0.71479,), ("hen",)))
    "b.jpg:\tclass id(s): [8], score(s): [0.71], label_name(s): ['hen']"
    """
    name = printable(prediction.path.rpartition("/")[2])
    if prediction.output is not None:
        found = prediction.attributes
        shown = found if isinstance(found, str) else list(found or ())
        return f"{name}:\t {{'attributes': {shown!r}, 'output': {list(prediction.output)}}}"
    scores = ", ".join(f"{score:.2f}" for score in prediction.scores)
    if prediction.class_ids is None:
        return f"{name}:\tscore(s): [{scores}]"
    ids, labels = list(prediction.class_ids), list(prediction.labels)
    return f"{name}:\tclass id(s): {ids}, score(s): [{scores}], label_name(s): {labels}"


# They turn the text around them: https://www.unicode.org/reports/tr9/#Directional_Formatting_Codes
_TURNING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(text: str) -> str:
    """Return `text` with what would break or turn a line, and undecodable bytes, escaped.

    These are control characters, the separators of lines and paragraphs, and what changes the
    direction of writing. Everything else is printed as PaddleClas prints it: spaces of any width,
    and the joiners that Persian and emoji need.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(ascii(c)[1:-1] if _is_unsafe(c) else c for c in text)


def _is_unsafe(character: str) -> bool:
    # Cc: control; Cs: half a surrogate pair, or a byte that is not UTF-8; Zl, Zp: separators.
    return character in _TURNING or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
