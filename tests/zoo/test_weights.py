# SPDX-License-Identifier: Apache-2.0
"""Weight files: what is read, what is refused, and what fits a network."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hgdeploy import zoo
from hgdeploy.errors import WeightsError
from hgdeploy.zoo.weights.load import load_into, read_weights
from hgdeploy.zoo.weights.pdparams import read_pdparams
from hgdeploy.zoo.weights.torch import read_torch

paddle = pytest.importorskip("paddle")

W = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.array([0.5, -0.5], np.float16)


def write(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def one_line(error: pytest.ExceptionInfo[WeightsError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# .pdparams


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_what_paddle_saves_is_read_back(tmp_path: Path, protocol: int) -> None:
    layer = zoo.build("PPHGNet_tiny", 10)
    path = tmp_path / "tiny.pdparams"
    paddle.save(layer.state_dict(), str(path), protocol=protocol)
    weights = read_weights(path)
    assert list(weights) == list(layer.state_dict())
    for name, tensor in layer.state_dict().items():
        np.testing.assert_array_equal(weights[name], tensor.numpy())


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_files_of_both_numpy_majors_are_read(tmp_path: Path, core: str) -> None:
    path = write(tmp_path / "w", {"w": W, "b": B}, protocol=2)
    content = path.read_bytes().replace(b"numpy._core.", b"numpy.core.")
    path.write_bytes(content.replace(b"numpy.core.", f"{core}.".encode()))
    assert core.encode() in path.read_bytes()
    weights = read_pdparams(path)
    np.testing.assert_array_equal(weights["w"], W)
    assert weights["b"].dtype == np.float16


def test_named_arrays_and_the_name_table_are_understood(tmp_path: Path) -> None:
    content = {"w": ("linear_0.w_0", W), "StructuredToParameterName@@": {"w": "linear_0.w_0"}}
    weights = read_pdparams(write(tmp_path / "w", content))
    assert list(weights) == ["w"]
    np.testing.assert_array_equal(weights["w"], W)


def test_arrays_that_paddle_split_are_joined(tmp_path: Path) -> None:
    flat = W.ravel()
    content = OrderedDict(
        [
            ("b", B),
            ("w@@.0", flat[:4]),
            ("w@@.1", flat[4:]),
            (
                "UnpackBigParamInfor@@",
                {"w": {"OriginShape": (2, 3), "slices": ["w@@.0", "w@@.1"]}},
            ),
        ]
    )
    weights = read_pdparams(write(tmp_path / "w", content))
    assert sorted(weights) == ["b", "w"]
    np.testing.assert_array_equal(weights["w"], W)


@pytest.mark.parametrize(
    "plan",
    [
        {"w": {"OriginShape": (2, 3), "slices": ["gone"]}},
        {"w": {"OriginShape": (7, 7), "slices": ["b"]}},
        {"w": 3},
        3,
    ],
)
def test_a_wrong_list_of_split_arrays_is_refused(tmp_path: Path, plan: object) -> None:
    path = write(tmp_path / "w", {"b": B, "UnpackBigParamInfor@@": plan})
    with pytest.raises(WeightsError, match="list of split parameters is damaged") as error:
        read_pdparams(path)
    one_line(error)


class Call:
    """Pickles as a call of `function`, the way a hostile file would."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (eval, r"(builtins|__builtin__)\.eval"),
        (getattr, r"(builtins|__builtin__)\.getattr"),
        (open, r"_?io\.open"),
        (Path.touch, r"(builtins|__builtin__)\.getattr|pathlib"),
        (np.load, r"numpy\.load"),
    ],
)
def test_a_file_that_asks_for_code_is_refused_and_not_run(
    tmp_path: Path, protocol: int, function: Callable[..., Any], name: str
) -> None:
    victim = tmp_path / "victim"
    code = f"open({str(victim)!r}, 'w')"
    path = write(tmp_path / "w", {"w": W, "x": Call(function, code)}, protocol)
    with pytest.raises(WeightsError, match=f"refused, because it asks for ({name})") as error:
        read_weights(path)
    one_line(error)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<html>Not found</html>", "is not a weights file"),
        (b"\x80", "truncated or damaged"),
        (b"\x80\x04.", "truncated or damaged"),
        (pickle.dumps([W]), "contains a list"),
        (pickle.dumps({1: W}), "the key 1 is not a parameter name"),
        (pickle.dumps({"w": {"nested": W}}), "'w' is a dict, expected an array"),
        (pickle.dumps({"w": np.array(["a"])}), "'w' has dtype <U1"),
        (pickle.dumps({"w": np.array([{}], object)}), "'w' has dtype object"),
    ],
)
def test_what_is_no_weights_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "w.pdparams"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=reason) as error:
        read_weights(path)
    assert str(path) in one_line(error)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "w", {"w": W, "b": ("name", B)}).read_bytes()
    path = tmp_path / "cut"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError) as error:
            read_weights(path)
        one_line(error)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="gone: cannot be read: No such file"):
        read_weights(tmp_path / "gone")


# PyTorch files, written here without PyTorch.


class Tensor:
    """What PyTorch pickles for a tensor: a view of a storage, in elements."""

    def __init__(
        self, key: str, data: np.ndarray, offset: int, shape: tuple[int, ...], *strides: int
    ) -> None:
        self.storage = Storage(key, data)
        self.view = (self.storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.view


STORAGE_KINDS = {"f4": "FloatStorage", "f2": "HalfStorage", "i8": "LongStorage"}


class Storage:
    def __init__(self, key: str, data: np.ndarray) -> None:
        self.key, self.data = key, data

    def reference(self) -> tuple[object, ...]:
        kind = getattr(sys.modules["torch"], STORAGE_KINDS[self.data.dtype.str[1:]])
        return ("storage", kind, self.key, "cpu", self.data.size)


class TorchPickler(pickle.Pickler):
    legacy = False

    def persistent_id(self, obj: object) -> object:
        if not isinstance(obj, Storage):
            return None
        return (*obj.reference(), None) if self.legacy else obj.reference()


@pytest.fixture
def torch_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules with PyTorch's names, so that our pickles can mention them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def rebuild(*_: object) -> None:
        raise AssertionError("the real function must never be called")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild
    for kind in STORAGE_KINDS.values():
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def pickled(state: object, legacy: bool) -> bytes:
    buffer = io.BytesIO()
    pickler = TorchPickler(buffer, protocol=2)
    pickler.legacy = legacy
    pickler.dump(state)
    return buffer.getvalue()


def storages(state: object) -> dict[str, np.ndarray]:
    tensors = state.values() if isinstance(state, dict) else []
    return {t.storage.key: t.storage.data for t in tensors if isinstance(t, Tensor)}


def write_legacy(path: Path, state: object, machine: object = None) -> Path:
    machine = machine or {"protocol_version": 1001, "little_endian": True}
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, machine)]
    keys = pickle.dumps(list(storages(state)), 2)
    data = b"".join(struct.pack("<q", a.size) + a.tobytes() for a in storages(state).values())
    path.write_bytes(b"".join(head) + pickled(state, True) + keys + data)
    return path


def write_zip(path: Path, state: object, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model/data.pkl", pickled(state, False))
        archive.writestr("model/byteorder", "little")
        for key, array in storages(state).items():
            archive.writestr(f"model/data/{key}", array.tobytes())
    return path


BOTH = pytest.mark.parametrize("save", [write_legacy, write_zip])


@BOTH
@pytest.mark.usefixtures("torch_names")
def test_torch_tensors_are_read_with_their_strides(tmp_path: Path, save: Any) -> None:
    numbers = np.arange(12, dtype="<f4")
    state = OrderedDict(
        plain=Tensor("0", numbers, 0, (2, 6), 6, 1),
        turned=Tensor("0", numbers, 0, (6, 2), 1, 6),
        part=Tensor("0", numbers, 5, (3,), 2),
        half=Tensor("1", np.array([0.5, 2], "<f2"), 0, (2,), 1),
        count=Tensor("2", np.array([7], "<i8"), 0, ()),
    )
    weights = read_torch(save(tmp_path / "w", state))
    assert list(weights) == list(state)
    np.testing.assert_array_equal(weights["plain"], numbers.reshape(2, 6))
    np.testing.assert_array_equal(weights["turned"], numbers.reshape(2, 6).T)
    np.testing.assert_array_equal(weights["part"], [5, 7, 9])
    assert weights["half"].dtype == np.float16
    assert weights["count"].item() == 7


@BOTH
@pytest.mark.usefixtures("torch_names")
def test_torch_names_and_layouts_become_paddle_s(tmp_path: Path, save: Any) -> None:
    def tensor(key: str, array: np.ndarray) -> Tensor:
        strides = [step // array.itemsize for step in array.strides]
        return Tensor(key, array.ravel(), 0, array.shape, *strides)

    state = {
        "bn.running_mean": tensor("0", np.ones(3, "<f4")),
        "bn.running_var": tensor("1", np.full(3, 2, "<f4")),
        "bn.num_batches_tracked": tensor("2", np.array(5, "<i8")),
        "fc.weight": tensor("3", W),
        "conv.weight": tensor("4", np.zeros((4, 3, 1, 1), "<f4")),
    }
    weights = read_weights(save(tmp_path / "w", state))
    assert list(weights) == ["bn._mean", "bn._variance", "fc.weight", "conv.weight"]
    np.testing.assert_array_equal(weights["fc.weight"], W.T)
    assert weights["conv.weight"].shape == (4, 3, 1, 1)


@BOTH
@pytest.mark.usefixtures("torch_names")
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (13,), (1,)),
        (5, (8,), (1,)),
        (0, (2, 6), (7, 1)),
        (0, (10**9,), (0,)),
        (-1, (2,), (1,)),
        (11, (2,), (-1,)),
        (0, (2, 6), (1,)),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(
    tmp_path: Path, save: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    state = {"w": Tensor("0", np.arange(12, dtype="<f4"), offset, shape, *strides)}
    with pytest.raises(WeightsError, match="'w' does not lie inside its storage"):
        read_torch(save(tmp_path / "w", state))


@BOTH
@pytest.mark.usefixtures("torch_names")
def test_a_torch_file_that_asks_for_code_is_refused(tmp_path: Path, save: Any) -> None:
    path = save(tmp_path / "w", {"w": Call(eval, "1")})
    with pytest.raises(WeightsError, match=r"it asks for __builtin__\.eval"):
        read_weights(path)


@BOTH
@pytest.mark.usefixtures("torch_names")
def test_a_training_checkpoint_is_refused_with_advice(tmp_path: Path, save: Any) -> None:
    path = save(tmp_path / "w", {"state_dict": {"w": 1}, "epoch": 3})
    with pytest.raises(WeightsError, match=r"'state_dict' is a dict, .* state dict alone"):
        read_weights(path)


@BOTH
@pytest.mark.usefixtures("torch_names")
def test_every_truncation_of_a_torch_file_is_refused(tmp_path: Path, save: Any) -> None:
    state = {"w": Tensor("0", np.arange(12, dtype="<f4"), 0, (12,), 1)}
    whole = save(tmp_path / "w", state).read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(WeightsError) as error:
            read_weights(tmp_path / "cut")
        one_line(error)


@pytest.mark.usefixtures("torch_names")
def test_a_big_endian_torch_file_is_refused(tmp_path: Path) -> None:
    path = write_legacy(tmp_path / "w", {}, {"little_endian": False})
    with pytest.raises(WeightsError, match="big-endian"):
        read_weights(path)


@pytest.mark.usefixtures("torch_names")
def test_a_compressed_torch_file_is_refused(tmp_path: Path) -> None:
    state = {"w": Tensor("0", np.zeros(10**6, "<f4"), 0, (10**6,), 1)}
    path = write_zip(tmp_path / "w", state, zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="compressed members"):
        read_weights(path)


def test_a_zip_that_is_no_torch_file_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(WeightsError, match=r"not a PyTorch file \(it has no data.pkl\)"):
        read_weights(tmp_path / "w")


@pytest.mark.parametrize("name", ["EfficientNetLite0", "EfficientNetLite1", "EfficientNetLite2"])
def test_real_torch_weights_fit_the_network_name_by_name(
    name: str, registry_weights: Callable[[str], Path]
) -> None:
    weights = read_weights(registry_weights(name))
    state = zoo.build(name).state_dict()
    assert list(weights) == list(state)
    assert [array.shape for array in weights.values()] == [tuple(t.shape) for t in state.values()]


# Into a network.


@pytest.fixture
def tiny() -> Any:
    return zoo.build("PPHGNet_tiny", 10)


@pytest.fixture
def good(tiny: Any) -> dict[str, np.ndarray]:
    """Weights that fit `tiny`, all of them different from what it was built with."""
    return {name: tensor.numpy() + 1 for name, tensor in tiny.state_dict().items()}


def test_weights_that_fit_are_loaded(tiny: Any, good: dict[str, np.ndarray]) -> None:
    load_into(tiny, good, "good")
    for name, tensor in tiny.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), good[name])


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions_are_loaded_as_float32(
    tiny: Any, good: dict[str, np.ndarray], dtype: str
) -> None:
    load_into(tiny, {name: array.astype(dtype) for name, array in good.items()}, "half")
    for name, tensor in tiny.state_dict().items():
        assert tensor.dtype == paddle.float32
        np.testing.assert_array_equal(tensor.numpy(), good[name].astype(dtype).astype("float32"))


def test_bfloat16_as_paddle_saves_it_is_widened(tiny: Any, tmp_path: Path) -> None:
    half = {name: tensor.astype("bfloat16") for name, tensor in tiny.state_dict().items()}
    paddle.save(half, str(tmp_path / "w"))
    expected = {name: tensor.astype("float32").numpy() for name, tensor in half.items()}
    load_into(tiny, read_weights(tmp_path / "w"), "w")
    for name, tensor in tiny.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), expected[name])


def test_differences_are_counted_and_named_in_one_line(
    tiny: Any, good: dict[str, np.ndarray]
) -> None:
    before = tiny.state_dict()["fc.bias"].numpy()
    for index in range(5):
        del good[f"stages.0.blocks.0.layers.{index}.conv.weight"]
    good["head.weight"] = W
    good["stem.0.bn.bias"] = np.zeros(7, np.float32)
    with pytest.raises(WeightsError) as error:
        load_into(tiny, good, "w.pdparams")
    message = one_line(error)
    assert message.startswith("w.pdparams: does not fit PPHGNet: 5 missing: stages.0.blocks.0")
    assert "layers.2.conv.weight, ...; 1 unexpected: head.weight; 1 of another shape: " in message
    assert "stem.0.bn.bias [7] (expected [48])" in message
    np.testing.assert_array_equal(tiny.state_dict()["fc.bias"].numpy(), before)


def test_another_number_of_classes_is_explained(tiny: Any) -> None:
    weights = {n: t.numpy() for n, t in zoo.build("PPHGNet_tiny", 7).state_dict().items()}
    with pytest.raises(WeightsError, match=r"have 7 classes .* built for 10: set num_classes to 7"):
        load_into(tiny, weights, "w")


def test_weights_of_another_architecture_are_recognised(tiny: Any) -> None:
    weights = {n: t.numpy() for n, t in zoo.build("PPHGNet_small").state_dict().items()}
    with pytest.raises(WeightsError, match="these are the weights of PPHGNet_small") as error:
        load_into(tiny, weights, "w")
    one_line(error)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(
    tiny: Any, good: dict[str, np.ndarray], bad: float
) -> None:
    good["stem.1.conv.weight"].flat[3] = bad
    with pytest.raises(WeightsError, match=r"w: 'stem.1.conv.weight' has 1 values that are NaN"):
        load_into(tiny, good, "w")


def test_a_weight_beyond_float32_is_refused(tiny: Any, good: dict[str, np.ndarray]) -> None:
    good["fc.bias"] = np.full(10, 1e300)
    with pytest.raises(WeightsError, match=r"'fc.bias' has 10 values that are NaN or infinite"):
        load_into(tiny, good, "w")


def test_integers_are_no_weights(tiny: Any, good: dict[str, np.ndarray]) -> None:
    good["fc.bias"] = np.zeros(10, np.int64)
    with pytest.raises(WeightsError, match=r"'fc.bias' has dtype int64, expected floating point"):
        load_into(tiny, good, "w")
