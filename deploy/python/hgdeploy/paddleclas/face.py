# SPDX-License-Identifier: Apache-2.0
"""`PaddleClas`: the class of PaddleClas's Python package, on HGDeploy's engines."""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.classify.classifier import Classifier
from hgdeploy.classify.source import Found, Source, each_image, is_series
from hgdeploy.engines.auto.choose import with_saved
from hgdeploy.errors import DownloadError, ImageError, InputError
from hgdeploy.images.find import ImageFile, find_images
from hgdeploy.paddleclas.answers import (
    Answer,
    answer_of,
    naming,
    print_result,
    printed,
    tell,
    warn,
)
from hgdeploy.results.rows import file_facts
from hgdeploy.results.writers import LabelFolderWriter

_said: set[str] = set()


class PaddleClas:
    """Classifies images as the class of this name in PaddleClas's package does.

    Each argument stands for a key of the model's config; None, and 0 for a number, leave it as it
    is. `docs/paddleclas.md` has them all.

    Args:
        build_gallery: belongs to PP-ShiTu, and is refused; so are the three after it.
        gallery_image_root: see `build_gallery`.
        gallery_data_file: see `build_gallery`.
        index_dir: see `build_gallery`.
        model_name: a model of PaddleClas's, which is downloaded unless it is in its cache.
        inference_model_dir: the folder of a model, where no `model_name` is given.
        **kwargs: the arguments of PaddleClas's command by name; `override`, a list of texts as
            after `-o`; and HGDeploy's own `engine`, `precision` and `device`.

    Raises:
        ConfigError: an argument, an override or the config is wrong.
        BundleError: the model's files are missing or do not fit each other.
        DownloadError: the model cannot be downloaded.
        EngineError: the engine, device or precision is not available here.
    """

    def __init__(
        self,
        build_gallery: bool = False,
        gallery_image_root: str | None = None,
        gallery_data_file: str | None = None,
        index_dir: str | None = None,
        model_name: str | None = None,
        inference_model_dir: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        from hgdeploy.convert.engine_files import ensure_artifact
        from hgdeploy.paddleclas.decided import decided

        arguments = {
            "build_gallery": build_gallery,
            "gallery_image_root": gallery_image_root,
            "gallery_data_file": gallery_data_file,
            "index_dir": index_dir,
            "model_name": model_name,
            "inference_model_dir": inference_model_dir,
        }
        found = decided({**arguments, **kwargs}, tell)
        for note in (*found.config.notes, *found.config.warnings, *found.notes):
            _once(note)
        self._copies = found.config.copies
        self._lock = threading.Lock()
        self._told = 0
        bundle, settings = open_bundle(found.config.bundle), found.config.settings
        options = with_saved(settings.options, found.config.saved)
        settings = dataclasses.replace(settings, options=options)
        if settings.engine is not None:
            ensure_artifact(bundle, settings.engine, settings.options, tell, warn)
        self._classifier = Classifier.from_settings(bundle, settings)
        self._tell_warnings()

    def predict(
        self, input_data: Source, print_pred: bool = False, predict_type: str = "cls"
    ) -> Iterator[list[Answer]]:
        """Classify images lazily and in order; safe to call from many threads at once.

        An image that cannot be read is left out of the lists, with a warning that names it.

        Args:
            input_data: a file, a folder, or the address of an image in the web; the pixels of an
                image as uint8 RGB of shape (height, width, 3). HGDeploy also takes patterns, text
                lists, bytes, open files, and series of all these.
            print_pred: print PaddleClas's line for each image to stdout.
            predict_type: `cls`.

        Yields:
            One list for each batch, with a dictionary for each image: `class_ids`, `scores`,
            `label_names` and `filename`; `attributes`, `output` and `filename` of a model of
            attributes. One image that has no path has no `filename`; in a series it is called
            `<array 0>`.

        Raises:
            ConfigError: another `predict_type`.
            InputError: there is no image in what was given.
            ImageError: the one image without a path cannot be read.
            DownloadError: an image cannot be downloaded.
            EngineError: the engine failed.
        """
        from hgdeploy.paddleclas.arguments import check_predict_type

        check_predict_type(predict_type)
        return self._batches(input_data, print_pred)

    def close(self) -> None:
        """Free the engine; a second call does nothing."""
        self._classifier.close()

    def __enter__(self) -> PaddleClas:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _batches(self, source: Source, print_pred: bool) -> Iterator[list[Answer]]:
        answers = self._answers(source)
        while batch := list(itertools.islice(answers, self._classifier.batch_size)):
            if print_pred:
                for answer in batch:
                    print_result(printed(answer))
            yield batch

    def _answers(self, source: Source) -> Iterator[Answer]:
        """Yield the answers of the images that can be read."""
        copies = None if self._copies is None else LabelFolderWriter(self._copies)
        names: deque[tuple[str | None, Found]] = deque()

        def images() -> Iterator[Found]:
            for filename, found in _named(source, copies):
                names.append((filename, found))
                yield found

        for prediction in self._classifier.predict(images()):
            filename, found = names.popleft()
            self._tell_warnings()
            if prediction.error is not None and filename is None:
                raise ImageError(prediction.error)
            if prediction.error is not None:
                warn(f"{filename} is left out: {prediction.error}")
                continue
            if copies is not None and isinstance(found, ImageFile):
                copies.write(prediction, file_facts(found.path))
            yield answer_of(prediction, filename)

    def _tell_warnings(self) -> None:
        """Tell what the classifier has warned of since."""
        with self._lock:
            new = self._classifier.warnings[self._told :]
            self._told += len(new)
        for warning in new:
            warn(warning)


def _once(note: str) -> None:
    """Tell a note, unless this process has told it already."""
    if note not in _said:
        _said.add(note)
        warn(note)


def _named(
    source: Source, copies: LabelFolderWriter | None, index: int | None = None
) -> Iterator[tuple[str | None, Found]]:
    """Yield the images of a source, each with the path that it was found by.

    Args:
        source: see `PaddleClas.predict`.
        copies: refuses images that lie among the copies; None where there are none.
        index: the place of the source in a series; None for what stands alone, without a name.
    """
    from hgdeploy.paddleclas.names import fetched_image, is_address

    if is_address(source):
        try:
            source = fetched_image(str(source), tell)
        except DownloadError as error:
            if index is None:
                raise
            warn(f"left out: {error}")
            return
    if isinstance(source, str | os.PathLike):
        files, name = _files(source, alone=index is None), naming(source)
        if copies is not None:
            copies.check_apart(files)
        yield from ((name(file.place, file.name), file) for file in files)
    elif is_series(source):
        for i, part in enumerate(source):
            yield from _named(part, copies, i)
    else:
        for called, found in each_image(source, warn, index or 0):
            yield None if index is None else called, found


def _files(source: str | Path, *, alone: bool) -> list[ImageFile]:
    """Return the images at a path; in a series, a path without any, which fails when it is read."""
    try:
        return find_images(source, warn)
    except InputError:
        if alone:
            raise
        return [ImageFile(os.fspath(source), os.fspath(source))]
