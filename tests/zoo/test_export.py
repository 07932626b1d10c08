# SPDX-License-Identifier: Apache-2.0
"""Bundles that we make: what is in them, that they compute the network, and how they fail."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from web import QuietHandler, archive_model, serving

from hgdeploy import zoo
from hgdeploy.bundle.sidecar import is_intact
from hgdeploy.cli import main
from hgdeploy.errors import ConfigError, DownloadError, OutputError, WeightsError
from hgdeploy.system.digests import file_sha256
from hgdeploy.transforms.operators_config import parse_ops
from hgdeploy.zoo.bundles import download_model
from hgdeploy.zoo.export import bundle_from_weights
from hgdeploy.zoo.weights.load import load_into, read_weights, weights_file

paddle = pytest.importorskip("paddle")

FILES = ["inference.json", "inference.meta.json", "inference.pdiparams", "inference.yml"]
PARAMS = "inference.pdiparams"
# The quickest to export, where any model will do.
SMALL = "EfficientNetLite0"
MINI = Path(__file__).parents[1] / "data" / "pphgnet_mini"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sidecar(bundle: Path) -> dict[str, Any]:
    return dict(json.loads((bundle / "inference.meta.json").read_text()))


def description(bundle: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((bundle / "inference.yml").read_text(encoding="utf-8")))


def predict(bundle: Path, x: np.ndarray) -> np.ndarray:
    """What Paddle Inference makes of `x`; the input must be called x."""
    config = paddle.inference.Config(
        str(bundle / "inference.json"), str(bundle / "inference.pdiparams")
    )
    config.disable_glog_info()
    predictor = paddle.inference.create_predictor(config)
    predictor.get_input_handle("x").copy_from_cpu(x)
    predictor.run()
    handle = predictor.get_output_handle(predictor.get_output_names()[0])
    return np.array(handle.copy_to_cpu())


def noise(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, 3, size, size), dtype=np.float32)


@pytest.fixture(scope="module")
def lite0(
    tmp_path_factory: pytest.TempPathFactory, registry_weights: Callable[[str], Path]
) -> Path:
    """The bundle of EfficientNetLite0 with its real weights."""
    output = tmp_path_factory.mktemp("models") / "lite0"
    return bundle_from_weights("EfficientNetLite0", registry_weights("EfficientNetLite0"), output)


@pytest.fixture(scope="module")
def random_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of PPHGNet_tiny with random weights and 10 classes."""
    output = tmp_path_factory.mktemp("models") / "tiny"
    return bundle_from_weights("PPHGNet_tiny", None, output, num_classes=10)


def test_a_bundle_has_its_four_files_and_nothing_else(lite0: Path) -> None:
    assert names(lite0) == FILES
    assert names(lite0.parent) == ["lite0"]


@pytest.mark.parametrize("batch", [1, 3])
def test_the_bundle_computes_the_network_s_probabilities_at_any_batch(
    lite0: Path, registry_weights: Callable[[str], Path], batch: int
) -> None:
    layer = zoo.build("EfficientNetLite0")
    load_into(layer, read_weights(registry_weights("EfficientNetLite0")), "lite0")
    x = noise(batch, 224)
    with paddle.no_grad():
        expected = paddle.nn.functional.softmax(layer(paddle.to_tensor(x))).numpy()
    found = predict(lite0, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_the_description_has_the_model_s_own_preprocessing_and_labels(lite0: Path) -> None:
    content = description(lite0)
    assert list(content) == ["Global", "PreProcess", "PostProcess"]
    assert content["Global"] == {"model_name": "EfficientNetLite0"}
    ops = parse_ops(content["PreProcess"]["transform_ops"], "inference.yml")
    assert ops == zoo.info("EfficientNetLite0").preprocess
    assert content["PostProcess"]["Topk"] == {"topk": 5, "label_list": list(zoo.imagenet_labels())}


def test_the_sidecar_says_how_the_bundle_was_made(
    lite0: Path, registry_weights: Callable[[str], Path]
) -> None:
    facts = sidecar(lite0)
    assert list(facts) == sorted(facts)
    weights = registry_weights("EfficientNetLite0")
    assert facts["weights"] == {
        "file": weights.name,
        "sha256": file_sha256(weights),
        "source": "file",
    }
    assert facts["model"] == facts["architecture"] == "EfficientNetLite0"
    assert facts["paddle"] == paddle.__version__
    assert facts["precision"] == "fp32"
    assert facts["ending"] == ["softmax"]
    assert facts["inputs"] == [{"name": "x", "dtype": "float32", "shape": [-1, 3, 224, 224]}]
    assert facts["outputs"] == [{"dtype": "float32", "shape": [-1, 1000]}]
    for name, digest in facts["files"].items():
        assert hashlib.sha256((lite0 / name).read_bytes()).hexdigest() == digest
    assert sorted(facts["files"]) == [name for name in FILES if name != "inference.meta.json"]


def test_a_bundle_without_labels_has_none_for_other_than_1000_classes(random_tiny: Path) -> None:
    assert description(random_tiny)["PostProcess"] == {"Topk": {"topk": 5}}


def test_random_weights_are_announced_and_seeded(random_tiny: Path, tmp_path: Path) -> None:
    facts = sidecar(random_tiny)["weights"]
    assert (facts["source"], facts["file"], facts["sha256"], facts["seed"]) == (
        "random",
        None,
        None,
        0,
    )
    assert "RANDOM WEIGHTS" in facts["warning"]
    lines: list[str] = []
    again = bundle_from_weights(
        "PPHGNet_tiny", None, tmp_path / "again", num_classes=10, on_progress=lines.append
    )
    assert [line.split()[0] for line in lines] == ["making", "writing", "comparing"]
    # The program differs: Paddle numbers the names in it through the life of a process.
    assert (again / PARAMS).read_bytes() == (random_tiny / PARAMS).read_bytes()


def test_random_weights_tell_images_apart(random_tiny: Path) -> None:
    # Else a comparison of two engines on this bundle would show nothing.
    found = predict(random_tiny, noise(2, 224) * np.float32([[[[0.1]]], [[[3]]]]))
    assert found.max() > 0.2
    assert np.abs(found[0] - found[1]).max() > 1e-2


def test_own_classes_and_labels_are_written(tmp_path: Path) -> None:
    labels = ["chat, siamois", "chien", "猫: 1"]
    layer = zoo.build(SMALL, 3)
    paddle.save(layer.state_dict(), str(tmp_path / "own.pdparams"))
    bundle = bundle_from_weights(
        SMALL, tmp_path / "own.pdparams", tmp_path / "out", num_classes=3, labels=labels
    )
    assert description(bundle)["PostProcess"] == {"Topk": {"topk": 3, "label_list": labels}}
    assert predict(bundle, noise(1, 224)).shape == (1, 3)


@pytest.mark.parametrize(
    ("there", "named", "found"),
    [
        (["best.pdparams", "best.pdopt"], "best", "best.pdparams"),
        (["best.pdparams"], "best.pdparams", "best.pdparams"),
        (["best", "best.pdparams"], "best", "best"),
        (["epoch_1.5.pdparams"], "epoch_1.5", "epoch_1.5.pdparams"),
    ],
)
def test_weights_may_be_named_without_their_suffix(
    tmp_path: Path, there: list[str], named: str, found: str
) -> None:
    for name in there:
        (tmp_path / name).touch()
    assert weights_file(tmp_path / named) == tmp_path / found


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"name": "PPHGNet_tinny"}, ConfigError, "unknown model"),
        ({"num_classes": 0}, ConfigError, "num_classes is 0"),
        ({"labels": ["a", "b"]}, ConfigError, "2 labels were given for 10 classes"),
        ({"weights": Path("gone.pdparams")}, WeightsError, "gone.pdparams: cannot be read"),
        ({"weights": Path("gone")}, WeightsError, "neither does gone.pdparams beside it"),
        ({"weights": Path(__file__)}, WeightsError, "is not a weights file"),
        ({"weights": Path(__file__).parent}, WeightsError, "cannot be read: Is a directory"),
    ],
)
def test_a_failed_export_leaves_nothing_behind(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], reason: str
) -> None:
    arguments = {
        "name": "PPHGNet_tiny",
        "weights": None,
        "output": tmp_path / "new" / "out",
        "num_classes": 10,
    } | change
    with pytest.raises(error, match=reason) as caught:
        bundle_from_weights(**arguments)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.rglob("inference*")) == []


def test_weights_with_other_classes_are_refused(tmp_path: Path) -> None:
    paddle.save(zoo.build(SMALL, 7).state_dict(), str(tmp_path / "w"))
    with pytest.raises(WeightsError, match="set num_classes to 7"):
        bundle_from_weights(SMALL, tmp_path / "w", tmp_path / "out")
    assert names(tmp_path) == ["w"]


@pytest.mark.parametrize("where", ["taken", "taken/out"])
def test_a_place_that_is_a_file_is_an_output_error(tmp_path: Path, where: str) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OutputError) as error:
        bundle_from_weights(SMALL, None, tmp_path / where, num_classes=2)
    assert "\n" not in str(error.value)
    assert (tmp_path / "taken").read_text() == "mine"


def test_exporting_again_replaces_our_files_and_no_others(tmp_path: Path) -> None:
    output = tmp_path / "out"
    bundle_from_weights(SMALL, None, output, num_classes=2)
    (output / "notes.txt").write_text("mine")
    bundle_from_weights(SMALL, None, output, num_classes=3)
    assert names(output) == sorted([*FILES, "notes.txt"])
    assert sidecar(output)["num_classes"] == 3
    assert is_intact(output, SMALL)
    assert names(tmp_path) == ["out"]


def test_exporting_onto_a_model_in_the_old_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "inference.pdmodel").write_text("old")
    with pytest.raises(OutputError, match=r"already holds inference\.pdmodel"):
        bundle_from_weights(SMALL, None, tmp_path / "out", num_classes=2)
    assert names(tmp_path / "out") == ["inference.pdmodel"]


def test_a_changed_file_is_noticed(random_tiny: Path, tmp_path: Path) -> None:
    assert is_intact(random_tiny, "PPHGNet_tiny")
    assert not is_intact(random_tiny, "PPHGNet_small")
    assert not is_intact(tmp_path, "PPHGNet_tiny")
    for name in FILES:
        (tmp_path / name).write_bytes((random_tiny / name).read_bytes())
    assert is_intact(tmp_path, "PPHGNet_tiny")
    (tmp_path / "inference.yml").write_text("changed")
    assert not is_intact(tmp_path, "PPHGNet_tiny")


def test_an_export_is_silent(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from hgdeploy.zoo.export import bundle_from_weights\n"
        f"bundle_from_weights({SMALL!r}, None, Path(sys.argv[1]), num_classes=2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")


# Downloads.


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An HTTP server with the official layout: its base URL, and the folder of archives."""
    archives = tmp_path / "mirror" / "inference"
    archives.mkdir(parents=True)
    with serving(archives.parent) as url:
        yield url, archives


def archive_mini(archives: Path, *extra: Path, name: str = "PPHGNet_tiny") -> None:
    """Put the small real model where the archive of `name` would be."""
    files = (MINI / "inference.pdmodel", MINI / "inference.pdiparams", *extra)
    archive_model(archives / f"{name}_infer.tar", files)


def test_an_official_archive_becomes_a_bundle(mirror: tuple[str, Path], tmp_path: Path) -> None:
    url, archives = mirror
    archive_mini(archives)
    digest = file_sha256(archives / "PPHGNet_tiny_infer.tar")
    bundle = download_model("PPHGNet_tiny", tmp_path / "models", base_url=url)
    assert bundle == tmp_path / "models" / "PPHGNet_tiny_infer"
    assert names(bundle.parent) == [bundle.name]
    assert (bundle / "inference.pdmodel").read_bytes() == (MINI / "inference.pdmodel").read_bytes()
    content = description(bundle)
    ops = parse_ops(content["PreProcess"]["transform_ops"], "inference.yml")
    assert ops == zoo.info("PPHGNet_tiny").preprocess
    assert content["PostProcess"]["Topk"]["label_list"] == list(zoo.imagenet_labels())
    facts = sidecar(bundle)
    address = f"{url}/inference/PPHGNet_tiny_infer.tar"
    assert facts["source"] == {"url": address, "sha256": digest}
    assert is_intact(bundle, "PPHGNet_tiny")


def test_a_pphgnet_v2_comes_in_the_archive_of_its_distilled_weights(
    mirror: tuple[str, Path], tmp_path: Path
) -> None:
    url, archives = mirror
    archive_mini(archives, name="PPHGNetV2_B0_ssld")
    bundle = download_model("PPHGNetV2_B0", tmp_path, base_url=url)
    assert bundle == tmp_path / "PPHGNetV2_B0_infer"
    assert sidecar(bundle)["source"]["url"] == f"{url}/inference/PPHGNetV2_B0_ssld_infer.tar"
    ops = parse_ops(description(bundle)["PreProcess"]["transform_ops"], "inference.yml")
    assert ops == zoo.info("PPHGNetV2_B0").preprocess
    assert is_intact(bundle, "PPHGNetV2_B0")


def test_the_archive_s_own_description_is_kept(mirror: tuple[str, Path], tmp_path: Path) -> None:
    url, archives = mirror
    own = tmp_path / "inference.yml"
    own.write_text("Global: {model_name: theirs}\n")
    archive_mini(archives, own)
    bundle = download_model("PPHGNet_tiny", tmp_path / "models", base_url=url)
    assert description(bundle) == {"Global": {"model_name": "theirs"}}


def test_a_second_download_asks_nobody_until_a_file_is_damaged(
    mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, archives = mirror
    archive_mini(archives)
    monkeypatch.setenv("HGDEPLOY_MODELS_URL", url)
    for _ in range(3):
        bundle = download_model("PPHGNet_tiny", tmp_path / "models")
    assert QuietHandler.requests == 1
    (bundle / "inference.pdiparams").write_bytes(b"damaged")
    download_model("PPHGNet_tiny", tmp_path / "models")
    assert QuietHandler.requests == 2
    assert is_intact(bundle, "PPHGNet_tiny")


def test_progress_goes_to_stderr(
    mirror: tuple[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, archives = mirror
    archive_mini(archives)
    monkeypatch.setenv("HGDEPLOY_MODELS_URL", url)
    assert main(["models", "download", "PPHGNet_tiny", "--output", str(tmp_path / "models")]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 'models' / 'PPHGNet_tiny_infer'}\n"
    assert shown.err.startswith("PPHGNet_tiny_infer.tar: ")


def test_a_refused_archive_is_not_kept(mirror: tuple[str, Path], tmp_path: Path) -> None:
    url, archives = mirror
    (archives / "PPHGNet_tiny_infer.tar").write_bytes(b"<html>no such bucket</html>")
    with pytest.raises(DownloadError, match="not a complete, uncompressed tar file"):
        download_model("PPHGNet_tiny", tmp_path / "models", base_url=url)
    assert names(tmp_path / "models") == []


def test_weights_from_a_package_become_a_bundle_once(
    registry_weights: Callable[[str], Path], tmp_path: Path
) -> None:
    # With the weights in place no package is fetched, and with the bundle in place no Paddle runs.
    (tmp_path / "EfficientNetLite0.pth").hardlink_to(registry_weights("EfficientNetLite0"))
    bundle = download_model("EfficientNetLite0", tmp_path)
    assert names(bundle) == FILES
    assert names(tmp_path) == ["EfficientNetLite0.pth", "EfficientNetLite0_infer"]
    code = (
        "import sys; from pathlib import Path; from hgdeploy.zoo.bundles import download_model; "
        "download_model('EfficientNetLite0', Path(sys.argv[1])); print('paddle' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("PPHGNet_base", "PPHGNet_base_ssld"),
        ("ResNet50_rsb", "ResNet50"),
        (
            "SwinTransformer_base_patch4_window7_224",
            "SwinTransformer_base_patch4_window7_224_22kto1k",
        ),
    ],
)
def test_a_model_that_nobody_published_is_refused(name: str, other: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"not published; try {other}, which is the same"):
        download_model(name, tmp_path)
