# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's config at the door: what is served, warned about, refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml

from conftest import REPO
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.errors import ConfigError
from hgdeploy.paddleclas.config import load_config
from hgdeploy.system.machine import available_cpus
from hgdeploy.transforms.operators import CropImage, NormalizeImage, ResizeImage, ToCHWImage
from hgdeploy.transforms.postprocess import MultiLabelThreshOutput, ScoreOutput, ThreshOutput, Topk
from hgdeploy.transforms.postprocess_config import read_labels
from hgdeploy.transforms.prediction import text_line

STOCK = REPO / "deploy" / "configs" / "inference_cls.yaml"
NEEDED = ("Global.inference_model_dir=m", "Global.infer_imgs=i")


def config_of(*overrides: str, path: Path | None = None):
    return load_config(path, (*NEEDED, *overrides))


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "configs" / "c.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_the_stock_config_means_what_paddleclas_means():
    config = load_config(STOCK)
    assert config.options.device == "gpu:0"
    assert config.options.precision == "fp32"
    assert (config.engine, config.batch_size) == ("paddle", 1)
    assert config.preprocess == (
        ResizeImage(resize_short=256),
        CropImage(size=(224, 224)),
        NormalizeImage(scale=0.00392157, order=""),
        ToCHWImage(),
    )
    assert isinstance(config.postprocess.output, Topk)
    assert config.postprocess.output.topk == 5
    assert config.postprocess.output.labels[8] == "hen"
    assert config.warnings == ()


def test_the_stock_config_finds_its_own_paths_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(STOCK)
    assert Path(config.inputs[0]) == REPO / "deploy" / "images"


def test_a_path_in_a_file_counts_from_the_current_directory_first(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_config(STOCK).inputs == ("./images",)


def test_a_path_in_an_override_counts_from_the_current_directory_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(STOCK, ["Global.infer_imgs=images"])
    assert config.inputs == ("images",)


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("Global.batch_size=8", "batch_size", 8),
        ("Global.use_gpu=True", "options.device", "gpu:0"),
        ("Global.use_gpu=true", "options.device", "gpu:0"),
        ("Global.use_gpu=False", "options.device", "cpu"),
        ("Global.use_gpu=1", "options.device", "gpu:0"),
        ("Global.use_gpu=0", "options.device", "cpu"),
        ("Global.use_gpu=no", "options.device", "cpu"),
        ("Global.use_gpu=null", "options.device", "cpu"),
        ("Global.cpu_num_threads=None", "options.threads", None),
        ("Global.ir_optim=off", "options.graph_optimization", False),
        ("Global.use_tensorrt=0", "paddle.tensorrt", False),
        ("Global.enable_mkldnn=1", "paddle.onednn", True),
        ("Global.enable_mkldnn=No", "paddle.onednn", False),
        ("Global.use_npu=off", "engine", "paddle"),
        ("Global.batch_size=8.0", "batch_size", 8),
        ("Global.cpu_num_threads=0", "options.threads", 1),
        (
            "Global={'batch_size': 4, 'infer_imgs': 'i', 'inference_model_dir': '2'}",
            "bundle",
            Path("2"),
        ),
        ("Global.use_onnx=True", "engine", "onnxruntime"),
        ("Global.engine=onnxruntime", "engine", "onnxruntime"),
        ("Global.enable_mkldnn=False", "paddle.onednn", False),
        ("Global.cpu_num_threads=1", "options.threads", 1),
        ("Global.ir_optim=False", "options.graph_optimization", False),
        ("Global.use_tensorrt=True", "paddle.tensorrt", True),
        ("Global.use_fp16=True", "options.precision", "fp16"),
        ("Global.use_int8=True", "options.precision", "int8"),
        ("Global.precision=bf16", "options.precision", "bf16"),
        ("Global.gpu_mem=4000", "paddle.gpu_memory_mb", 4000),
        ("Global.enable_profile=True", "options.profile", True),
        ("Global.benchmark=True", "benchmark", True),
        ("Global.inference_model_dir=2024", "bundle", Path("2024")),
        ("Global.infer_imgs=a=b.jpg", "inputs", ("a=b.jpg",)),
        ("Global.infer_imgs=007", "inputs", ("007",)),
        # As cmd.exe passes it on; no escape is evaluated.
        ("Global.infer_imgs='a b/new.jpg'", "inputs", ("a b/new.jpg",)),
        ('Global.infer_imgs="a\\new.jpg"', "inputs", ("a\\new.jpg",)),
        ("Global.infer_imgs='x.jpg", "inputs", ("'x.jpg",)),
        ("Global.inference_model_dir='2024'", "bundle", Path("2024")),
        ("Global.use_gpu='False'", "options.device", "cpu"),
        ("Global.use_npu=False", "engine", "paddle"),
    ],
)
def test_an_override_takes_effect(override: str, field: str, value: object):
    found: object = config_of(override)
    first, _, rest = field.partition(".")
    found = found.options.own_of(PaddleOptions) if first == "paddle" else getattr(found, first)
    assert (getattr(found, rest) if rest else found) == value


@pytest.mark.parametrize("off", ["0", "no", "off", "False", "'0'", "'false'", "'Off'", "null"])
def test_a_switch_is_off_in_a_file_however_yaml_writes_it(tmp_path: Path, off: str):
    config = config_of(path=write(tmp_path, f"Global: {{use_gpu: {off}, use_tensorrt: {off}}}"))
    assert config.options.device == "cpu"
    assert not config.options.own_of(PaddleOptions).tensorrt


def test_gpu_id_chooses_the_gpu():
    assert config_of("Global.use_gpu=True", "Global.gpu_id=3").options.device == "gpu:3"


def test_an_override_reaches_into_lists():
    config = load_config(
        STOCK,
        ["PreProcess.transform_ops.0.ResizeImage.resize_short=232", "PostProcess.Topk.topk=2"],
    )
    assert config.preprocess[0] == ResizeImage(resize_short=232)
    assert config.postprocess.output.topk == 2


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("Global.batchsize=8", "unknown key Global.batchsize, did you mean 'batch_size'?"),
        ("Global.use_gpu=maybe", "Global.use_gpu is 'maybe', expected true or false"),
        ("Global.use_gpu=2", "Global.use_gpu is '2', expected true or false"),
        ("Global.use_gpu=", "Global.use_gpu is '', expected true or false"),
        ("Global.use_npu=1", "Global.use_npu cannot be served"),
        ("Global={'batch_size': 0}", "Global.batch_size is 0, expected a whole number from 1"),
        ("Global.batch_size=0", "Global.batch_size is '0', expected a whole number from 1"),
        ("Global.batch_size=2.5", "expected a whole number from 1"),
        ("Global.gpu_id=-1", "expected a whole number from 0"),
        ("Global.batch_size=__import__('os').getpid()", "expected a whole number"),
        ("Global.use_npu=True", "Global.use_npu cannot be served: HGDeploy has no Ascend NPU"),
        ("Global.rec_inference_model_dir=x", "belongs to PP-ShiTu"),
        ("Global.precision=fp8", "unknown precision 'fp8'"),
        ("Globl.batch_size=8", "unknown section 'Globl', did you mean 'Global'?"),
        ("batch_size", "is not of the form Section.key=value"),
        ("Global..x=1", "is not of the form Section.key=value"),
        ("Global.batch_size.x=1", "expected a whole number from 1"),
        ("PostProcess.Topk.topk={[]: 1}", "Topk.topk is '{[]: 1}', expected a whole number from 1"),
        ("Global.inference_model_dir=", "Global.inference_model_dir is '', expected a text"),
    ],
)
def test_a_wrong_override_is_refused_in_one_line(override: str, told: str):
    with pytest.raises(ConfigError) as caught:
        config_of(override)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("index", ["9", "-1", "²", "x", "9" * 5000], ids=lambda i: i[:5])
def test_an_index_out_of_range_names_the_range(index: str):
    with pytest.raises(ConfigError, match="expected an index from 0 to 3"):
        load_config(STOCK, [f"PreProcess.transform_ops.{index}.CropImage.size=1"])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("Global.use_onnx=True", "Global.use_tensorrt=True"), "Global.use_gpu is False"),
        (("Global.engine=tensorrt",), "Global.use_gpu is False"),
        (("Global.engine=openvino", "Global.use_tensorrt=True"), "contradicts"),
        (("Global.use_onnx=True", "Global.engine=paddle"), "contradicts"),
        (("Global.use_fp16=True", "Global.use_int8=True"), "were asked for at once"),
        (("Global.use_fp16=True", "Global.precision=fp32"), "were asked for at once"),
    ],
)
def test_contradictions_are_refused(overrides: tuple[str, ...], told: str):
    with pytest.raises(ConfigError, match=told):
        config_of(*overrides)


TENSORRT = ("Global.use_gpu=True", "Global.use_tensorrt=True")


@pytest.mark.parametrize(
    ("files", "overrides", "engine"),
    [
        ((), TENSORRT, "paddle"),
        ((), (*TENSORRT, "Global.use_onnx=True"), "tensorrt"),
        ((), ("Global.use_gpu=True", "Global.engine=tensorrt"), "tensorrt"),
        (("inference.engine",), TENSORRT, "tensorrt"),
        (("inference.rtx.engine",), TENSORRT, "tensorrt"),
        (("inference.engine",), ("Global.use_gpu=True",), "paddle"),
        (("inference.engine",), (*TENSORRT, "Global.engine=paddle"), "paddle"),
        (("inference.engine",), (*TENSORRT, "Global.use_fp16=True"), "paddle"),
        (("inference.fp16.engine",), (*TENSORRT, "Global.use_fp16=True"), "tensorrt"),
    ],
)
def test_use_tensorrt_takes_an_engine_file_or_onnx_else_paddles_own(
    tmp_path, files, overrides, engine
):
    for name in files:
        (tmp_path / name).write_bytes(b"engine")
    config = config_of(f"Global.inference_model_dir={tmp_path}", *overrides)
    assert config.engine == engine
    if engine == "paddle":
        own = config.options.own_of(PaddleOptions)
        assert own.tensorrt == ("Global.use_tensorrt=True" in overrides)


@pytest.mark.parametrize("missing", ["infer_imgs", "inference_model_dir"])
def test_what_must_be_given_is_asked_for(missing: str):
    with pytest.raises(ConfigError, match=f"Global.{missing} is not set"):
        load_config(None, [text for text in NEEDED if missing not in text])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("Global.enable_benchmark=True", "Global.enable_benchmark has no effect"),
        ("Global.save_log_path=x.log", "Global.save_log_path has no effect"),
        ("Global.model_name=x", "Global.model_name has no effect"),
        (f"Global.cpu_num_threads={available_cpus() + 1}", f"using {available_cpus()}"),
    ],
)
def test_a_key_without_its_effect_is_a_named_warning(override: str, told: str):
    (warning,) = config_of(override).warnings
    assert told in warning


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "has no keys"),
        ("[1, 2]", "has no keys"),
        ("Global: {a: [}", "is not valid YAML"),
        ("Global: {a: 2024-13-45}", "is not valid YAML: month must be in 1..12"),
        (f"Global: {{a: {'1' * 5000}}}", "is not valid YAML: it holds a number of 5000"),
        ("Global: {a: !!timestamp x}", "is not valid YAML"),
        ("[" * 5000, "is not valid YAML: it is nested deeper than 64"),
        ("Global: 3", "Global holds no keys"),
        ("PreProcess: {ops: []}", "PreProcess must hold exactly one key: transform_ops"),
        ("PostProcess: {}", r"PostProcess is \{\}, expected an output, such as Topk"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: str, told: str):
    with pytest.raises(ConfigError, match=told):
        config_of(path=write(tmp_path, content))


def test_a_missing_config_never_becomes_a_default(tmp_path: Path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "none.yaml", NEEDED)


@pytest.mark.parametrize(
    ("section", "output"),
    [
        ({"name": "Topk", "topk": 3}, Topk(3)),
        ({"Topk": {"topk": 3, "class_id_map_file": None}}, Topk(3)),
        ({"Topk": {"topk": 3, "class_id_map_file": "None"}}, Topk(3)),
        ({"Topk": None}, Topk(1)),
        (
            {"main_indicator": "ThreshOutput", "ThreshOutput": {"threshold": 0.9, "label_0": "no"}},
            ThreshOutput(0.9, label_0="no"),
        ),
        ({"MultiLabelThreshOutput": {"threshold": 0.4}}, MultiLabelThreshOutput(0.4)),
        ({"MultiLabelThreshOutput": {"threshold": -0.5}}, MultiLabelThreshOutput(-0.5)),
        ({"MultiLabelThreshOutput": {"threshold": "-1e-1"}}, MultiLabelThreshOutput(-0.1)),
        ({"ThreshOutput": {"threshold": -2, "label_0": "n"}}, ThreshOutput(-2, label_0="n")),
        ({"ScoreOutput": {"decimal_places": 2}}, ScoreOutput(2)),
        ({"ScoreOutput": {"decimal_places": 2.0}}, ScoreOutput(2)),
        ({"Topk": {"topk": 3.0}}, Topk(3)),
        ({"Topk": {"topk": "3"}}, Topk(3)),
        ({"main_indicator": ["Topk"], "Topk": {"topk": 3}, "ThreshOutput": {}}, Topk(3)),
        (
            {"main_indicator": "Topk", "Topk": {"topk": 2}, "ScoreOutput": {"decimal_places": 1}},
            Topk(2),
        ),
    ],
)
def test_postprocessing_is_read(tmp_path: Path, section: object, output: object):
    config = config_of(path=write(tmp_path, {"PostProcess": section}))
    assert config.postprocess.output == output


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"TopK": {"topk": 3}}, "unknown key PostProcess.TopK, did you mean 'Topk'?"),
        ({"Topk": {"top_k": 3}}, "unknown key PostProcess.Topk.top_k, did you mean 'topk'?"),
        ({"Topk": {"topk": 0}}, "PostProcess.Topk.topk is 0, expected a whole number from 1"),
        ({"Topk": {"topk": True}}, "expected a whole number"),
        ({"MultiLabelTopk": {}}, "PostProcess.MultiLabelTopk cannot be served"),
        (
            {"PersonAttribute": {"treshold": 0.5}},
            "unknown key PostProcess.PersonAttribute.treshold, did you mean 'threshold'?",
        ),
        ({"FaceAttribute": {"class_id_map_file": "x"}}, "FaceAttribute.class_id_map_file"),
        ({"FaceAttribute": {"convert_cn": 2}}, "convert_cn is 2, expected true or false"),
        ({"TableAttribute": {"angle_threshold": "x"}}, "is 'x', expected a number"),
        ({"main_indicator": "Top", "Topk": {}}, "main_indicator is 'Top', expected one of: Topk"),
        ({"Topk": {}, "ScoreOutput": {"decimal_places": 1}}, "main_indicator is None"),
        ({"ScoreOutput": {}}, "decimal_places is missing, expected a whole number from 0"),
        ({"Topk": {}, "SavePreLabel": {}}, "SavePreLabel.save_dir is missing, expected a path"),
        ({"Topk": {"class_id_map_file": "nowhere.txt"}}, "label file nowhere.txt cannot be read"),
        ({"Topk": {"label_list": "a"}}, "label_list is 'a', expected a list of names"),
        (
            {"main_indicator": ["Topk", "SavePreLabel"], "Topk": {}},
            "main_indicator is ['Topk', 'SavePreLabel'], expected a text",
        ),
        ({"MultiLabelThreshOutput": {"threshold": "x"}}, "threshold is 'x', expected a number"),
        ({"MultiLabelThreshOutput": {"threshold": [0.5]}}, "is [0.5], expected a number"),
        ({"name": ["Topk"]}, "PostProcess.name is ['Topk'], expected a text"),
        (
            {"Topk": {"class_id_map_file": "x", "delimiter": 3}},
            "PostProcess.Topk.delimiter is 3, expected a text",
        ),
    ],
)
def test_wrong_postprocessing_is_refused(tmp_path: Path, section: object, told: str):
    with pytest.raises(ConfigError) as caught:
        config_of(path=write(tmp_path, {"PostProcess": section}))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("cat\n", "line 1: 'cat' is not 'ID NAME'"),
        ("0 a\n0 b\n", "line 2: class 0 stands twice"),
        (b"0 \xff\n", "is not UTF-8"),
    ],
)
def test_a_wrong_label_file_is_refused(tmp_path: Path, text: str | bytes, told: str):
    labels = tmp_path / "labels.txt"
    labels.write_bytes(text if isinstance(text, bytes) else text.encode())
    section = {"Topk": {"class_id_map_file": str(labels)}}
    with pytest.raises(ConfigError, match=told):
        config_of(path=write(tmp_path, {"PostProcess": section}))


def test_labels_may_have_another_delimiter(tmp_path: Path):
    labels = tmp_path / "labels.txt"
    labels.write_text("0,red, dark\n1,blue\n", encoding="utf-8-sig")
    section = {"Topk": {"class_id_map_file": str(labels), "delimiter": ","}}
    config = config_of(path=write(tmp_path, {"PostProcess": section}))
    assert config.postprocess.output.labels == {0: "red, dark", 1: "blue"}


def test_a_label_may_hold_what_ends_lines_elsewhere(tmp_path: Path):
    labels = tmp_path / "labels.txt"
    labels.write_bytes("0 a\x0cb\n1 c\u2028d\r\n2 \x1c\n\n3  e\t \n".encode())
    section = {"Topk": {"class_id_map_file": str(labels)}}
    config = config_of(path=write(tmp_path, {"PostProcess": section}))
    assert config.postprocess.output.labels == {0: "a\x0cb", 1: "c\u2028d", 2: "\x1c", 3: " e\t "}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("delimiter: ''", "delimiter is '', expected a text"),
        ("delimiter: 0", "delimiter is 0, expected a text"),
        ('delimiter: "\\n"', r"line 1: '0 a' is not 'ID\nNAME'"),
        ("label_list: [a, b: c]", "label_list[1] is {'b': 'c'}, expected a text; put it in quotes"),
        ("label_list: [a, [b]]", "label_list[1] is ['b'], expected a text; put it in quotes"),
        ("label_list: []", "label_list is [], expected a list of names"),
    ],
)
def test_labels_that_are_no_names_are_refused(tmp_path: Path, text: str, told: str):
    (tmp_path / "l.txt").write_text("0 a\n")
    config = write(tmp_path, f"PostProcess: {{Topk: {{class_id_map_file: l.txt, {text}}}}}")
    with pytest.raises(ConfigError) as caught:
        config_of(path=config)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_delimiter_is_not_empty(tmp_path: Path):
    (tmp_path / "l.txt").write_text("0 a\n" + 5000 * "1" + " b\n")
    with pytest.raises(ConfigError, match=r"^delimiter is '', expected a text$"):
        read_labels(tmp_path / "l.txt", "")
    with pytest.raises(ConfigError, match=r"line 2: '1{60}' is not 'ID NAME'"):
        read_labels(tmp_path / "l.txt")


@pytest.mark.parametrize("null", ["null", "None", "~", "''", '""', ""])
@pytest.mark.parametrize("key", ["class_id_map_file", "label_list"])
def test_null_after_o_is_no_names_as_the_errors_advise(key: str, null: str):
    output = config_of(f"PostProcess.Topk.{key}={null}").postprocess.output
    assert output == Topk(labels=None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("0", "0"), ("'0'", "'0'"), ("no", "'no'"), ("010", "'010'"), ("1.10", "'1.10'"),
     ("12:30", "'12:30'"), ("1.5", "1.5"), ("null", "'null'"), ("2024-01-31", "'2024-01-31'")],
)  # fmt: skip
def test_the_names_of_a_threshold_are_printed_as_paddleclas_prints_them(
    tmp_path: Path, text: str, shown: str
):
    yaml_text = f"PostProcess: {{ThreshOutput: {{threshold: 0.5, label_0: {text}}}}}"
    from_file = config_of(path=write(tmp_path, yaml_text))
    section = "PostProcess.ThreshOutput"
    after_o = config_of(f"{section}.label_0={text}", f"{section}.threshold=0.5")
    for config in (from_file, after_o):
        prediction = config.postprocess.output("a.jpg", np.array([0.9, 0.1], np.float32))
        assert text_line(prediction).endswith(f"label_name(s): [{shown}]")
        assert json.dumps(prediction.labels) == json.dumps([text.strip("'")])
        assert pickle.loads(pickle.dumps(prediction)) == prediction


def test_a_list_of_names_after_o_is_one():
    labels = config_of("PostProcess.Topk.label_list=[0, 'no', 1.5]").postprocess.output.labels
    assert labels == {0: "0", 1: "no", 2: "1.5"}
