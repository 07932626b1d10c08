# SPDX-License-Identifier: Apache-2.0
"""A bundle as a Triton model repository: what the config says is what the served files do."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import require_engine, run_command
from hgdeploy.bundle.engine_key import EngineKey, Profile
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.sidecar import read_sidecar, sidecar_path
from hgdeploy.engines import infer_rows, load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import BundleError, ConfigError, OutputError
from hgdeploy.serving.triton.backends import BACKENDS, TritonOptions
from hgdeploy.serving.triton.repository import triton_repository
from hgdeploy.system.digests import file_sha256
from hgdeploy.system.libraries import installed_version
from hgdeploy.transforms.operators_config import parse_ops
from hgdeploy.transforms.preprocess import Preprocessor

tritonclient = pytest.importorskip("tritonclient", reason="tritonclient is not installed")
text_format = pytest.importorskip("google.protobuf.text_format")

DTYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}
PROFILE = Profile(batch=(1, 4, 16), height=(64, 64, 64), width=(64, 64, 64))


@pytest.fixture(scope="module")
def schema():
    """The server's own description of a config."""
    path = Path(tritonclient.__path__[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _needs_onnxruntime():
    require_engine("onnxruntime")


@pytest.fixture
def write(mini, tmp_path, schema):
    """Write the bundle as a repository; returns (model folder, parsed config, warnings)."""

    def run(**options):
        warnings = []
        bundle, triton = open_bundle(mini), TritonOptions(**options)
        folder = triton_repository(bundle, tmp_path / "repository", triton, warnings.append)
        text = (folder / "config.pbtxt").read_text(encoding="utf-8")
        return folder, text_format.Parse(text, schema.ModelConfig()), warnings

    return run


def tensors(specs, first_axis):
    return [(spec.name, DTYPES[spec.dtype], list(spec.shape[first_axis:])) for spec in specs]


def stated(schema, tensors):
    return [(t.name, schema.DataType.Name(t.data_type), list(t.dims)) for t in tensors]


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def give_engine(bundle: Path, runtime: str = "tensorrt", **network) -> Path:
    """Lay an engine file into a bundle, with the sidecar that a build would leave."""
    path = bundle / "inference.engine"
    path.write_bytes(b"machine code")
    key = EngineKey("0" * 64, runtime, "10.16.1", ("8.6",), "a GPU", "fp32", PROFILE)
    facts = {
        "sha256": file_sha256(path),
        "key": key.to_json(),
        "network": {
            "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 3, 64, 64]}],
            "outputs": [{"name": "probabilities", "dtype": "float32", "shape": [-1, 10]}],
            **network,
        },
    }
    sidecar_path(path).write_text(json.dumps(facts))
    return path


def change_onnx(bundle: Path, change, **save) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    path = bundle / "inference.onnx"
    model = onnx.load(path)
    change(model)
    path.unlink()
    onnx.save(model, path, **save)


def fix_batch(model, batch=4):
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = batch


@pytest.mark.parametrize(("backend", "first_axis"), [("onnxruntime", 1), ("openvino", 0)])
def test_the_config_states_what_onnx_runtime_finds_in_the_served_file(
    write, schema, backend, first_axis
):
    folder, config, _ = write(backend=backend)
    engine = load_engine("onnxruntime", folder / "1" / "model.onnx", EngineOptions())
    assert stated(schema, config.input) == tensors(engine.inputs, first_axis)
    assert stated(schema, config.output) == tensors(engine.outputs, first_axis)
    assert config.backend == backend
    assert config.name == folder.name == "pphgnet_mini"
    assert config.default_model_filename == "model.onnx"
    assert config.version_policy.latest.num_versions == 1


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_served_files_alone_compute_the_golden_output(write, mini, golden, backend):
    require_engine(backend)
    folder, _, _ = write(backend=backend)
    shutil.rmtree(mini)
    with load_engine(backend, folder / "1" / "model.onnx", EngineOptions()) as engine:
        found = infer_rows(engine, golden["x"])
    assert np.abs(found - golden["probabilities"]).max() < 1e-5


def test_labels_stand_one_a_line_in_the_order_of_the_classes(write):
    folder, config, _ = write(backend="onnxruntime")
    lines = (folder / config.output[0].label_filename).read_text(encoding="utf-8").split("\n")
    assert lines == [f"name {i}, the" for i in range(10)] + [""]


def test_what_the_config_says_to_feed_is_what_the_bundle_feeds(write, mini):
    _, config, _ = write(backend="onnxruntime")
    facts = json.loads(config.parameters["hgdeploy"].string_value)
    image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    tensor = Preprocessor(parse_ops(facts["preprocess"], "preprocess"))(image)
    assert np.array_equal(tensor, Preprocessor(open_bundle(mini).preprocess)(image))
    assert list(tensor.shape) == list(config.input[0].dims)


def test_onnx_runtime_joins_requests_up_to_the_largest_batch(write, schema):
    options = {"max_batch": 16, "queue_delay_us": 100, "instances": 2, "threads": 3}
    _, config, warnings = write(backend="onnxruntime", **options)
    assert config.platform == "onnxruntime_onnx"
    assert config.max_batch_size == 16
    assert config.input[0].format == schema.ModelInput.FORMAT_NCHW
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    (group,) = config.instance_group
    assert (group.kind, group.count) == (schema.ModelInstanceGroup.KIND_CPU, 2)
    assert config.parameters["intra_op_thread_count"].string_value == "3"
    warmup = {sample.batch_size: sample.inputs["x"] for sample in config.model_warmup}
    assert list(warmup) == [1, 16]
    assert all(list(x.dims) == [3, 64, 64] and x.random_data for x in warmup.values())
    assert warnings == []


def test_a_batch_of_one_is_not_waited_for(write):
    _, config, _ = write(backend="onnxruntime", max_batch=1)
    assert config.max_batch_size == 1
    assert not config.HasField("dynamic_batching")


def test_openvino_takes_requests_of_any_size_as_they_are(write, schema):
    _, config, warnings = write(backend="openvino", instances=4, threads=2)
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [-1, 3, 64, 64]
    assert not config.HasField("dynamic_batching")
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_CPU
    own = {key: value.string_value for key, value in config.parameters.items() if key.isupper()}
    assert own == {
        "NUM_STREAMS": "4",
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_NUM_THREADS": "2",
    }
    assert list(config.model_warmup[0].inputs["x"].dims) == [1, 3, 64, 64]
    assert any("no setting for fp32" in line for line in warnings)
    assert any("one image at a time" in line for line in warnings)


def test_openvino_is_set_to_compute_bf16(write):
    _, config, warnings = write(backend="openvino", precision="bf16")
    assert config.parameters["HINT_BF16"].string_value == "YES"
    assert not any("fp32" in line for line in warnings)


def test_onnx_runtime_on_a_gpu_warns_of_tf32(write, schema):
    _, config, warnings = write(backend="onnxruntime", device="gpu")
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_GPU
    assert any("NVIDIA_TF32_OVERRIDE=0" in line for line in warnings)


def test_onnx_runtime_in_int8_on_a_gpu_says_that_it_computes_in_fp32():
    options = TritonOptions(backend="onnxruntime", precision="int8", device="gpu")
    assert any("computes in fp32" in line for line in BACKENDS["onnxruntime"].caveats(options))


def test_a_tensorrt_engine_is_described_from_its_sidecar(write, mini, schema):
    path = give_engine(mini)
    folder, config, warnings = write(queue_delay_us=50)
    assert (folder / "1" / "model.plan").read_bytes() == path.read_bytes()
    assert (config.platform, config.backend) == ("tensorrt_plan", "tensorrt")
    assert config.default_model_filename == "model.plan"
    assert config.max_batch_size == 16
    assert stated(schema, config.input) == [("x", "TYPE_FP32", [3, 64, 64])]
    assert stated(schema, config.output) == [("probabilities", "TYPE_FP32", [10])]
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 16]
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_GPU
    assert config.optimization.cuda.graphs
    assert [sample.batch_size for sample in config.model_warmup] == [1, 16]
    assert warnings == []


def test_an_engine_of_open_image_size_warms_up_at_what_it_is_tuned_for(write, mini):
    give_engine(mini, inputs=[{"name": "x", "dtype": "float32", "shape": [-1, 3, -1, -1]}])
    _, config, _ = write(max_batch=4)
    assert list(config.input[0].dims) == [3, -1, -1]
    assert [list(sample.inputs["x"].dims) for sample in config.model_warmup] == [[3, 64, 64]] * 2
    assert not config.optimization.cuda.graphs
    assert list(config.dynamic_batching.preferred_batch_size) == [4]


def test_the_sidecar_of_a_real_build_says_what_is_needed(write, mini, schema):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    from hgdeploy.bundle.names import runtime_named
    from hgdeploy.convert.tensorrt.from_onnx import engine_from_onnx
    from hgdeploy.convert.tensorrt.options import BuildOptions, Shapes

    rtx = mini / "inference.rtx.engine"
    build = BuildOptions(runtime_named("tensorrt-rtx"), compute_capabilities=("8.6",))
    engine_from_onnx(mini / "inference.onnx", rtx, Shapes(batch=(1, 2, 8)), build, lambda _: None)
    with pytest.raises(BundleError, match=r"inference\.rtx\.engine is an engine of TensorRT for "):
        write()
    # What the other library writes differs in the name of the runtime.
    facts = read_sidecar(rtx)
    facts["key"]["runtime"] = "tensorrt"
    engine = rtx.replace(mini / "inference.engine")
    sidecar_path(engine).write_text(json.dumps(facts))
    _, config, _ = write()
    onnx = load_engine("onnxruntime", mini / "inference.onnx", EngineOptions())
    assert stated(schema, config.input) == tensors(onnx.inputs, 1)
    assert stated(schema, config.output) == tensors(onnx.outputs, 1)
    assert config.max_batch_size == 8


def test_a_model_of_fixed_batch_is_served_in_that_shape(write, mini, schema):
    change_onnx(mini, fix_batch)
    _, config, _ = write(backend="onnxruntime")
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [4, 3, 64, 64]
    assert list(config.output[0].dims) == [4, 10]
    assert config.input[0].format == schema.ModelInput.FORMAT_NONE
    (sample,) = config.model_warmup
    assert (sample.batch_size, list(sample.inputs["x"].dims)) == (1, [4, 3, 64, 64])


@pytest.mark.parametrize("options", [{"queue_delay_us": 100}, {"max_batch": 4}])
def test_a_model_of_fixed_batch_joins_no_requests(write, mini, options):
    change_onnx(mini, fix_batch)
    with pytest.raises(ConfigError, match="the model has a fixed batch"):
        write(backend="onnxruntime", **options)


def external(bundle: Path) -> Path:
    change_onnx(
        bundle,
        lambda _model: None,
        save_as_external_data=True,
        location="inference.onnx.data",
        convert_attribute=True,
    )
    return bundle / "inference.onnx.data"


def test_weights_in_another_file_go_along_under_the_name_the_model_knows(write, mini, golden):
    weights = external(mini)
    facts = {"files": {weights.name: file_sha256(weights)}}
    sidecar_path(mini / "inference.onnx").write_text(json.dumps(facts))
    folder, _, _ = write(backend="onnxruntime")
    shutil.rmtree(mini)
    with load_engine("onnxruntime", folder / "1" / "model.onnx", EngineOptions()) as engine:
        found = infer_rows(engine, golden["x"])
    assert np.abs(found - golden["probabilities"]).max() < 1e-5


def test_a_model_whose_weights_would_be_left_behind_is_refused(write, mini, tmp_path):
    external(mini)
    with pytest.raises(BundleError, match=r"inference\.onnx cannot be served"):
        write(backend="onnxruntime")
    assert list((tmp_path / "repository").iterdir()) == []


def test_a_bundle_without_description_is_served_with_warnings(write, mini):
    (mini / "inference.yml").unlink()
    folder, config, warnings = write(backend="onnxruntime")
    assert folder.name == "mini"
    assert not config.output[0].label_filename
    assert sorted(files_of(folder)) == ["1/model.onnx", "config.pbtxt"]
    assert [line.split(",")[0] for line in warnings] == [
        "the bundle has no preprocessing",
        "the bundle has no labels",
    ]


def test_a_model_that_nobody_has_touched_is_replaced(write, mini):
    folder, _, _ = write(backend="onnxruntime")
    description = mini / "inference.yml"
    description.write_text(description.read_text().replace("name 3, the", "renamed"))
    again, config, _ = write(backend="openvino")
    assert again == folder
    assert config.backend == "openvino"
    assert (folder / "labels.txt").read_text().splitlines()[3] == "renamed"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def add_version(folder: Path) -> None:
    (folder / "2").mkdir()


def add_file(folder: Path) -> None:
    (folder / "1" / "notes.txt").write_text("mine")


def tune(folder: Path) -> None:
    path = folder / "config.pbtxt"
    path.write_text(path.read_text().replace("count: 1", "count: 7", 1))


def spoil(folder: Path) -> None:
    (folder / "config.pbtxt").write_text("nonsense {")


def lose_facts(folder: Path) -> None:
    (folder / "config.pbtxt").write_text('name: "pphgnet_mini"')


@pytest.mark.parametrize("change", [add_version, add_file, tune, spoil, lose_facts])
def test_what_a_user_has_changed_is_left_alone(write, change):
    folder, _, _ = write(backend="onnxruntime")
    change(folder)
    before = files_of(folder)
    with pytest.raises(OutputError, match="move it away, or choose another folder"):
        write(backend="onnxruntime")
    assert files_of(folder) == before


def test_another_bundle_does_not_take_the_place_of_a_model(write, mini):
    folder, _, _ = write(backend="onnxruntime")
    before = files_of(folder)
    description = mini / "inference.yml"
    description.write_text(description.read_text().replace("pphgnet_mini", "other"))
    with pytest.raises(OutputError, match="contains another model"):
        write(backend="onnxruntime", name="pphgnet_mini")
    assert files_of(folder) == before


def test_a_failure_leaves_the_model_that_is_served(write, mini):
    folder, _, _ = write(backend="onnxruntime")
    before = files_of(folder)
    (mini / "inference.onnx").write_bytes(b"no model")
    with pytest.raises(BundleError, match="does not load"):
        write(backend="onnxruntime")
    assert files_of(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_model_that_cannot_be_replaced_comes_back(write, monkeypatch):
    folder, _, _ = write(backend="onnxruntime")
    before, replace = files_of(folder), Path.replace

    def full_disk(path, target):
        if path.name == "new":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        write(backend="openvino")
    assert files_of(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorrt_plan"}, "unknown Triton backend 'tensorrt_plan', did you mean"),
        ({"backend": "onnxruntime", "precision": "bf16"}, "does not serve precision 'bf16'"),
        ({"backend": "openvino", "precision": "fp16"}, "does not serve precision 'fp16'"),
        ({"backend": "openvino", "device": "gpu"}, "does not serve device 'gpu'"),
        ({"device": "cpu"}, "does not serve device 'cpu'"),
        ({"threads": 2}, "threads has no effect on Triton's tensorrt backend"),
        ({"name": "a/b"}, "Triton model name 'a/b', expected letters"),
        ({"name": ".."}, r"Triton model name '\.\.', expected letters"),
        ({"instances": 0}, "instances is 0, expected a whole number from 1"),
        ({"queue_delay_us": -1}, "queue_delay_us is -1, expected a whole number from 0"),
    ],
)
def test_options_that_no_server_could_follow_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TritonOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "openvino", "max_batch": 4}, "the backend joins no requests"),
        ({"backend": "openvino", "queue_delay_us": 9}, "the backend joins no requests"),
        ({"max_batch": 17}, "max_batch is 17, but the engine serves batches of 1 to 16"),
        ({"max_batch": 1, "queue_delay_us": 9}, "queue_delay_us does not apply to batches of 1"),
    ],
)
def test_batches_that_the_model_cannot_take_are_refused(write, mini, options, message):
    give_engine(mini)
    with pytest.raises(ConfigError, match=message):
        write(**options)


def test_a_missing_artifact_is_named(write):
    with pytest.raises(BundleError, match=r"has no inference\.fp16\.engine; it has inference\."):
        write(precision="fp16")


def test_an_engine_of_the_rtx_library_is_refused_whatever_it_is_called(write, mini):
    give_engine(mini, runtime="tensorrt-rtx")
    with pytest.raises(BundleError, match=r"Triton has no backend for; build one with"):
        write()


@pytest.mark.parametrize("network", [{"inputs": None}, {"outputs": [{"name": "y"}]}])
def test_a_sidecar_that_does_not_describe_its_engine_is_refused(write, mini, network):
    give_engine(mini, **network)
    with pytest.raises(BundleError, match="does not describe the engine's inputs and outputs"):
        write()


def test_an_engine_that_its_sidecar_does_not_know_is_refused(write, mini):
    give_engine(mini).write_bytes(b"other machine code")
    with pytest.raises(BundleError, match=r"is not the file that inference\.engine\.meta\.json"):
        write()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("      - name 9, the\n", "", "has 10 classes, but the label list has 9"),
        ("name 9, the", '"two\\nlines"', "has more than one line"),
        ("size: 64", "size: 56", "takes images of 64x64, but the preprocessing makes "),
    ],
)
def test_a_description_that_does_not_fit_the_model_is_refused(write, mini, old, new, message):
    description = mini / "inference.yml"
    description.write_text(description.read_text().rstrip("\n") + "\n")
    description.write_text(description.read_text().replace(old, new))
    with pytest.raises(BundleError, match=message):
        write(backend="onnxruntime")


def test_a_missing_tritonclient_is_named_with_its_extra(mini, tmp_path):
    assert installed_version("tritonclient")
    code = f"""
import sys
from pathlib import Path
sys.modules["tritonclient"] = None
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.errors import EngineError
from hgdeploy.triton import TritonOptions, triton_repository
try:
    triton_repository(open_bundle({str(mini)!r}), Path({str(tmp_path)!r}), TritonOptions(), print)
except EngineError as error:
    print(error)
"""
    result = run_command("-c", code)
    assert "pip install -e '.[triton]'" in result.stdout, result.stderr
