# SPDX-License-Identifier: Apache-2.0
"""The Triton model that takes image files, without the server: its config, and its model.py."""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import triton_python_backend_utils as backend
from served import pictures, served

from conftest import require_engine
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.errors import ConfigError
from hgdeploy.triton import TritonOptions, triton_repository

pytest.importorskip("tritonclient", reason="tritonclient is not installed")
json_format = pytest.importorskip("google.protobuf.json_format")

from hgdeploy.serving.triton.model_config import read_config  # noqa: E402

SCORES = "probabilities"


@pytest.fixture(autouse=True)
def _needs_onnxruntime():
    require_engine("onnxruntime")


@pytest.fixture
def write(mini: Path, tmp_path: Path):
    """Write the bundle as a model of images, or of tensors; gives its folder."""

    def run(backend: str = "python", **options: object) -> Path:
        made = TritonOptions(backend=backend, **options)
        return triton_repository(open_bundle(mini), tmp_path / "repository", made, lambda _: None)

    return run


def loaded(folder: Path, **changes: str):
    """Load the model.py of a folder as the server does."""
    config = json_format.MessageToDict(
        read_config(folder / "config.pbtxt"),
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    spec = importlib.util.spec_from_file_location("model", folder / "1" / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    model.initialize(
        {
            "model_config": json.dumps(config),
            "model_name": folder.name,
            "model_repository": str(folder),
            "model_version": "1",
            "model_instance_kind": "CPU",
            "model_instance_device_id": "0",
            **changes,
        }
    )
    return model


def request(*files: bytes, names: tuple[str, ...] = (SCORES,)) -> backend.InferenceRequest:
    values = np.array([[file] for file in files], np.object_)
    return backend.InferenceRequest([backend.Tensor("image", values)], list(names))


def answered(response: backend.InferenceResponse) -> dict[str, np.ndarray]:
    assert response.error is None
    return {one.name(): one.as_numpy() for one in response.output_tensors}


def test_it_lies_beside_the_model_of_tensors_and_takes_files(write):
    tensors, images = write("onnxruntime"), write()
    assert (tensors.name, images.name) == ("pphgnet_mini", "pphgnet_mini_image")
    assert (images / "1" / "inference.onnx").read_bytes() == (
        tensors / "1" / "model.onnx"
    ).read_bytes()
    config = read_config(images / "config.pbtxt")
    assert (config.backend, config.max_batch_size) == ("python", 8)
    stated = [(one.name, list(one.dims)) for one in (*config.input, *config.output)]
    assert stated == [("image", [1]), (SCORES, [10]), ("error", [1])]
    assert config.output[0].label_filename == "labels.txt"
    (warmup,) = config.model_warmup
    picture = images / "warmup" / warmup.inputs["image"].input_data_file
    assert picture.read_bytes()[4:7] == b"\xff\xd8\xff"
    assert (images / "labels.txt").read_bytes() == (tensors / "labels.txt").read_bytes()


def test_its_answers_are_those_of_our_server(write, mini):
    files = pictures(3)
    ours = served(mini)
    expected = [one.row for one in ours.classifier.answers([ours.image(f) for f in files])]
    ours.close()
    folder = write()
    (mini / "inference.onnx").unlink()
    model = loaded(folder)
    in_json = base64.b64encode(files[2])
    found = model.execute([request(files[0]), request(files[1], in_json)])
    model.finalize()
    rows = [row for one in found for row in answered(one)[SCORES]]
    assert np.array_equal(rows, expected)
    assert rows[0].dtype == np.float32


def test_an_image_that_fails_is_told_and_the_others_are_answered(write):
    good, bad = pictures(1)[0], b"hello"
    model = loaded(write())
    both, scores, reasons, nothing = model.execute(
        [
            request(good, bad, names=(SCORES, "error")),
            request(good, bad),
            request(bad, names=("error",)),
            request(b"", names=("error", SCORES)),
        ]
    )
    model.finalize()
    found = answered(both)
    assert np.isfinite(found[SCORES][0]).all()
    assert np.isnan(found[SCORES][1]).all()
    assert found["error"].shape == (2, 1)
    assert found["error"][0, 0] == b""
    assert found["error"][1, 0].startswith(b"is not an image")
    assert scores.output_tensors == []
    assert scores.error.code() == backend.TritonError.INVALID_ARG
    assert scores.error.message().startswith("image 1: is not an image")
    assert list(answered(reasons)) == ["error"]
    assert answered(nothing)["error"][0, 0] == b"is empty"


def test_instances_share_the_cpus(write):
    alone = loaded(write(threads=3))
    shared = loaded(write(instances=1000))
    assert [one._model.classifier.cpus for one in (alone, shared)] == [3, 1]
    alone.finalize()
    shared.finalize()


def test_a_model_that_cannot_be_loaded_says_why(write):
    folder = write()
    (folder / "1" / "inference.onnx").write_bytes(b"no model")
    with pytest.raises(backend.TritonModelException, match=r"inference\.onnx"):
        loaded(folder)
    with pytest.raises(backend.TritonModelException, match="gpu:3"):
        loaded(write(name="other"), model_instance_kind="GPU", model_instance_device_id="3")


def test_a_model_of_another_version_is_told(write):
    folder = write()
    config = folder / "config.pbtxt"
    backend.Logger.warnings.clear()
    loaded(folder).finalize()
    assert backend.Logger.warnings == []
    text = config.read_text().replace(r"version\": \"", r"version\": \"0.0.")
    config.write_text(text)
    loaded(folder).finalize()
    (warning,) = backend.Logger.warnings
    assert "pphgnet_mini_image was written by HGDeploy 0.0." in warning


def test_a_model_that_has_run_is_replaced(write):
    folder = write()
    cache = folder / "1" / "__pycache__"
    cache.mkdir()
    (cache / "model.cpython-311.pyc").write_bytes(b"compiled")
    assert write(max_batch=4) == folder
    assert not cache.exists()


def test_a_bundle_that_does_not_say_how_to_prepare_images_is_refused(write, mini, tmp_path):
    (mini / "inference.yml").unlink()
    with pytest.raises(ConfigError, match="does not say how images are prepared"):
        write()
    assert not (tmp_path / "repository").exists()
