# SPDX-License-Identifier: Apache-2.0
"""What the system does not give is no fault of the image that is being read."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import IMAGES
from hgdeploy.cli.main import main
from hgdeploy.errors import ResourceError
from hgdeploy.images.decode import read_image
from hgdeploy.images.isolated_reader import IsolatedReader
from hgdeploy.system.machine import raise_if_exhausted

resource = pytest.importorskip("resource", reason="Windows has no limits of open files")
PHOTO = IMAGES / "coffee.jpg"


@contextlib.contextmanager
def no_more_open_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_many_open_files_are_not_the_images_fault():
    read_image(PHOTO)
    with no_more_open_files(), pytest.raises(ResourceError) as caught:
        read_image(PHOTO)
    assert str(caught.value) == (
        "the system refuses this process: too many open files; raise the limit (ulimit -n), or use "
        "fewer --workers"
    )


def test_a_reading_process_that_does_not_start_is_not_the_images_fault():
    reader = IsolatedReader((), False, 5.0)
    with no_more_open_files(), pytest.raises(ResourceError, match=r"did not start: .*oo many open"):
        reader.read_file(PHOTO)
    reader.close()


def test_other_faults_of_a_file_are_its_own(tmp_path):
    for number in (errno.EACCES, errno.EIO, errno.ENOENT):
        raise_if_exhausted(OSError(number, "x"))
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        with pytest.raises(ResourceError, match="use fewer --workers"):
            raise_if_exhausted(OSError(number, "x"))


def test_the_run_ends_and_goes_on_later_with_the_same_image(tmp_path, mini, run_here, monkeypatch):
    """Once a row said that an image had failed, `--resume` would not read it again."""
    folder, output = tmp_path / "images", tmp_path / "rows.jsonl"
    folder.mkdir()
    for i in range(9):
        (folder / f"{i}.jpg").symlink_to(PHOTO)
    command = ("predict", mini, folder, "--engine", "onnxruntime", "--output", output)
    whole = Path.read_bytes

    def read(path: Path) -> bytes:
        if path.name == "5.jpg":
            raise OSError(errno.EMFILE, "Too many open files")
        return whole(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read)
        ended = run_here(main, *command, "--workers", "1")
    assert ended.returncode == ResourceError.exit_code
    assert ended.stderr.splitlines()[-1].startswith("hgdeploy: error: the system refuses")
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["error"] for row in rows] == 5 * [None]
    assert run_here(main, *command, "--resume").returncode == 0
    assert len(output.read_text().splitlines()) == 9
