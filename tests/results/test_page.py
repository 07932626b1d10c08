# SPDX-License-Identifier: Apache-2.0
"""The page of a run shows what there is, of bounded size, and lets no name do anything."""

from __future__ import annotations

import html.parser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from hgdeploy.errors import OutputError
from hgdeploy.results.page import ReportWriter
from hgdeploy.results.rows import FileFacts
from hgdeploy.transforms.prediction import Prediction

CHROMIUM = shutil.which("chromium")
RED, BLUE = (200, 30, 40), (30, 60, 210)
HOSTILE = [
    "<script>document.title='owned'<|script>.png",
    "\"'><img src=x onerror=alert(1)>.png",
    "a\nb\x1b[31m\u202e.png",
    os.fsdecode(b"\xff\xfe.png"),
    "&lt;&amp;amp;.png",
]


class Page(html.parser.HTMLParser):
    """The tags of a page, the text of its cells, captions, headings and notes, and its links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "srcset"):
                self.addresses.append(value)
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data.strip())


def write(path: Path, predictions: list[tuple[Prediction, Path]], **about: str) -> Page:
    writer = ReportWriter(path, about)
    for prediction, file in predictions:
        writer.write(prediction, FileFacts(file, None, None))
    writer.finish()
    writer.close()
    return Page(path.read_text(encoding="utf-8"))


def good(name: str, score: float, number: int = 1, label: str = "hen") -> Prediction:
    return Prediction(name, (number, 2), (score, 0.01), (label, "other"))


@pytest.fixture
def picture(tmp_path):
    """Makes a plain picture of that name."""
    (tmp_path / "images").mkdir()

    def made(name: str, colour: tuple[int, int, int]) -> Path:
        path = tmp_path / "images" / name
        Image.new("RGB", (300, 200), colour).save(path, "PNG")
        return path

    return made


def test_the_page_shows_accounts_classes_failures_and_the_run(picture, tmp_path):
    file = picture("x.png", RED)
    predictions = [(good(f"{i}.png", 0.9, i % 2, f"class {i % 2}"), file) for i in range(5)]
    predictions += [(Prediction.failed(f"bad {i}.png", "is empty"), file) for i in range(2)]
    predictions.append((Prediction.failed("worse.png", "is truncated (PNG)"), file))
    page = write(tmp_path / "r.html", predictions, engine="onnxruntime", precision="bf16")
    text = " / ".join(page.texts)
    assert "8 images / found 8 = classified 5 + failed 3" in text
    assert "engine / onnxruntime / precision / bf16" in text
    assert "0 class 0 / 3 / 1 class 1 / 2" in text
    assert "is empty / 2 / is truncated (PNG) / 1" in text
    assert "bad 0.png / is empty / bad 1.png / is empty / worse.png / is truncated (PNG)" in text
    assert "5 of 5 classified images, drawn at random" in text
    assert "3.png / 1 class 1: 0.90 / 2 other: 0.01" in text


def test_the_least_sure_come_first_and_are_the_least_sure_of_all(picture, tmp_path):
    file = picture("x.png", RED)
    scores = [((i * 37) % 101) / 101 for i in range(101)]
    page = write(tmp_path / "r.html", [(good(f"{s:.4f}", s), file) for s in scores])
    shown = page.texts[page.texts.index("Least sure") : page.texts.index("A sample")]
    assert shown[1] == "24 of 101 classified images, the lowest best scores first"
    assert shown[2::3] == [f"{s:.4f}" for s in sorted(scores)[:24]]


def test_an_image_without_a_class_is_unsure_and_bare_scores_have_no_classes(picture, tmp_path):
    file = picture("x.png", RED)
    page = write(tmp_path / "r.html", [(Prediction("none.png", (), (), ()), file)])
    assert page.texts.count("no class") == 3, "in the histogram and in both galleries"
    page = write(tmp_path / "r.html", [(Prediction("score.png", None, (0.1234567,), ()), file)])
    assert "0.12346" in page.texts
    assert not {"Best class of each image", "Least sure"} & set(page.texts)


def test_the_page_of_very_many_images_is_small_and_says_what_it_leaves_out(tmp_path):
    noise = tmp_path / "noise.png"
    Image.frombytes("RGB", (400, 400), os.urandom(480_000)).save(noise)
    path = tmp_path / "r.html"
    writer = ReportWriter(path, {"long": "x" * 10_000})
    facts = FileFacts(noise, None, None)
    name = "n" * 4000
    for i in range(10_000):
        writer.write(
            good(f"{i}{name}", 0.5 + i / 20_000, i % 5000, f"label {i % 5000} {name}"), facts
        )
        writer.write(Prediction.failed(f"{i}{name}", f"has {i} pixels {name}"), facts)
    writer.finish()
    assert path.stat().st_size < 2_000_000
    texts = Page(path.read_text(encoding="utf-8")).texts
    assert "found 20,000 = classified 10,000 + failed 10,000" in texts
    assert "24 of 10,000 classified images, drawn at random" in texts
    assert "30 of 5,000 classes, the most frequent ones" in texts
    assert "100 of 10,000 failed images, the first ones" in texts
    assert any("all beyond the first 1,000 count as other reasons" in text for text in texts)


def test_every_image_may_be_in_the_sample_and_equal_runs_give_equal_pages(tmp_path):
    gone = tmp_path / "gone.png"
    predictions = [(good(f"{i}.png", 0.5), gone) for i in range(1000)]
    page = write(tmp_path / "a.html", predictions)
    write(tmp_path / "b.html", predictions)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    names = [text for text in page.texts[page.texts.index("A sample") :] if ".png" in text]
    numbers = sorted(int(name.removesuffix(".png")) for name in names)
    assert len(numbers) == 24
    assert numbers[0] < 250 < 750 < numbers[-1]


def test_equal_images_are_shown_once_with_their_number(picture, tmp_path):
    """Files of one size with one answer; where the size is not known, none are equal."""
    red, blue = picture("red.png", RED), picture("blue.png", BLUE)
    writer = ReportWriter(tmp_path / "r.html", {})
    for i in range(30):
        writer.write(good(f"copy{i}.png", 0.25), FileFacts(red, 100, None))
    writer.write(good("other.png", 0.25), FileFacts(blue, 101, None))
    writer.write(good("surer.png", 0.5), FileFacts(blue, 101, None))
    writer.finish()
    writer.close()
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    unsure = page.texts[page.texts.index("Least sure") : page.texts.index("A sample")]
    assert [text for text in unsure if text.endswith(".png")] == [
        "copy0.png",
        "other.png",
        "surer.png",
    ]
    assert "30 equal images" in unsure
    assert "32 of 32 classified images, the lowest best scores first; equal ones once" in unsure


def test_json_about_the_run_is_a_list_to_read(tmp_path):
    ops = [{"ResizeImage": {"resize_short": 256}}, {"NormalizeImage": {"mean": [0.5, 0.25]}}]
    page = write(tmp_path / "r.html", [], ops=json.dumps([*ops, {"ToCHWImage": None}]), odd="{x")
    shown = page.texts[page.texts.index("ops") :]
    assert shown[1:4] == [
        "ResizeImage (resize_short 256)",
        "NormalizeImage (mean 0.5, 0.25)",
        "ToCHWImage",
    ]
    assert "{x" in shown


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_choice_of_class_hides_the_other_images_without_any_script(picture, tmp_path):
    red, blue = picture("red.png", RED), picture("blue.png", BLUE)
    path = tmp_path / "r.html"
    write(path, [(good("a.png", 0.5), red), (good("b.png", 0.6, 3, "fox"), blue)])
    text = path.read_text(encoding="utf-8")
    chosen = re.search(r"id='(class\d+)'> 3 fox", text)
    path.write_text(text.replace(f"id='{chosen[1]}'", f"id='{chosen[1]}' checked"))
    shot = tmp_path / "shot.png"
    browse(path, tmp_path, f"--screenshot={shot}")
    with Image.open(shot) as image:
        colours = {c for _, c in image.convert("RGB").getcolors(image.width * image.height)}
    assert any(max(map(abs, map(int.__sub__, c, BLUE))) < 8 for c in colours)
    assert not any(max(map(abs, map(int.__sub__, c, RED))) < 8 for c in colours)


def test_an_image_that_has_gone_is_shown_as_its_reason(tmp_path):
    page = write(tmp_path / "r.html", [(good("gone.png", 0.5), tmp_path / "gone.png")])
    assert page.texts.count("does not exist") == 2
    assert "img" not in page.tags


def test_hostile_names_are_text(picture, tmp_path):
    file = picture("x.png", RED)
    predictions = [(good(name, 0.5, label=name), file) for name in HOSTILE]
    predictions += [(Prediction.failed(name, name), file) for name in HOSTILE]
    page = write(tmp_path / "r.html", predictions, **dict.fromkeys(HOSTILE[:2], HOSTILE[1]))
    assert page.texts.count(HOSTILE[0]) == 6
    assert "a\\nb\\x1b[31m\\u202e.png" in page.texts
    assert "\\udcff\\udcfe.png" in page.texts
    assert "&lt;&amp;amp;.png" in page.texts
    assert not page.handlers
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert page.tags.count("img") == 2 * len(HOSTILE)
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)


def test_a_page_without_images_or_that_is_not_finished(tmp_path):
    page = write(tmp_path / "r.html", [])
    assert "found 0 = classified 0 + failed 0" in page.texts
    before = (tmp_path / "r.html").read_bytes()
    writer = ReportWriter(tmp_path / "r.html", {})
    writer.write(good("x", 0.5), FileFacts(tmp_path, None, None))
    writer.close()
    assert (tmp_path / "r.html").read_bytes() == before
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        ReportWriter(tmp_path / "none" / "r.html", {})


def browse(page: Path, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Open a page in a headless browser that can reach nothing."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}",
        "--enable-logging=stderr", "--window-size=1600,1800", *arguments, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=120, check=True
    )


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_real_browser_shows_the_page_and_runs_nothing(picture, tmp_path):
    red, blue = picture("red.png", RED), picture("blue.png", BLUE)
    path = tmp_path / "r.html"
    predictions = [(good(name, 0.5, label=name), red) for name in HOSTILE]
    predictions += [(good("sure.png", 0.9), blue), (Prediction.failed(HOSTILE[0], HOSTILE[1]), red)]
    written = write(path, predictions, engine="onnxruntime")
    dumped = browse(path, tmp_path, "--dump-dom")
    seen = Page(dumped.stdout)
    assert seen.texts == written.texts, "nothing is lost, moved or run by the browser"
    assert "Classified images" in seen.texts
    assert not {"script", "link", "iframe"} & set(seen.tags)
    assert not seen.handlers
    assert "Content Security Policy" not in dumped.stderr, "the page's own policy blocked nothing"
    shot = tmp_path / "shot.png"
    browse(path, tmp_path, f"--screenshot={shot}")
    with Image.open(shot) as image:
        found = image.convert("RGB").getcolors(image.width * image.height)

    def near(colour: tuple[int, int, int]) -> int:
        close = (count for count, c in found if max(map(abs, map(int.__sub__, c, colour))) < 8)
        return sum(close)

    assert near(RED) > 8 * 160 * 100, "the pictures are drawn, 160 pixels wide"
    assert near(BLUE) > 160 * 100
    assert near((0x34, 0x60, 0x8C)) > 1000, "the bars of the classes are drawn"
    assert near((0xFD, 0xE2, 0xE2)) > 1000, "the failed row is marked"
