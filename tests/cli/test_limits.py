# SPDX-License-Identifier: Apache-2.0
"""Numbers from the command line have limits: what no machine can do is refused in one line."""

from __future__ import annotations

import pytest

from conftest import IMAGES
from hgdeploy import ClassifierSettings, EngineOptions
from hgdeploy.cli.main import main
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.errors import ConfigError
from hgdeploy.serving.triton.backends import TritonOptions

DIGITS = 5000 * "9"  # more than Python itself turns into a number
PREDICT = ("predict", ".", IMAGES)
VALIDATE = ("validate", ".")
QUANTIZE = ("quantize", ".", "--calibration", IMAGES)
MEASURE = ("benchmark", "--model", ".")


@pytest.mark.parametrize(
    ("verb", "option", "values"),
    [
        (PREDICT, "--workers", ["0", "1025", "100000", DIGITS]),
        (PREDICT, "--threads", ["0", "1025", "1000000000", DIGITS]),
        (PREDICT, "--batch-size", ["0", "65537", DIGITS]),
        (PREDICT, "--topk", ["0", "1000001", DIGITS]),
        (QUANTIZE, "--min-agreement", ["nan", "inf", "-1", "2"]),
        (QUANTIZE, "--images", ["-1", "1000001", DIGITS]),
        (VALIDATE, "--random", ["-1", "1000001"]),
        (VALIDATE, "--batch-size", ["0", "65537"]),
        (VALIDATE, "--threads", ["0", "1025"]),
        (MEASURE, "--threads", ["0", "1025", DIGITS]),
        (MEASURE, "--batch", ["0", "65537", DIGITS]),
        (MEASURE, "--min-seconds", ["nan", "inf", "-1", "604801"]),
        (MEASURE, "--min-iterations", ["0", "1000001", DIGITS]),
        (("convert", "."), "--batch", ["0", "65537", DIGITS]),
        (("convert", "."), "--opset", ["6", "22", DIGITS]),
        (("build", "."), "--batch", ["0", "100000", DIGITS]),
        (("build", "."), "--input-size", ["0", "100000", DIGITS]),
        (("build", "."), "--workspace-mb", ["0", "1000001", DIGITS]),
        (("recommend", "."), "--latency-ms", ["nan", "inf", "0"]),
        (("recommend", ".", "--throughput"), "--min-agreement", ["nan", "-1", "2"]),
        (("recommend", ".", "--throughput"), "--budget-seconds", ["nan", "inf", "0"]),
        (
            ("export", "PPHGNet_tiny", "--weights", "none", "--output", "x", "--labels", "y"),
            "--num-classes",
            ["0", "1000001", "1000000000000"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_number_beyond_its_limits_is_one_line(
    run_here, tmp_path, monkeypatch, verb, option, values
):
    monkeypatch.chdir(tmp_path)
    for value in values:
        result = run_here(main, *verb, option, value)
        assert result.returncode == ConfigError.exit_code, (value[:20], result.stderr)
        (line,) = result.stderr.splitlines()
        assert len(line) < 500
        assert option.lstrip("-").replace("-", "_")[:5] in line.replace("-", "_").replace(" ", "_")


@pytest.mark.parametrize(
    "make",
    [
        lambda: EngineOptions(threads=1025),
        lambda: EngineOptions(streams=1025),
        lambda: EngineOptions(max_batch=65_537),
        lambda: ClassifierSettings(batch_size=65_537),
        lambda: ClassifierSettings(topk=0),
        lambda: PaddleOptions(gpu_memory_mb=10**9),
        lambda: TritonOptions(instances=10**9),
        lambda: TritonOptions(queue_delay_us=2**70),
    ],
)
def test_the_options_of_the_python_api_have_the_same_limits(make):
    with pytest.raises(ConfigError, match=r"expected a whole number from [01] to \d+$"):
        make()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("benchmark --models ResNet50", "--models, did you mean '--model'? (see hgdeploy bench"),
        ("predict --batchsize=3 a b", "--batchsize, did you mean '--batch-size'? (see hgdeploy p"),
        ("models --offline show", "--offline, expected one of: --help (see hgdeploy models --help"),
        ("--verison", "--verison, did you mean '--version'? (see hgdeploy --help"),
    ],
)
def test_an_unknown_flag_is_named_before_what_else_is_wrong(
    command: str, said: str, capsys: pytest.CaptureFixture[str]
):
    """argparse took `--models ResNet50` for an unknown action, and `--imags x` for no image."""
    assert main(command.split()) == 2
    assert capsys.readouterr().err.startswith(f"hgdeploy: error: unknown argument {said}")


def test_a_flag_after_two_dashes_and_an_abbreviated_one_are_none_of_these(
    capsys: pytest.CaptureFixture[str],
):
    assert main(["predict", "nowhere", "--", "--image"]) != 0
    assert "unknown argument" not in capsys.readouterr().err
    assert main(["predict", "nowhere", "x", "--prec", "fp32"]) != 0
    assert "unknown argument" not in capsys.readouterr().err
