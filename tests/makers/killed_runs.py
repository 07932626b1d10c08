# SPDX-License-Identifier: Apache-2.0
"""Runs over many images that are killed and resumed, for tests/results/test_file.py.

    python killed_runs.py steps|moments|interrupts|limit|disk FOLDER SUFFIX

The loop around `ResultsFile` is that of a real run, but there is no model: the class of an image is
the number in its file, and its label names the model of the run, so that a row says what made it.
Every run is a fork of this process, which stays small itself: hundreds take a few seconds.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hgdeploy.errors import ConfigError, OutputError
from hgdeploy.images.find import ImageFile
from hgdeploy.results.file import OnChange, ResultsFile
from hgdeploy.results.rows import Row, file_facts, row_from_line, row_from_prediction
from hgdeploy.results.tables import table_format
from hgdeploy.transforms.prediction import Prediction

KILLED, DONE, REFUSED, FULL = -signal.SIGKILL, 0, 20, 21


def make_file(folder: Path, name: str, number: int) -> ImageFile:
    """A file that stands for an image; every seventh cannot be classified."""
    path = folder / name
    path.write_text(str(number))
    return ImageFile(str(path), name)


def predicted(file: ImageFile, model: str) -> Prediction:
    number = int(file.path.read_text())
    if number % 7 == 0:
        return Prediction.failed(file.name, f"{number} is divisible by 7")
    return Prediction(file.name, (number, 1), (0.75, 0.125), (f"by {model}", "one, two"))


def run(output: Path, files: list[ImageFile], model: str, resume: OnChange | None = None) -> int:
    """One run, as a command does it; return how many rows were kept from before."""
    with ResultsFile(output) as results:
        plan = results.begin(files, {"model": model}, resume)
        for file in plan.remaining:
            facts = file_facts(file.path)
            results.write(predicted(file, model), facts)
        results.finish()
    return plan.kept


def rows_of(output: Path) -> list[Row]:
    """All rows of a result file."""
    table = table_format(output)
    if table is not None:
        return list(table.read(output))
    return [row_from_line(line) for line in output.read_bytes().splitlines(keepends=True)]


def expected_rows(files: list[ImageFile], model: str) -> list[Row]:
    return [row_from_prediction(predicted(file, model), file_facts(file.path)) for file in files]


def check(output: Path, files: list[ImageFile], model: str) -> None:
    """One row for each image, in order, by this model, and nothing left over beside the file."""
    assert rows_of(output) == expected_rows(files, model)
    beside = {path.name for path in output.parent.iterdir()}
    assert beside == {output.name, f"{output.name}.run.json"}, beside


def forked(work: Callable[[], object], kill_after: float | None = None) -> int:
    """Do `work` in a separate process, killed after so many seconds; return how it ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = DONE
        except ConfigError:
            code = REFUSED
        except OutputError as error:
            print(error, flush=True)
            code = FULL
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def done(work: Callable[[], object]) -> None:
    assert forked(work) == DONE


def kill_at(step: int, folder: Path) -> None:
    """Kill this process when it is about to open, rename, cut or remove its n-th file there."""
    left = step

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        named = event in ("open", "os.rename", "os.remove", "os.truncate")
        if named and (event == "os.truncate" or str(arguments[0]).startswith(str(folder))):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def at_every_step(
    base: Path, output: Path, work: Callable[[], object], after: Callable[[], None]
) -> int:
    """Kill `work` at its first step, at its second and so on; `after` each, resume and check."""
    for step in range(1, 1000):
        shutil.rmtree(output.parent, ignore_errors=True)
        shutil.copytree(base, output.parent)

        def killed(step: int = step) -> None:
            kill_at(step, output.parent)
            work()

        ended = forked(killed)
        after()
        if ended == DONE:
            return step - 1
        assert ended == KILLED
    raise AssertionError("it never ends")


def steps(folder: Path, suffix: str) -> None:
    """Every step between two states of the disk, in each kind of run."""
    images, base, output = folder / "images", folder / "base", folder / "out" / f"x{suffix}"
    images.mkdir()
    base.mkdir()
    old = [make_file(images, f"{i:02}.jpg", i) for i in range(1, 30, 2)]

    def after_beginning() -> None:
        done(lambda: run(output, old, "A", "refuse"))
        done(lambda: check(output, old, "A"))

    total = at_every_step(base, output, lambda: run(output, old, "A"), after_beginning)
    shutil.rmtree(base)
    shutil.copytree(output.parent, base)  # a finished run, for the others to resume

    def after_replacing() -> None:
        ended = forked(lambda: run(output, old, "B", "refuse"))
        assert ended in (DONE, REFUSED)
        done(lambda: check_rows(output, old, "B" if ended == DONE else "A"))
        done(lambda: run(output, old, "B", "redo"))
        done(lambda: check(output, old, "B"))

    def after_redoing() -> None:
        done(lambda: run(output, old, "B", "redo"))
        done(lambda: check(output, old, "B"))

    for work, after in (
        (lambda: run(output, old, "B"), after_replacing),
        (lambda: run(output, old, "B", "redo"), after_redoing),
    ):
        total += at_every_step(base, output, work, after)

    make_file(images, old[4].name, 1234)  # changed
    added = [make_file(images, f"{i:02}.jpg", i) for i in range(0, 30, 4)]
    new = sorted([*old[:7], *old[8:], *added], key=lambda file: file.name)  # one is gone

    def after_changes() -> None:
        done(lambda: run(output, new, "A", "redo"))
        done(lambda: check(output, new, "A"))

    total += at_every_step(base, output, lambda: run(output, new, "A", "redo"), after_changes)
    print(total)


def check_rows(output: Path, files: list[ImageFile], model: str) -> None:
    assert rows_of(output) == expected_rows(files, model)


def moments(folder: Path, suffix: str) -> None:
    """Runs killed at random moments, and resumed until one ends by itself."""
    images, output = folder / "images", folder / "out" / f"x{suffix}"
    images.mkdir()
    files = [make_file(images, f"{i:04}.jpg", i) for i in range(400)]
    chance = random.Random(0)
    kills = 0
    while kills < 25:
        shutil.rmtree(output.parent, ignore_errors=True)
        output.parent.mkdir()
        start = time.monotonic()
        done(lambda: run(output, files, "A"))
        longest = time.monotonic() - start
        shutil.rmtree(output.parent)
        output.parent.mkdir()
        while (
            ended := forked(
                lambda: run(output, files, "A", "refuse"), chance.uniform(0, 1.2 * longest)
            )
        ) == KILLED:
            kills += 1
        assert ended == DONE, ended
        done(lambda: check(output, files, "A"))
    print(kills)


def interrupts(folder: Path, suffix: str) -> None:
    """Ctrl-C at random moments: what is reported of the rows is what is in the file."""
    images, output = folder / "images", folder / "out" / f"x{suffix}"
    images.mkdir()
    output.parent.mkdir()
    files = [make_file(images, f"{i:04}.jpg", i) for i in range(400)]
    chance, seen = random.Random(0), 0
    while seen < 25:
        answers, begun = os.pipe()
        child = os.fork()
        if child == 0:
            interruptible(output, files, begun)
        os.close(begun)
        os.read(answers, 1)
        time.sleep(chance.uniform(0, 0.01))
        os.kill(child, signal.SIGINT)
        progress = os.read(answers, 1000).decode()
        os.close(answers)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        seen += bool(progress)
        if progress:
            rows = rows_of(output)
            assert progress.startswith(f"{len(rows)} of 400 images are done"), progress
            assert rows == expected_rows(files[: len(rows)], "A")
    print(seen)


def interruptible(output: Path, files: list[ImageFile], begun: int) -> None:
    """A run in this process that says, when it is interrupted, how far it has got."""
    results = ResultsFile(output)
    try:
        plan = results.begin(files, {"model": "A"})
        os.write(begun, b"!")
        for file in plan.remaining:
            facts = file_facts(file.path)
            results.write(predicted(file, "A"), facts)
        results.finish()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.write(begun, results.progress().encode())
    results.close()
    os._exit(0)


def disk(folder: Path, suffix: str) -> None:
    """A disk that is full until it is made larger. Needs permission to mount one."""
    images, output = folder / "images", folder / "out" / f"x{suffix}"
    images.mkdir()
    output.parent.mkdir()
    files = [make_file(images, f"{i:04}.jpg", i) for i in range(400)]
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "none", str(output.parent)]
    subprocess.run(mount, check=True)
    for resume in (None, "refuse"):
        assert forked(lambda resume=resume: run(output, files, "A", resume)) == FULL
    rows = rows_path(output).read_bytes().splitlines(keepends=True)
    assert len(rows) > 100
    assert [row_from_line(line) for line in rows] == expected_rows(files[: len(rows)], "A")
    mount[1:5] = ["-o", "remount,size=1m"]
    subprocess.run(mount, check=True)
    done(lambda: run(output, files, "A", "refuse"))
    done(lambda: check(output, files, "A"))


def rows_path(output: Path) -> Path:
    return output if output.suffix == ".jsonl" else output.with_name(f"{output.name}.rows.jsonl")


def limit(folder: Path, suffix: str) -> None:
    """A file that may not grow while rows are written, and while the results are made of them."""
    images, output = folder / "images", folder / "out" / f"x{suffix}"
    images.mkdir()
    output.parent.mkdir()
    files = [make_file(images, f"{i:04}.jpg", i) for i in range(400)]
    rows = rows_path(output)

    def limited(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        run(output, files, "A", "refuse")

    for size in (10_000, 20_001):
        assert forked(lambda size=size: limited(size)) == FULL
        lines = rows.read_bytes().splitlines(keepends=True)
        assert sum(map(len, lines)) > size - 200
        assert [row_from_line(line) for line in lines] == expected_rows(files[: len(lines)], "A")

    def limited_at_the_end() -> None:
        with ResultsFile(output) as results:
            for file in results.begin(files, {"model": "A"}, "refuse").remaining:
                facts = file_facts(file.path)
                results.write(predicted(file, "A"), facts)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            results.finish()

    if suffix != ".jsonl":
        assert forked(limited_at_the_end) == FULL
        assert not list(output.parent.glob(".*.tmp"))
        assert not output.exists()
        assert len(rows.read_bytes().splitlines()) == len(files)
    done(lambda: run(output, files, "A", "refuse"))
    done(lambda: check(output, files, "A"))


if __name__ == "__main__":
    mode, where, kind = sys.argv[1:]
    if kind == ".parquet":
        import pyarrow.parquet  # noqa: F401 (once, before the forks)
    modes = (steps, moments, interrupts, limit, disk)
    {work.__name__: work for work in modes}[mode](Path(where), kind)
