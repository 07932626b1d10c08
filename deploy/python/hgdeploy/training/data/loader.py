# SPDX-License-Identifier: Apache-2.0
"""Batches of labelled images, read ahead by other processes."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import ConfigError, ImageError, InputError
from hgdeploy.images.find import ImageFile
from hgdeploy.system.checks import cut
from hgdeploy.system.machine import available_cpus
from hgdeploy.training.data.batch import Batch
from hgdeploy.training.data.chance import Drawn, stream
from hgdeploy.training.data.crew import CAN_SHARE, Crew
from hgdeploy.training.data.options import DataOptions
from hgdeploy.training.data.pipeline import Pipeline
from hgdeploy.training.data.sampler import Sampler
from hgdeploy.training.data.samples import (
    are_numbered,
    check_classes,
    read_multilabel,
    read_samples,
)
from hgdeploy.training.data.section import SEVERAL_LABELS, Section, read_section

# Of so many images, more than half have to be readable; else their disk is not there any more.
_ENOUGH = 100
# Batches that are read while one is trained on, of which each may be 77 MB (128 images of 224).
_AHEAD = 2
# The fewest images that are read ahead, where batches are small: these take turns unevenly.
_LEAST_AHEAD = 64
# Threads that make batches of what was read; one may still mix a batch when the next is there.
_FINISHERS = 3
# The most images that a process is asked for at once.
_MOST_ASKED = 32
# A batch's place in its epoch, and its images.
_Planned: TypeAlias = tuple[int, NDArray[np.int64]]


class TrainingData:
    """The images of one of PaddleClas's sections `DataLoader.Train` and `DataLoader.Eval`.

    An image that cannot be read is left out of its batch, which is smaller then. Nothing takes its
    place. It is named in `skipped` and, once, to `on_warning`; the run goes on, unless most of an
    epoch's images so far, of 100 or of all, cannot be read: then their folder is not there.

    Attributes:
        classes: classes of the network.
        names: the classes' names by id, where folders or lists name them; else None.
        samples: images of all ranks together, without repetitions.
        batch_size: images a batch of this rank.
        shape: of an image's tensor: 3, height, width.
        soft: labels are float32 of shape (n, classes), and not class ids; see `Batch`.
        label_ratio: the share of images that have each label, where the config's `label_ratio` asks
            for it; else None.
    """

    def __init__(self, section: Section, options: DataOptions) -> None:
        place = f"DataLoader.{'Train' if options.training else 'Eval'}"
        where, sampler = f"{place}.dataset", f"{place}.sampler"
        self._ops = section.ops
        self._pipeline = Pipeline(section.ops, options.seed, f"{where}.transform_ops")
        if section.dataset == SEVERAL_LABELS and section.listed is not None:
            found = read_multilabel(section.root, section.listed)
        else:
            found = read_samples(
                section.root, section.listed, section.delimiter, options.names, options.on_warning
            )
            if options.names and are_numbered(section.root, section.listed, section.delimiter):
                options.on_warning(
                    f"{where} numbers its classes, and the training names them: 0 is taken for "
                    f"{cut(options.names[0])}, and so on in alphabetical order"
                )
        self._found, self._batch_ops, self._options = found, section.batch_ops, options
        self.classes = check_classes(found, options.classes, where)
        self.names = found.names
        self.samples = len(found.files)
        self.batch_size = section.batch_size
        self.shape = self._pipeline.shape
        self.soft = bool(section.batch_ops) or found.labels.ndim == 2
        self.label_ratio = found.labels.mean(axis=0) if section.ratio else None
        self._sampler = Sampler(
            self.samples,
            self.batch_size,
            options.rank,
            options.ranks,
            section.shuffle,
            section.drop_last,
            options.seed,
        )
        if not len(self._sampler):
            raise ConfigError(
                f"{where}: its {self.samples} images make no whole batch, and {sampler}.drop_last "
                f"leaves out the others; lower {sampler}.batch_size ({self.batch_size}), or "
                f"give {sampler}.drop_last=False"
            )
        asked = min(section.workers, available_cpus())
        self._workers = asked if options.workers is None else options.workers
        if self._workers and not CAN_SHARE:
            options.on_warning("images are read in one process: more of them need Linux")
            self._workers = 0
        self._ahead = max(_AHEAD, -(-_LEAST_AHEAD // self.batch_size))
        self._crews: list[Crew] = []  # those that read no epoch at present
        weakref.finalize(self, _close_all, self._crews)
        self._skipped: dict[str, str] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_config(cls, section: Mapping[str, Any], options: DataOptions) -> TrainingData:
        """Read a section of a config, and the list of images that it names.

        Args:
            section: its keys `dataset`, `sampler` and `loader`, as YAML gives them.
            options: what the run says beside it.

        Raises:
            ConfigError: a key is missing, unknown or not served, or a value is wrong.
            InputError: the images' folder or list is missing, or has a line of another form.
        """
        return cls(read_section(section, training=options.training), options)

    @property
    def skipped(self) -> Mapping[str, str]:
        """The images that could not be read so far, by path, with the reasons."""
        with self._lock:
            return dict(self._skipped)

    def __len__(self) -> int:
        """Return how many batches an epoch has on this rank."""
        return len(self._sampler)

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """Read the batches of one epoch, ahead of their use.

        Args:
            number: the epoch, from 0; it decides the order and all that is random.
            skip: how many batches to leave out at the beginning, without reading them.

        Yields:
            The batches in order, `len(self) - skip` of them.

        Raises:
            InputError: most images cannot be read.
            ResourceError: the system has no more open files or memory for this process.
        """
        batches = list(enumerate(self._sampler.batches(number)))[skip:]
        wanted, read = 0, 0
        for (place, indices), batch in zip(batches, self._batches(number, batches), strict=True):
            wanted, read = wanted + len(indices), read + len(batch)
            last = place == batches[-1][0]
            if 2 * read < wanted and (last or wanted >= _ENOUGH):
                path, reason = next(iter(self.skipped.items()))
                raise InputError(
                    f"{wanted - read} of the first {wanted} images of epoch {number + 1} cannot be "
                    f"read; the first one: {cut(path)} {reason}"
                )
            yield batch

    def close(self) -> None:
        """End the processes that read images; an epoch that is read later starts others."""
        _close_all(self._crews)

    def _batches(self, number: int, batches: Sequence[_Planned]) -> Iterator[Batch]:
        """Read batches in order."""
        if self._workers:
            yield from self._by_crew(number, batches)
            return
        for place, indices in batches:
            rows = np.empty((len(indices), *self.shape), np.float32)
            failed = {}
            for row, index in enumerate(indices):
                try:
                    self._pipeline(self._found.files[index].path, number, int(index), rows[row])
                except ImageError as error:
                    failed[row] = str(error)
            yield self._finished((number, place), indices, rows, failed)

    def _by_crew(self, number: int, batches: Sequence[_Planned]) -> Iterator[Batch]:
        """Read batches in order, in other processes, ahead of their use."""
        crew = self._crews.pop() if self._crews else self._new_crew()
        askers = ThreadPoolExecutor(self._workers, "hgdeploy reader")
        finishers = ThreadPoolExecutor(_FINISHERS, "hgdeploy batch")
        piece = max(1, min(_MOST_ASKED, self.batch_size // (2 * self._workers)))
        waiting: deque[Future[Batch]] = deque()
        try:
            for turn, (place, indices) in enumerate(batches):
                first = turn % (self._ahead + 1) * self.batch_size  # its rows in the shared memory
                images = [
                    (first + row, int(index), str(self._found.files[index].path.absolute()))
                    for row, index in enumerate(indices)
                ]
                asked = [
                    askers.submit(crew.read, number, images[start : start + piece])
                    for start in range(0, len(images), piece)
                ]
                rows = crew.rows[first : first + len(indices)]
                waiting.append(
                    finishers.submit(self._gathered, (number, place), indices, rows, (first, asked))
                )
                if len(waiting) > self._ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # also where the caller stops in the middle; nothing writes to the rows after it
            askers.shutdown(wait=True, cancel_futures=True)
            finishers.shutdown(wait=True, cancel_futures=True)
            self._crews.append(crew)

    def _new_crew(self) -> Crew:
        shape = ((self._ahead + 1) * self.batch_size, *self.shape)
        return Crew(self._ops, self._options.seed, shape)

    def _gathered(
        self,
        place: tuple[int, int],
        indices: NDArray[np.int64],
        rows: NDArray[np.float32],
        pieces: tuple[int, Sequence[Future[dict[int, str]]]],
    ) -> Batch:
        """Wait for the pieces of a batch, and copy it from the shared memory."""
        first, asked = pieces
        failed = {row - first: why for one in asked for row, why in one.result().items()}
        return self._finished(place, indices, rows.copy(), failed)

    def _finished(
        self,
        place: tuple[int, int],
        indices: NDArray[np.int64],
        rows: NDArray[np.float32],
        failed: Mapping[int, str],
    ) -> Batch:
        """Make a batch, the second of `place` in its epoch, of the images that could be read."""
        for row, reason in failed.items():
            self._skip(self._found.files[indices[row]], reason)
        if failed:
            kept = [row for row in range(len(indices)) if row not in failed]
            indices, rows = indices[kept], rows[kept]
        labels: NDArray[Any] = self._found.labels[indices]
        if self.soft and labels.ndim == 1:
            labels = np.eye(self.classes, dtype=np.float32)[labels]
        for number, mix in enumerate(self._batch_ops):
            if len(indices):
                options = self._options
                rng = stream(options.seed, Drawn.MIX, *place, options.rank, number)
                labels = mix(rows, labels, rng)
        paths = tuple(self._found.files[index].place for index in indices)
        return Batch(place[1], rows, labels, paths, indices)

    def _skip(self, file: ImageFile, reason: str) -> None:
        with self._lock:
            new = file.place not in self._skipped
            self._skipped[file.place] = reason
        if new:
            self._options.on_warning(f"{cut(file.name)} {reason}; it is left out")


def _close_all(crews: list[Crew]) -> None:
    while crews:
        crews.pop().close()
