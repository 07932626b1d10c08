# SPDX-License-Identifier: Apache-2.0
"""Walk over a protobuf file without its schema: ONNX models and Paddle 2's programs.

Which files a model consists of and what its parameters are called stands in the model's file. So
neither `onnx` nor Paddle need be installed to know it, and weights are skipped, not read. The
encoding is described at https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_TEXT = 1 << 16
_NO_PROTOBUF = "it is truncated, or of another kind"


@dataclass(frozen=True)
class Message:
    """A message in a protobuf file, or any other field that has a length.

    Attributes:
        file: the open file.
        start: where its bytes start.
        end: where they end.
    """

    file: BinaryIO
    start: int
    end: int

    @classmethod
    def whole(cls, file: BinaryIO) -> Message:
        """Return the message that fills a file."""
        return cls(file, 0, file.seek(0, os.SEEK_END))

    def fields(self) -> Iterator[tuple[int, int | Message]]:
        """Yield the number of each field and its value: a whole number, or a part of the file.

        Raises:
            ValueError: this is no protobuf message, or it is truncated.
        """
        file, position = self.file, self.start
        while position < self.end:
            file.seek(position)
            number, kind = divmod(_varint(file), 8)
            value: int | Message
            if kind == _BYTES:
                length = _varint(file)
                start = file.tell()
                position = start + length
                value = Message(file, start, position)
            elif kind in (_VARINT, _FIXED64, _FIXED32):
                value = _varint(file) if kind == _VARINT else _fixed(file, kind)
                position = file.tell()
            else:
                raise ValueError(_NO_PROTOBUF)
            if position > self.end or not number:
                raise ValueError(_NO_PROTOBUF)
            yield number, value

    def parts(self, number: int) -> Iterator[Message]:
        """Yield the messages in the fields of a number."""
        for found, value in self.fields():
            if found == number and isinstance(value, Message):
                yield value

    def numbers(self, number: int) -> Iterator[int]:
        """Yield the whole numbers in the fields of a number, packed or not."""
        for found, value in self.fields():
            if found != number:
                continue
            if isinstance(value, int):
                yield value
                continue
            self.file.seek(value.start)
            while self.file.tell() < value.end:
                yield _varint(self.file)

    def text(self) -> str:
        """Return it as a text."""
        if self.end - self.start > _MOST_TEXT:
            raise ValueError(_NO_PROTOBUF)
        self.file.seek(self.start)
        return self.file.read(self.end - self.start).decode()


def _varint(file: BinaryIO) -> int:
    value = shift = 0
    while byte := file.read(1):
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
        if shift > 63:
            break
    raise ValueError(_NO_PROTOBUF)


def _fixed(file: BinaryIO, kind: int) -> int:
    return int.from_bytes(file.read(8 if kind == _FIXED64 else 4), "little")
