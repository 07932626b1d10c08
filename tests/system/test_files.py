# SPDX-License-Identifier: Apache-2.0
"""Written whole: each file and folder is new, complete and on disk, or all is as it was before."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hgdeploy.errors import BundleError, OutputError
from hgdeploy.system import files
from hgdeploy.system.files import (
    check_replaceable,
    put_in_place,
    remove_leftovers,
    replacing,
    replacing_folder,
    updating_folder,
    write_text,
    writing,
)

needs_locks = pytest.mark.skipif(os.name == "nt", reason="this system has no locks on folders")


def tree(folder: Path) -> dict[str, str | None]:
    """All that lies below a folder, hidden files included."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else None
        for path in folder.rglob("*")
    }


def fill(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with files of before."""
    return fill(tmp_path / "here", a="old a", b="old b", mine="mine")


@pytest.fixture
def full_disk(monkeypatch):
    """Return a function: from then on no file can take one name."""
    replace = Path.replace

    def fail_at(name: str) -> None:
        def fails(path: Path, target: Path) -> Path:
            if Path(target).name == name and path.parent.name != "old":
                raise OSError(28, "No space left on device")
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", fails)

    return fail_at


@pytest.fixture
def synced(monkeypatch) -> list[str]:
    """What has been brought to disk, and what has taken its name, in this order."""
    seen: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(handle: int) -> None:
        seen.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().name}")
        fsync(handle)

    def noted_replace(path: Path, target: Path) -> Path:
        seen.append(f"name {Path(target).name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    return seen


# One file.


def test_a_file_is_as_it_was_until_the_block_has_ended(folder):
    with replacing(folder / "a") as stream:
        stream.write(b"new a")
        stream.flush()
        assert (folder / "a").read_text() == "old a"
    assert tree(folder) == {"a": "new a", "b": "old b", "mine": "mine"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, BundleError])
def test_a_block_that_fails_changes_nothing(folder, error):
    before = tree(folder.parent)
    with pytest.raises(error), replacing(folder / "a") as stream:  # noqa: PT012
        stream.write(b"half")
        raise error
    for work in (updating_folder, replacing_folder):
        with pytest.raises(error), work(folder) as made:  # noqa: PT012
            fill(made, a="half")
            raise error
    assert tree(folder.parent) == before


def test_a_failure_to_write_is_one_line_that_names_the_path(folder, full_disk):
    before = tree(folder)
    full_disk("a")
    with pytest.raises(OutputError) as error:
        write_text(folder / "a", "new a")
    assert str(error.value) == f"{folder / 'a'} cannot be written: No space left on device"
    with pytest.raises(OutputError, match=r"none/x cannot be written: No such file"):
        write_text(folder / "none" / "x", "x")
    with pytest.raises(OutputError, match="here cannot be written: Is a directory"):
        write_text(folder, "x")
    with pytest.raises(OutputError, match="x cannot be written: Permission denied"), writing("x"):
        raise PermissionError(13, "Permission denied")
    assert tree(folder) == before


def test_many_that_write_one_file_never_mix(tmp_path):
    """Without a lock, the last one that ends well wins; whole is what is there at every moment."""
    path = tmp_path / "x"
    texts = [character * 200_000 for character in "abcd"]
    write_text(path, texts[0])
    threads = [threading.Thread(target=lambda t=t: [write_text(path, t) for _ in range(10)])
               for t in texts]  # fmt: skip
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_the_file_and_what_it_left_can_be_removed(folder):
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from hgdeploy.system.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as stream:\n"
        "    stream.write(b'half'); stream.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(folder / "a")], check=False)
    assert ended.returncode < 0
    assert (folder / "a").read_text() == "old a"
    assert len(tree(folder)) == 4
    (folder / ".a.run.json").write_text("another's")
    (folder / ".a.b.01234567.tmp").write_text("another's")
    remove_leftovers(folder / "a", folder / "b")
    assert sorted(tree(folder)) == [".a.b.01234567.tmp", ".a.run.json", "a", "b", "mine"]


def killed_in(work: str, folder: Path, at: str = "pass") -> None:
    """Fill a folder in a process that is killed in the middle."""
    script = (
        "import os, signal, sys; from pathlib import Path; from hgdeploy.system import files\n"
        "def kill(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{at}\n"
        f"with files.{work}(Path(sys.argv[1])) as made:\n"
        "    (made / 'big').write_text('half')\n"
        f"    {'kill()' if at == 'pass' else 'pass'}\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(folder)], check=False)
    assert ended.returncode < 0


@needs_locks
@pytest.mark.parametrize("work", ["updating_folder", "replacing_folder"])
def test_what_a_killed_process_was_filling_goes_with_the_next_update(folder, work: str):
    beside = folder if work == "updating_folder" else folder.parent
    before = set(beside.rglob("*"))
    killed_in(work, folder)
    assert [path.name for path in set(beside.rglob("*")) - before].count("big") == 1
    mine = fill(beside / f".{folder.name}.01234567", new="a file of my own", x="another")
    with getattr(files, work)(folder) as one:
        assert sorted(beside.glob(f".{folder.name}.*")) == sorted([one.parent, mine])
        with getattr(files, work)(folder) as other:  # both are in use, and stay
            fill(other, a="new a")
        fill(one, b="new b")
    assert list(beside.glob(f".{folder.name}.*")) == [mine]


@needs_locks
def test_the_only_copy_of_what_was_there_is_never_removed(folder):
    """Killed between two renames, a process leaves the old folder under its hidden name."""
    killed_in("replacing_folder", folder, "Path.replace = kill")
    assert not folder.exists()
    before = tree(folder.parent)
    assert any(name.endswith("/mine") for name in before)
    with replacing_folder(folder) as made:
        fill(made, a="new a")
        assert before.items() <= tree(folder.parent).items()


def test_a_link_stays_one_and_permissions_are_kept(tmp_path):
    there = fill(tmp_path / "there", x="old") / "x"
    there.chmod(0o640)
    (tmp_path / "link").symlink_to(there)
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert there.read_text() == "new"
    assert stat.S_IMODE(there.stat().st_mode) == 0o640


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_takes_the_bytes_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        write_text(pipe, "new")
        assert reader.communicate(timeout=60)[0] == "new"
    assert pipe.is_fifo()
    with pytest.raises(OutputError, match="not a regular file"):
        check_replaceable(pipe)


def test_a_finished_file_takes_its_name(folder):
    put_in_place(folder / "mine", folder / "a")
    assert tree(folder) == {"a": "mine", "b": "old b"}
    with pytest.raises(OutputError, match="a cannot be written: No such file"):
        put_in_place(folder / "mine", folder / "a")


# Several files, and folders.


def test_files_that_belong_together_take_their_names_and_others_stay(folder):
    with updating_folder(folder) as made:
        fill(made, a="new a", c="new c")
        assert (folder / "a").read_text() == "old a"
    assert tree(folder) == {"a": "new a", "b": "old b", "c": "new c", "mine": "mine"}


@pytest.mark.parametrize("work", [updating_folder, replacing_folder])
def test_a_folder_that_is_not_there_appears_whole(tmp_path, work):
    place = tmp_path / "deep" / "new"
    with work(place) as made:
        fill(made, a="new a")
        assert not place.exists()
    assert tree(tmp_path) == {"deep": None, "deep/new": None, "deep/new/a": "new a"}
    by_hand = tmp_path / "by hand"
    by_hand.mkdir()
    assert place.stat().st_mode == by_hand.stat().st_mode, "others may read it as the umask says"


def test_a_folder_in_the_place_of_another_has_nothing_of_it(folder):
    with replacing_folder(folder) as made:
        fill(made, c="new c")
    assert tree(folder.parent) == {"here": None, "here/c": "new c"}


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_where_one_file_cannot_be_replaced_all_are_as_before(
    folder, full_disk, monkeypatch, name, links
):
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", no_links)
    before = tree(folder)
    full_disk(name)
    with pytest.raises(OutputError, match="here cannot be written: No space left"):  # noqa: SIM117
        with updating_folder(folder) as made:
            fill(made, a="new a", b="new b", c="new c", d="new d")
    assert tree(folder) == before


def test_a_folder_that_cannot_be_replaced_comes_back(folder, full_disk):
    before = tree(folder.parent)
    full_disk("here")
    with pytest.raises(OutputError, match="No space left"), replacing_folder(folder) as made:
        fill(made, c="new c")
    assert tree(folder.parent) == before


def test_a_folder_where_a_file_should_go_is_left_alone(folder):
    fill(folder / "b2", precious="precious")
    before = tree(folder)
    with pytest.raises(OutputError, match="b2 cannot be written: it is a folder"):  # noqa: SIM117
        with updating_folder(folder) as made:
            fill(made, a="new a", b2="new b2")
    assert tree(folder) == before


@pytest.mark.parametrize("work", [updating_folder, replacing_folder])
def test_a_file_is_no_folder(folder, work):
    for place, reason in (("a", "it is a file, expected a folder"), ("a/x", "")):
        with pytest.raises(OutputError, match=f"{place} cannot be written: {reason}"):  # noqa: SIM117
            with work(folder / place):
                raise AssertionError("no work is begun")
    assert tree(folder) == {"a": "old a", "b": "old b", "mine": "mine"}


# On disk.


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="handles have no names here")
def test_what_is_written_is_on_disk_before_it_takes_its_name(folder, synced):
    write_text(folder / "a", "new a")
    written, named, at_last = synced
    assert written.startswith("sync .a.")
    assert [named, at_last] == ["name a", "sync here"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="handles have no names here")
def test_files_that_belong_together_are_on_disk_before_the_first_takes_its_name(folder, synced):
    with updating_folder(folder, last=("a", "b")) as made:
        fill(made, a="new a", b="new b", c="new c")
    assert synced == ["sync c", "sync a", "sync b", "name c", "name a", "name b", "sync here"]


@pytest.mark.parametrize("work", [updating_folder, replacing_folder])
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="handles have no names here")
def test_a_new_folder_is_on_disk_with_all_that_is_in_it(tmp_path, synced, work):
    with work(tmp_path / "new folder") as made:
        fill(made / "1", a="new a")
    assert synced[-2:] == ["name new folder", f"sync {tmp_path.name}"]
    assert sorted(synced[:-2]) == ["sync 1", "sync a", "sync new"]


def test_a_file_system_that_syncs_nothing_is_no_failure(folder, monkeypatch):
    def unsupported(_: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", unsupported)
    write_text(folder / "a", "new a")
    assert (folder / "a").read_text() == "new a"


def test_a_disk_that_fails_is_a_failure(folder, monkeypatch):
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    before = tree(folder)
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OutputError, match="a cannot be written: Input/output error"):
        write_text(folder / "a", "new a")
    with pytest.raises(OutputError, match="Input/output error"), updating_folder(folder) as made:
        fill(made, a="new a")
    assert tree(folder) == before
