# SPDX-License-Identifier: Apache-2.0
"""Reports show what was measured, what was published and what is missing, and never mix them."""

from __future__ import annotations

import argparse
import csv
import html.parser
import io
import itertools
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hgdeploy import zoo
from hgdeploy.benchmark.report.compare import compare_files
from hgdeploy.benchmark.report.labels import Box, place_labels
from hgdeploy.benchmark.report.lookup import Lookup
from hgdeploy.benchmark.report.points import Panel, accuracy_points, frontiers
from hgdeploy.benchmark.report.results import read_all, read_measured
from hgdeploy.cli.measure.benchmark_report import (
    add_compare_arguments,
    add_report_arguments,
    run_compare,
    run_report,
)
from hgdeploy.errors import ConfigError, EngineError, OutputError, ValidationError
from hgdeploy.zoo.published import PUBLISHED, over_reference, published, table_name, zoo_name
from hgdeploy.zoo.registry import network_of

CHROMIUM = shutil.which("chromium")
FAST = {"PPHGNet_tiny": 20.0, "PPHGNet_small": 40.0, "ResNet50": 25.0, "EfficientNetLite0": 8.0}


def case(model: str, median: float, *, seed: int = 0, **more: object) -> dict[str, object]:
    """A measured case of 100 samples whose median is exactly the given one."""
    samples = median * np.random.default_rng(seed).normal(1, 0.01, 101)
    samples *= median / np.median(samples)
    p90, p95, p99 = (float(np.percentile(samples, p)) for p in (90, 95, 99))
    keys = {"engine": "onnxruntime", "precision": "fp32", "batch": 1, "threads": 2}
    keys |= {"device": "cpu", "scope": "engine"} | more
    return {
        "case": {"model": model, **keys},
        "status": "ok",
        "reason": None,
        "weights": "random",
        "model_sha256": "ab" * 32,
        "runtime": {
            "engine": "onnxruntime", "library": "onnxruntime", "version": "1.22.0",
            "device": "cpu", "providers": ["CPU"], "precision": "fp32", "threads": 2,
        },
        "load_ms": 150.5,
        "first_ms": 3 * median,
        "peak_rss_mb": 300.0,
        "overhead_us": 0.8,
        "samples_ms": [float(sample) for sample in samples],
        "rounds": None,
        "stats": {
            "n": 101, "min": float(samples.min()), "mean": float(samples.mean()),
            "median": median, "p90": p90, "p95": p95, "p99": p99, "max": float(samples.max()),
            "throughput": 1000 / median, "median_ci": [0.99 * median, 1.01 * median],
        },
        "warnings": [],
        "started": "2026-01-01T00:00:00",
    }  # fmt: skip


def failed(model: str, reason: str, status: str = "failed", **more: object) -> dict[str, object]:
    row = case(model, 1.0, **more) | {"status": status, "reason": reason, "stats": None}
    return row | {"samples_ms": [], "load_ms": None, "first_ms": None, "weights": None}


def document(*cases: dict[str, object], **environment: object) -> dict[str, object]:
    return {
        "schema": 1,
        "suite": "small",
        "created": "2026-01-01T00:00:00",
        "command": ["hgdeploy", "benchmark", "--suite", "my suite.yaml"],
        "settings": {},
        "environment": {
            "id": "aaaa1111", "cpu": "Some <CPU> | 3 GHz", "cpus": 2, "flags": ["avx2"],
            "governor": None, "memory_mb": 8192, "os": "Linux", "python": "3.11.7",
            "libraries": {"onnxruntime": "1.22.0", "openvino": None}, "gpu": [],
            "commit": "0123456789abcdef", "dirty": True,
        } | environment,
        "cases": list(cases),
    }  # fmt: skip


def fast_cases(factor: float = 1.0, **more: object) -> list[dict[str, object]]:
    return [case(model, factor * median, **more) for model, median in FAST.items()]


@pytest.fixture
def write(tmp_path):
    """Write a result file, and return its path."""

    def written(name: str, *cases: dict[str, object], **environment: object):
        path = tmp_path / name
        path.write_text(json.dumps(document(*cases, **environment)))
        return path

    return written


def run(add, command, *arguments: object) -> str:
    parser = argparse.ArgumentParser()
    add(parser)
    out = io.StringIO()
    assert command(parser.parse_args(list(map(str, arguments))), out) == 0
    return out.getvalue()


def report(*arguments: object) -> str:
    return run(add_report_arguments, run_report, *arguments)


def compare(*arguments: object) -> str:
    return run(add_compare_arguments, run_compare, *arguments)


def markdown_tables(text: str) -> dict[str, list[dict[str, str]]]:
    """The tables of a Markdown text by the heading above each, as rows of named cells."""
    found: dict[str, list[dict[str, str]]] = {}
    title, head = "", None
    for line in text.replace("\\|", "¦").replace("\\*", "*").splitlines():
        if line.startswith("#"):
            title, head = line.lstrip("# "), None
        elif line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if head is None:
                head, found[title] = cells, []
            elif not line.startswith("|---"):
                assert len(cells) == len(head)
                found[title].append(dict(zip(head, cells, strict=True)))
    return found


TITLE = "onnxruntime fp32, 2 threads, batch 1, cpu"


def test_measured_stands_beside_published_with_both_relative_columns(write):
    tables = markdown_tables(report(write("r.json", *fast_cases())))
    assert list(tables) == [TITLE, "How the runs went"], "one configuration needs no overview"
    rows = {row["model"]: row for row in tables[TITLE]}
    tiny = rows["PPHGNet_tiny"]
    assert tiny["top-1 % (published)"] == "79.83"
    assert tiny["ms (published, V100)"] == "1.77"
    assert tiny["ms (published revised, V100)"] == "1.72"
    assert tiny["/ ResNet50 (published, V100)"] == "0.70"
    assert tiny["/ ResNet50 (published revised, V100)"] == "0.79"
    assert tiny["median ms (measured)"] == "20.00"
    assert tiny["95 % interval"] == "19.80 to 20.20"
    assert tiny["/ ResNet50 (measured)"] == "0.80"
    assert float(tiny["p90 ms"]) < float(tiny["p99 ms"])


def test_a_model_that_was_not_published_has_no_published_figure(write):
    rows = markdown_tables(report(write("r.json", *fast_cases())))[TITLE]
    (lite,) = [row for row in rows if row["model"] == "EfficientNetLite0"]
    assert {cell for name, cell in lite.items() if "published" in name} == {"-"}
    assert lite["median ms (measured)"] == "8.000"


def test_every_published_model_has_its_row_even_where_nothing_was_measured(write):
    rows = markdown_tables(report(write("r.json", *fast_cases())))[TITLE]
    assert [row["model"] for row in rows] == [entry.model for entry in PUBLISHED] + [
        "EfficientNetLite0"
    ]
    found = {row["model"]: row["median ms (measured)"] for row in rows}
    assert found["ResNet34"] == "not measured"
    for row in rows:
        if row["median ms (measured)"] == "not measured":
            measured = ("95 % interval", "p90 ms", "p99 ms", "/ ResNet50 (measured)")
            assert {row[name] for name in measured} == {"-"}


def test_one_case_stands_for_all_models_of_its_network_and_says_so(write):
    path = write("r.json", *fast_cases(), case("PPHGNet_base", 90.0), failed("ResNet50_rsb", "no"))
    text = report(path)
    rows = {row["model"]: row for row in markdown_tables(text)[TITLE]}
    assert rows["PPHGNet_base_ssld"]["median ms (measured)"] == "90.00 *"
    assert rows["PPHGNet_base_ssld"]["/ ResNet50 (measured)"] == "3.60"
    assert rows["PPHGNet_base"]["median ms (measured)"] == "90.00"
    assert rows["ResNet50_rsb"]["median ms (measured)"] == "failed: no", "its own case comes first"
    assert (
        "- * measured here under another model's name, of the same network: PPHGNet_tiny_ssld as "
        "PPHGNet_tiny, PPHGNet_small_ssld as PPHGNet_small, PPHGNet_base_ssld as PPHGNet_base\n"
    ) in text.replace("\\*", "*")
    found = list(csv.DictReader(io.StringIO(report(path, "--format", "csv"))))
    assert {row["model"]: row["measured_as"] for row in found}["PPHGNet_base_ssld"] == (
        "PPHGNet_base"
    )


def test_a_failed_case_is_a_row_with_its_reason(write):
    path = write(
        "r.json",
        *fast_cases(),
        failed("ResNeXt101_32x48d_wsl", "needs 3.3 GB |\n and has less"),
        failed("ResNet34", "took longer than 600 s", "timeout"),
    )
    found = {
        row["model"]: row["median ms (measured)"] for row in markdown_tables(report(path))[TITLE]
    }
    assert found["ResNeXt101_32x48d_wsl"] == "failed: needs 3.3 GB ¦ and has less"
    assert found["ResNet34"] == "timeout: took longer than 600 s"


def test_what_an_engine_times_on_its_device_has_a_table_of_its_own(write):
    timed = case("ResNet50", 2.0, device="gpu:0", threads=None)
    timed["timings_ms"] = {"h2d": [0.1, 0.2, 0.3], "compute": [1.5, 1.6, 1.7]}
    tables = markdown_tables(report(write("r.json", case("PPHGNet_tiny", 1.0), timed)))
    (row,) = tables["Where the device's time goes, median ms"]
    assert (row["model"], row["h2d"], row["compute"]) == ("ResNet50", "0.200", "1.600")
    without = markdown_tables(report(write("s.json", *fast_cases())))
    assert "Where the device's time goes, median ms" not in without


def test_hardware_and_command_stand_under_every_table(write):
    text = report(write("r.json", *fast_cases()))
    assert text.count("Some &lt;CPU> \\| 3 GHz, 2 CPUs; governor unknown; 8.0 GiB memory") == 2
    assert text.count("onnxruntime 1.22.0; commit 0123456789ab with uncommitted changes") == 2
    assert text.count("- Made by: `hgdeploy benchmark --suite 'my suite.yaml'`") == 2
    assert "openvino" not in text, "a library that is not installed has no version to show"


def test_the_overview_has_a_column_for_each_configuration(write):
    path = write("r.json", *fast_cases(), *fast_cases(2.0, engine="openvino", threads=None))
    tables = markdown_tables(report(path))
    rows = {row["model"]: row for row in tables["Overview"]}
    assert rows["PPHGNet_small"][f"{TITLE}: median ms (/ ResNet50)"] == "40.00 (1.60)"
    other = "openvino fp32, all threads, batch 1, cpu: median ms (/ ResNet50)"
    assert rows["PPHGNet_small"][other] == "80.00 (1.60)"
    assert len(tables) == 4


def test_nothing_is_relative_to_a_reference_of_another_configuration(write):
    path = write("r.json", *fast_cases(), case("PPHGNet_tiny", 30.0, threads=1))
    text = report(path)
    rows = markdown_tables(text)["onnxruntime fp32, 1 thread, batch 1, cpu"]
    assert rows[0]["/ ResNet50 (measured)"] == "-"
    assert text.count("ResNet50 was not measured here") == 1


def test_a_longer_official_name_finds_its_published_row(write):
    name = "SwinTransformer_base_patch4_window7_224_22kto1k"
    rows = markdown_tables(report(write("r.json", case(name, 99.0))))[TITLE]
    found = {row["model"]: row["median ms (measured)"] for row in rows}
    assert found["SwinTransformer_base"] == "99.00"
    assert name not in found


def test_warnings_of_a_measurement_stand_under_its_table(write):
    noisy = case("ResNet50", 25.0) | {"warnings": ["the machine is noisy"]}
    assert "- ResNet50: the machine is noisy" in report(write("r.json", noisy))


def test_csv_has_full_figures_and_leaves_empty_what_is_not_known(write):
    path = write("r.json", *fast_cases(), failed("ResNet34", "a reason, with a comma"))
    rows = list(csv.DictReader(io.StringIO(report(path, "--format", "csv"))))
    found = {row["model"]: row for row in rows}
    assert len(found) == len(rows) == len(PUBLISHED) + 1
    assert float(found["PPHGNet_tiny"]["measured_median_ms"]) == 20.0
    assert float(found["PPHGNet_tiny"]["measured_over_resnet50"]) == 0.8
    assert float(found["PPHGNet_tiny"]["published_revised_v100_ms"]) == 1.72
    assert found["EfficientNetLite0"]["published_v100_ms"] == ""
    assert found["ResNet34"]["status"] == "failed"
    assert found["ResNet34"]["reason"] == "a reason, with a comma"
    assert found["ResNet34_vd"]["status"] == "not measured"
    measured = [found["ResNet34_vd"][name] for name in rows[0] if name.startswith("measured")]
    assert not any(measured)
    assert found["PPHGNet_tiny"]["command"] == "hgdeploy benchmark --suite 'my suite.yaml'"


def test_files_of_different_environments_are_refused_unless_asked_for(write):
    a = write("a.json", *fast_cases())
    b = write("b.json", *fast_cases(3.0), id="bbbb2222", cpu="Other CPU")
    with pytest.raises(ConfigError, match=r"different environments \(aaaa1111, bbbb2222\)"):
        report(a, b)
    text = report(a, b, "--mix-environments")
    assert "NOT COMPARABLE" in text
    assert text.startswith("# Latency: small (not comparable: environments differ)")
    rows = markdown_tables(text)[TITLE]
    found = {(row["model"], row["environment"]): row for row in rows}
    assert found["PPHGNet_tiny", "aaaa1111"]["median ms (measured)"] == "20.00"
    assert found["PPHGNet_tiny", "bbbb2222"]["median ms (measured)"] == "60.00"
    assert found["PPHGNet_tiny", "bbbb2222"]["/ ResNet50 (measured)"] == "0.80"
    assert text.count("Other CPU") == 2
    rows = list(csv.DictReader(io.StringIO(report(a, b, "--mix-environments", "--format", "csv"))))
    assert {row["comparable"] for row in rows} == {"no: environments differ"}


def test_two_files_of_one_environment_are_one_table(write):
    a, b = write("a.json", case("ResNet50", 25.0)), write("b.json", case("PPHGNet_tiny", 20.0))
    rows = markdown_tables(report(a, b))[TITLE]
    assert {row["model"]: row for row in rows}["PPHGNet_tiny"]["/ ResNet50 (measured)"] == "0.80"


def test_one_case_in_two_files_is_refused(write):
    a, b = write("a.json", *fast_cases()), write("b.json", case("ResNet50", 26.0))
    with pytest.raises(ConfigError, match=r"ResNet50, onnxruntime .* is twice in .*a\.json and"):
        report(a, b)


def _without(key: str):
    return lambda row: row.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("schema"), "schema is missing"),
        (lambda d: d.update(schema=2), "has schema 2, and this version reads schema 1"),
        (lambda d: d.update(schema=True), "has schema True"),
        (lambda d: d.update(cases={}), r"cases is \{\}, expected a list"),
        (lambda d: d.update(cases=[]), "has no cases yet"),
        (lambda d: d.update(cases=[3]), r"cases\[0\] is 3, expected a mapping"),
        (lambda d: d["environment"].update(id=None), "environment.id is None, expected a text"),
        (lambda d: d["environment"].update(libraries=[]), r"environment.libraries is \[\]"),
        (lambda d: d["cases"][0].update(status="fine"), r"cases\[0\].status is 'fine'"),
        (
            lambda d: d["cases"][0].update(samples_ms=[]),
            r"samples_ms is \[\], expected a list with",
        ),
        (lambda d: d["cases"][0].update(samples_ms=[1, "2"]), r"samples_ms\[1\] is '2'"),
        (
            lambda d: d["cases"][0]["stats"].update(median=0),
            "median is 0, expected a number above 0",
        ),
        (lambda d: d["cases"][0]["stats"].update(p99=float("nan")), "p99 is nan, expected a num"),
        (lambda d: d["cases"][0]["stats"].update(median_ci=[1]), "expected two numbers"),
        (lambda d: d["cases"][0].update(stats=None), "stats is None, expected a mapping"),
        (lambda d: d["cases"][0]["case"].update(batch=True), "batch is True, expected a whole"),
    ],
)
def test_a_wrong_result_file_is_refused_in_one_line(tmp_path, change, message):
    content = document(*fast_cases())
    change(content)
    path = tmp_path / "r.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message) as error:
        read_measured(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "\x00", "[" * 100_000])
def test_what_is_not_json_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"r\.json is not JSON") as error:
        read_measured(path)
    assert "\n" not in str(error.value)


def test_a_missing_result_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_measured(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("--format", "pdf"), ConfigError, "unknown --format 'pdf', expected one of"),
        (("--format", "png"), ConfigError, "needs --output"),
        (("--format", "md", "--output", "r.html"), ConfigError, "does not fit --format md"),
        (("--output", "r.json"), ConfigError, "unknown format of --output 'json', exp"),
        (("--output", "none/r.md"), OutputError, "its folder does not exist"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_read(arguments, kind, message):
    with pytest.raises(kind, match=message):
        report("never-read.json", *arguments)


def test_an_output_that_cannot_be_written_is_an_error(write, tmp_path):
    (tmp_path / "r.md").mkdir()
    with pytest.raises(OutputError, match=r"r\.md cannot be written"):
        report(write("r.json", *fast_cases()), "--output", tmp_path / "r.md")


class Page(html.parser.HTMLParser):
    """Keeps the cells of a page's tables, its tags, and every address that it names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.cells: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "data", "action")
        ]
        if tag in ("td", "th"):
            self._in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data


def test_the_first_sentence_says_what_was_found(write):
    file = write("r.json", case("ResNet50", 10.0), case("PPHGNet_tiny", 8.0))
    assert (
        "Found: ResNet50 in onnxruntime fp32, 2 threads, batch 1, cpu: 10 ms. There PPHGNet_tiny "
        "takes 0.80 times as long (published on a V100: 0.70)." in report(file)
    )
    assert "Found: EfficientNetB0 in" in report(write("b0.json", case("EfficientNetB0", 3.0)))
    assert "Found" not in report(write("no.json", failed("ResNet50", "no memory")))


def test_models_that_were_not_measured_fold_into_one_line(write, tmp_path):
    file, page = write("r.json", case("ResNet50", 10.0)), tmp_path / "page.html"
    report(file, "--format", "html", "--no-plots", "--output", page)
    first, folded = page.read_text(encoding="utf-8").split("<details>", 1)
    assert first.count("<tr>") == 3, "the head, ResNet50 and what runs the same network"
    assert folded.startswith("<summary>not measured: PPHGNet_tiny, PPHGNet_tiny_ssld, ")
    assert "<td>PPHGNet_tiny</td><td>79.83</td>" in folded


def test_html_without_plots_needs_no_matplotlib(write, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    path = write("r.json", *fast_cases(), failed("ResNet34", "<b>broken</b>"))
    printed = report(path, "--output", tmp_path / "r.html", "--no-plots")
    assert printed == f"{tmp_path / 'r.html'}\n"
    page = Page((tmp_path / "r.html").read_text())
    assert "failed: <b>broken</b>" in page.cells
    assert not {"b", "script", "link", "img", "svg"} & page.tags
    with pytest.raises(EngineError, match=r"pip install -e '\.\[plot\]'"):
        report(path, "--output", tmp_path / "r.html")


def browse(page, folder, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Open a page in a headless browser that can reach nothing."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}",
        "--enable-logging=stderr", "--window-size=1600,1400", *arguments, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=120, check=True
    )


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_real_browser_shows_tables_and_plots_and_fetches_nothing(write, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    page = tmp_path / "r.html"
    results = write("r.json", *fast_cases(), *fast_cases(2.0, threads=1), failed("ResNet34", "a<b"))
    report(results, "--output", page)
    dumped = browse(page, tmp_path, "--dump-dom")
    seen = Page(dumped.stdout)
    for cell in ("PPHGNet_tiny", "20.00 (0.80)", "40.00 (0.80)", "79.83", "failed: a<b"):
        assert cell in seen.cells
    assert seen.cells == Page(page.read_text()).cells, "nothing is lost or moved by the browser"
    assert "svg" in seen.tags
    assert not {"script", "link", "img", "iframe"} & seen.tags
    assert all(address.startswith("#") for address in seen.addresses)
    # The page's own policy forbids all fetching, and the browser reports what it blocked.
    assert "Content-Security-Policy" in dumped.stdout
    assert "Content Security Policy" not in dumped.stderr
    page_that_fetches = tmp_path / "fetches.html"
    page_that_fetches.write_text(page.read_text() + "<img src='http://example.com/x.png'>")
    assert "Content Security Policy" in browse(page_that_fetches, tmp_path, "--dump-dom").stderr
    shot = tmp_path / "shot.png"
    browse(page, tmp_path, f"--screenshot={shot}")
    with Image.open(shot) as image:
        found = image.convert("RGB").getcolors(image.width * image.height)
    colours = {colour: count for count, colour in found}
    assert colours.get((0xFD, 0xE2, 0xE2), 0) > 1000, "the failed row is marked"
    assert colours.get((0xC0, 0x39, 0x2B), 0) > 50, "PP-HGNet's points are drawn"


@pytest.fixture
def plot():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from hgdeploy.benchmark.report import plot

    return plot


def all_published(factor: float = 10.0) -> list[dict[str, object]]:
    return [case(entry.model, factor * entry.v100_ms, seed=i) for i, entry in enumerate(PUBLISHED)]


def test_png_writes_both_plots(plot, write, tmp_path):
    printed = report(write("r.json", *all_published()), "--output", tmp_path / "p.png")
    names = [tmp_path / "p-accuracy.png", tmp_path / "p-distribution.png"]
    assert printed.splitlines() == list(map(str, names))
    for name in names:
        with Image.open(name) as image:
            assert image.format == "PNG"
            assert min(image.size) > 500
            assert image.convert("L").getextrema()[0] < 50


def test_equal_results_give_equal_plots(plot, write):
    results = read_all([write("r.json", *all_published())])
    for draw in (plot.accuracy_figure, plot.distribution_figure):
        assert plot.as_svg(draw(results)) == plot.as_svg(draw(results))


def test_labels_of_the_whole_published_table_do_not_overlap(plot, write):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    for factor in (1.0, 40.0):
        figure = plot.accuracy_figure(read_all([write("r.json", *all_published(factor))]))
        (ax,) = figure.axes
        renderer = FigureCanvasAgg(figure).get_renderer()
        for text in ax.texts:
            text.update_positions(renderer)
        boxes = [Text.get_window_extent(text, renderer) for text in ax.texts]  # without arrows
        assert len(boxes) == len(PUBLISHED)
        assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
        frame = ax.get_window_extent(renderer)
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_the_accuracy_plot_joins_pphgnet_and_names_what_it_cannot_show(plot, write):
    cases = [
        *(case(name, 20.0 + i) for i, name in enumerate(("PPHGNet_tiny", "PPHGNet_small"))),
        case("ResNet50", 25.0),
        failed("ResNet34", "broken"),
    ]
    results = read_all([write("r.json", *cases)])
    lookup = Lookup(results)
    panel = Panel(lookup.configurations[0], lookup.environments[0])
    shown, absent = accuracy_points(lookup, panel)
    found = {point.model: (point.latency, point.top1, point.borrowed) for point in shown}
    assert found == {
        "PPHGNet_tiny": (20.0, 79.83, False),
        "PPHGNet_tiny_ssld": (20.0, 81.95, True),
        "PPHGNet_small": (21.0, 81.51, False),
        "PPHGNet_small_ssld": (21.0, 83.82, True),
        "ResNet50": (25.0, 76.50, False),
        "ResNet50_rsb": (25.0, 80.40, True),
    }
    assert "ResNet34 (failed)" in absent
    assert "SwinTransformer_tiny (not measured)" in absent
    lines = [[point.model for point in line] for line in frontiers(shown)]
    assert lines == [["PPHGNet_tiny_ssld", "PPHGNet_small_ssld"], ["PPHGNet_tiny", "PPHGNet_small"]]
    (ax,) = plot.accuracy_figure(results).axes
    assert "not shown:" in ax.get_xlabel()
    assert "hollow:" in ax.get_xlabel()


def test_plots_of_models_without_published_accuracy_say_so(plot, write):
    results = read_all([write("r.json", case("EfficientNetLite0", 8.0))])
    (ax,) = plot.accuracy_figure(results).axes
    assert "no measured model has a published accuracy" in [text.get_text() for text in ax.texts]
    assert plot.as_png(plot.distribution_figure(results)).startswith(b"\x89PNG")


def test_where_nothing_was_measured_there_is_no_plot(plot, write, tmp_path):
    path = write("r.json", failed("ResNet50", "broken"))
    with pytest.raises(ConfigError, match="nothing to plot"):
        report(path, "--output", tmp_path / "p.png")
    assert "<svg" not in report(path, "--format", "html")


def test_samples_beyond_the_distribution_axis_are_counted(plot, write):
    slow = case("ResNet50", 25.0)
    slow["samples_ms"][0] = 900.0
    (ax,) = plot.distribution_figure(read_all([write("r.json", slow)])).axes
    assert [text.get_text() for text in ax.texts] == ["25.00 ms, n 101, 1 beyond"]


def test_labels_find_room_around_one_crowded_spot():
    points = [(100.0 + i, 100.0) for i in range(8)]
    sizes = [(60.0, 10.0)] * 8
    bounds = Box(0, 0, 300, 200)
    boxes = place_labels(points, sizes, bounds, [Box(x, y, x, y).grown(4) for x, y in points])
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlap(pair[1])]
    assert not [box for box in boxes if box.sticks_out_of(bounds)]


def test_every_published_model_is_in_the_zoo_by_one_of_its_names():
    for entry in PUBLISHED:
        info = zoo.info(zoo_name(entry.model))
        assert published(info.name) is entry
        assert table_name(info.name) == entry.model
    assert table_name("mine") == zoo_name("mine") == "mine"


@pytest.mark.parametrize(
    ("model", "network"),
    [
        ("PPHGNet_base_ssld", "PPHGNet_base"),
        ("ResNet50_rsb", "ResNet50"),
        ("ResNet50_vd", "ResNet50_vd"),
        ("SwinTransformer_tiny", "SwinTransformer_tiny_patch4_window7_224"),
        ("SwinTransformer_base", "SwinTransformer_base_patch4_window7_224"),
        (
            "SwinTransformer_base_patch4_window7_224_22kto1k",
            "SwinTransformer_base_patch4_window7_224",
        ),
        ("Res2Net200_vd_26w_4s_ssld", "Res2Net200_vd_26w_4s"),
        ("mine", "mine"),
    ],
)
def test_models_of_one_network_are_known_by_either_name(model, network):
    assert network_of(model) == network


def test_published_latencies_are_given_as_multiples_of_the_same_set():
    assert over_reference(published("ResNet50")) == (1.0, 1.0)
    assert over_reference(published("PPHGNet_base_ssld"))[1] is None


def test_compare_of_a_file_with_itself_finds_nothing(write):
    path = write("a.json", *fast_cases())
    assert [
        row["verdict"] for row in next(iter(markdown_tables(compare(path, path)).values()))
    ] == ["can't tell"] * len(FAST)


def test_compare_names_what_became_slower_and_fails(write):
    a = write("a.json", *fast_cases())
    b = write("b.json", *fast_cases(seed=1)[1:], case("PPHGNet_tiny", 24.0, seed=2))
    with pytest.raises(ValidationError, match=r"1 of 4 cases .*PPHGNet_tiny.*1\.200 times"):
        compare(a, b)
    verdicts = {
        c.a.model: c.verdict for c in compare_files(read_measured(a), read_measured(b)).cases
    }
    assert verdicts == dict.fromkeys(FAST, "can't tell") | {"PPHGNet_tiny": "slower"}
    assert compare(a, b, "--threshold", "0.3").count("can't tell") == len(FAST)
    assert "0.833 | 0.8" in compare(b, a)
    assert "| faster |" in compare(b, a)


def test_compare_gives_the_ratio_an_interval_that_holds_the_truth(write):
    a, b = write("a.json", case("ResNet50", 10.0)), write("b.json", case("ResNet50", 12.0, seed=5))
    (found,) = compare_files(read_measured(a), read_measured(b)).cases
    ratio, low, high = found.ratio
    assert ratio == pytest.approx(1.2)
    assert 1.19 < low < 1.2 < high < 1.21


def test_rounds_of_two_separate_runs_are_not_taken_for_pairs(write):
    """Only rounds that alternated cancel drift; those of two files never did."""
    rows = [
        case("ResNet50", 10.0 * factor, seed=i) | {"rounds": [i // 10 for i in range(101)]}
        for i, factor in enumerate((1.0, 1.03))
    ]
    a, b = write("a.json", rows[0]), write("b.json", rows[1])
    assert "| can't tell |" in compare(a, b)


def test_a_case_that_no_longer_runs_fails_the_comparison(write):
    a = write("a.json", case("ResNet50", 10.0), failed("ResNet34", "broken"))
    b = write("b.json", failed("ResNet50", "out of memory"), case("ResNet34", 9.0))
    with pytest.raises(ValidationError, match=r"ResNet50.*: no longer runs"):
        compare(a, b)
    verdicts = [c.verdict for c in compare_files(read_measured(a), read_measured(b)).cases]
    assert verdicts == ["no longer runs", "runs now"]


def test_compare_lists_cases_of_one_file_only_and_other_model_files(write):
    a = write("a.json", case("ResNet50", 10.0), case("ResNet34", 9.0))
    b = write("b.json", case("ResNet50", 10.0) | {"model_sha256": "cd" * 32}, case("Mine", 1.0))
    text = compare(a, b)
    assert f"- only in A: ResNet34, {TITLE}" in text
    assert f"- only in B: Mine, {TITLE}" in text
    assert "can't tell (model files differ)" in text


def test_compare_refuses_what_does_not_compare(write):
    a = write("a.json", case("ResNet50", 10.0))
    other = write("b.json", case("ResNet50", 10.0), id="bbbb2222")
    with pytest.raises(ConfigError, match="different environments"):
        compare(a, other)
    assert "NOT COMPARABLE" in compare(a, other, "--mix-environments")
    with pytest.raises(ConfigError, match="no case in common"):
        compare(a, write("c.json", case("ResNet34", 10.0)))
    with pytest.raises(ConfigError, match="--threshold is nan, expected a number from 0"):
        compare(a, a, "--threshold", "nan")
    with pytest.raises(ConfigError, match="is in it twice"):
        compare(a, write("d.json", case("ResNet50", 10.0), case("ResNet50", 11.0)))
