# SPDX-License-Identifier: Apache-2.0
"""Classify many files, losing none: each is classified, or failed with its reason."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hgdeploy.classifier import Classifier
from hgdeploy.errors import EXIT_OK, EXIT_SOME_IMAGES_FAILED, OutputError
from hgdeploy.images import ImageFile
from hgdeploy.postprocess import Prediction, printable, save_image
from hgdeploy.results import Writer


@dataclass
class Summary:
    """The accounts of a run; found = classified + failed once it is over.

    Attributes:
        found: images the inputs named.
        classified: images with a prediction.
        failed: images with a reason instead.
        seconds: wall time of the run, without loading the model.
    """

    found: int
    classified: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """The code a command ends with after this run."""
        return EXIT_SOME_IMAGES_FAILED if self.failed else EXIT_OK

    def text(self) -> str:
        """Return the accounts on one line."""
        rate = (self.classified + self.failed) / self.seconds if self.seconds > 0 else 0.0
        return (
            f"found {self.found} = classified {self.classified} + failed {self.failed}, "
            f"{self.seconds:.1f} s, {rate:.1f} images/s"
        )


def classify_files(
    classifier: Classifier,
    files: Sequence[ImageFile],
    writers: Sequence[Writer],
    report: Callable[[str], None],
    summary: Summary,
) -> None:
    """Classify `files` in order and hand each prediction to every writer.

    Args:
        classifier: the loaded model.
        files: the images.
        writers: where predictions go; the caller closes them.
        report: takes one line for each failed image and each warning, as it happens.
        summary: filled as the run goes, so that it holds when the run is interrupted.

    Raises:
        OutputError: a writer, or `SavePreLabel`, cannot write.
        EngineError: the engine failed.
    """
    start = time.perf_counter()
    told = 0
    save_dir = classifier.postprocess.save_dir
    try:
        predictions = classifier.predict_files(files)
        for file, prediction in zip(files, predictions, strict=True):
            for warning in classifier.warnings[told:]:
                report(warning)
            told = len(classifier.warnings)
            _account(summary, prediction, report)
            _write(writers, prediction)
            if save_dir is not None and prediction.error is None:
                save_image(prediction, file.path, save_dir)
    finally:
        summary.seconds = time.perf_counter() - start


def _account(summary: Summary, prediction: Prediction, report: Callable[[str], None]) -> None:
    if prediction.error is None:
        summary.classified += 1
    else:
        summary.failed += 1
        report(f"{printable(prediction.path)}: {prediction.error}")


def _write(writers: Sequence[Writer], prediction: Prediction) -> None:
    try:
        for writer in writers:
            writer.write(prediction)
    except BrokenPipeError:
        raise  # a reader such as `head` has had enough; that is no failure to write
    except OSError as error:
        raise OutputError(f"results cannot be written: {error.strerror}") from None
