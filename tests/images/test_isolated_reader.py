# SPDX-License-Identifier: Apache-2.0
"""Reading images in other processes: the same tensors; a crash or a hang costs one image."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import DEADLINE, IMAGES, children, hgdeploy
from hgdeploy.errors import ConfigError, ImageError
from hgdeploy.images.isolated_reader import IsolatedReader
from hgdeploy.images.reader import ImageReader
from hgdeploy.transforms.operators_config import imagenet_ops

OPS = imagenet_ops(72, 64)


@pytest.fixture
def reader():
    reader = IsolatedReader(OPS, False, DEADLINE)
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def slow_image(tmp_path_factory) -> Path:
    """A picture that takes a good part of a second to decode: noise, which PNG cannot press."""
    path = tmp_path_factory.mktemp("slow") / "slow.png"
    noise = np.random.default_rng(0).integers(0, 256, (4000, 4000, 3), np.uint8)
    assert cv2.imwrite(str(path), noise, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return path


@pytest.fixture(scope="module")
def too_short(slow_image) -> float:
    """A limit that the slow image cannot keep here and now, and any photograph can."""
    start = time.monotonic()
    ImageReader(OPS).read_file(slow_image)
    return round((time.monotonic() - start) / 4, 3)


def readers() -> list[int]:
    """The reading processes there are."""
    return children("isolated_child")


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux has it")
def test_a_process_that_reads_is_the_first_to_end_where_memory_ends(reader):
    reader.read_file(IMAGES / "coffee.jpg")
    [child] = readers()
    assert Path(f"/proc/{child}/oom_score_adj").read_text().strip() == "1000"


def test_it_reads_what_the_reader_in_this_process_reads(reader):
    here = ImageReader(OPS)
    for photo in sorted(IMAGES.glob("*.jpg")):
        np.testing.assert_array_equal(
            reader.read_file(photo).tensor, here.read_file(photo).tensor, strict=True
        )


def test_a_bad_image_fails_with_the_same_reason_and_costs_no_process(reader, tmp_path):
    bad = tmp_path / "line\nbreak.jpg"
    bad.write_bytes(b"")
    with pytest.raises(ImageError, match=r"^is empty$"):
        reader.read_file(bad)
    before = readers()
    with pytest.raises(ImageError, match=r"^does not exist$"):
        reader.read_file(Path(os.fsdecode(b"\xff gone.jpg")))
    assert readers() == before
    assert len(before) == 1


def test_what_takes_too_long_is_ended_and_the_next_image_is_read(slow_image, too_short):
    reader = IsolatedReader(OPS, False, too_short)
    try:
        with pytest.raises(
            ImageError, match=f"took longer than {too_short:g} s to read, the limit of"
        ):
            reader.read_file(slow_image)
        assert reader.read_file(IMAGES / "coffee.jpg").tensor.shape == (3, 64, 64)
    finally:
        reader.close()


def test_a_crash_costs_one_image(reader, slow_image):
    reader.read_file(IMAGES / "coffee.jpg")
    (pid,) = readers()
    reasons: list[str] = []

    def read() -> None:
        try:
            reader.read_file(slow_image)
        except ImageError as error:
            reasons.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.05)
    os.kill(pid, signal.SIGSEGV)
    thread.join(DEADLINE)
    assert reasons == ["crashed the decoder (SIGSEGV)"]
    assert reader.read_file(IMAGES / "coffee.jpg").tensor.shape == (3, 64, 64)
    assert pid not in readers()


def test_many_threads_have_a_process_each_and_none_is_left(reader):
    threads = [
        threading.Thread(target=reader.read_file, args=(photo,)) for photo in IMAGES.glob("*.jpg")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert 1 <= len(readers()) <= len(threads)
    reader.close()
    assert readers() == []


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(seconds):
    with pytest.raises(ConfigError, match="expected a number above 0 to 604800"):
        IsolatedReader(OPS, False, seconds)


def test_predict_counts_what_took_too_long_as_failed(mini, slow_image, too_short, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, source in (("a.png", slow_image), ("b.jpg", IMAGES / "coffee.jpg")):
        (folder / name).symlink_to(source)
    result = hgdeploy(
        "predict", mini, folder, "--engine", "onnxruntime", "--image-timeout", too_short
    )
    assert result.returncode == 3, result.stderr
    assert f"a.png: took longer than {too_short:g} s to read" in result.stderr
    assert result.stdout.startswith("b.jpg:\tclass id(s):")
    assert "found 2 = classified 1 + failed 1" in result.stderr
