# SPDX-License-Identifier: Apache-2.0
"""Batches of training images: the same for the same seed, and whatever the files are."""

from __future__ import annotations

import gc
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from loader_sections import loader_section, pphgnet_loader, write_images, write_list

from conftest import children
from hgdeploy.errors import InputError
from hgdeploy.images.reader import ImageReader
from hgdeploy.training.data import DataOptions, TrainingData
from hgdeploy.transforms.operators import ToCHWImage
from hgdeploy.transforms.operators_config import parse_ops

CHILD = "hgdeploy.training.data.crew_child"
MIX = [{"OpSampler": {"MixupOperator": {"prob": 0.5}, "CutmixOperator": {"prob": 0.5}}}]


@pytest.fixture
def ten(tmp_path):
    """The section for ten images of three classes."""
    listed = write_list(tmp_path, {f"{n}.png": n % 3 for n in range(10)})
    return loader_section(tmp_path, listed)


def opened(section: dict, **options) -> TrainingData:
    return TrainingData.from_config(section, DataOptions(**options))


def bits(batches) -> list[tuple]:
    return [
        (batch.number, batch.paths, batch.images.tobytes(), batch.labels.tobytes())
        for batch in batches
    ]


def test_workers_change_nothing(ten):
    ten["dataset"]["batch_transform_ops"] = MIX
    alone, together = (opened(ten, workers=workers) for workers in (0, 2))
    for epoch in range(2):  # the second with the processes of the first
        batches = bits(alone.epoch(epoch))
        assert bits(together.epoch(epoch)) == batches
        assert [batch[0] for batch in batches] == [0, 1, 2]
    together.close()
    assert not children(CHILD)


def test_a_process_that_dies_is_replaced_and_no_image_is_lost(ten):
    data = opened(ten, workers=1)
    batches = data.epoch(0)
    first = next(batches)
    (child,) = children(CHILD)
    os.kill(child, signal.SIGKILL)
    assert bits([first, *batches]) == bits(opened(ten, workers=0).epoch(0))
    assert bits(data.epoch(1)) == bits(opened(ten, workers=0).epoch(1))
    assert data.skipped == {}
    data.close()


def test_the_seed_and_the_epoch_decide_everything(ten):
    ten["dataset"]["batch_transform_ops"] = MIX

    def drawn(seed: int, epoch: int) -> list:
        return bits(opened(ten, seed=seed, workers=0).epoch(epoch))

    assert drawn(1, 0) == drawn(1, 0)
    assert len({repr(drawn(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    data = opened(ten, workers=0)
    list(data.epoch(0))
    assert bits(data.epoch(1)) == bits(opened(ten, workers=0).epoch(1))


def test_a_resumed_epoch_goes_on_with_the_same_batches(ten):
    ten["dataset"]["batch_transform_ops"] = MIX
    data = opened(ten, workers=1)
    unbroken = bits(opened(ten, workers=0).epoch(5))
    assert bits(data.epoch(5, skip=2)) == unbroken[2:]
    assert bits(data.epoch(5, skip=3)) == []
    data.close()


def test_an_image_is_augmented_alike_whatever_batch_it_is_in(ten):
    def by_path(batch_size: int, ranks: int) -> dict[str, bytes]:
        ten["sampler"]["batch_size"] = batch_size
        return {
            path: image.tobytes()
            for rank in range(ranks)
            for batch in opened(ten, rank=rank, ranks=ranks, workers=0).epoch(1)
            for path, image in zip(batch.paths, batch.images, strict=True)
        }

    assert by_path(4, 1) == by_path(3, 1) == by_path(2, 2)


def test_every_rank_has_as_many_batches_and_together_they_have_all_images(ten):
    ranks = [opened(ten, rank=rank, ranks=3, workers=0) for rank in range(3)]
    epochs = [list(data.epoch(0)) for data in ranks]
    assert [len(data) for data in ranks] == [len(epoch) for epoch in epochs] == [1, 1, 1]
    indices = np.concatenate([batch.indices for epoch in epochs for batch in epoch])
    assert sorted(set(indices.tolist())) == list(range(10))
    assert len(indices) == 12


def test_a_broken_image_is_left_out_named_once_and_nothing_takes_its_place(ten, tmp_path):
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:60])
    (tmp_path / "7.png").unlink()
    warnings: list[str] = []
    data = opened(ten, workers=1, on_warning=warnings.append)
    for epoch in range(2):
        paths = [path for batch in data.epoch(epoch) for path in batch.paths]
        assert sorted(paths) == [str(tmp_path / f"{n}.png") for n in range(10) if n not in (4, 7)]
    assert data.skipped == {
        str(tmp_path / "4.png"): "is truncated (PNG)",
        str(tmp_path / "7.png"): "does not exist",
    }
    assert sorted(warnings) == [
        "'4.png' is truncated (PNG); it is left out",
        "'7.png' does not exist; it is left out",
    ]


def test_a_batch_without_a_readable_image_is_empty_so_that_ranks_keep_step(ten, tmp_path):
    ten["sampler"]["shuffle"] = False
    ten["dataset"]["batch_transform_ops"] = MIX
    for number in range(4, 8):
        (tmp_path / f"{number}.png").write_bytes(b"")
    full, empty, last = opened(ten, classes=5, workers=0).epoch(0)
    assert (len(full), len(empty), len(last)) == (4, 0, 2)
    assert empty.images.shape == (0, 3, 16, 16)
    assert empty.labels.shape == (0, 5)


def test_a_folder_without_its_images_stops_the_run(ten, tmp_path):
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match=r"^10 of the first 10 images of epoch 3 cannot be read; "):
        list(opened(ten, workers=0).epoch(2))
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{n}.png 0\n" for n in range(2000)), encoding="utf-8")
    with pytest.raises(InputError, match=r"^100 of the first 100 .* does not exist$"):
        list(opened(ten, workers=0).epoch(0))


def test_who_stops_in_the_middle_leaves_nothing_running(ten):
    data = opened(ten, workers=1)
    batches = data.epoch(0)
    next(batches)
    batches.close()
    assert bits(data.epoch(1)) == bits(opened(ten, workers=0).epoch(1))
    del data, batches
    gc.collect()
    assert not children(CHILD)
    assert not [t for t in threading.enumerate() if t.name.startswith("hgdeploy")]


# Labels


def test_labels_are_ids_or_parts_of_classes_where_images_are_mixed(ten):
    data = opened(ten, classes=5, workers=0)
    batch = next(data.epoch(0))
    assert (data.classes, data.samples, data.soft, len(data)) == (5, 10, False, 3)
    assert batch.labels.dtype == np.int64
    names = [int(path.rpartition("/")[2][:-4]) % 3 for path in batch.paths]
    assert batch.labels.tolist() == names
    ten["dataset"]["batch_transform_ops"] = [{"OpSampler": {"MixupOperator": {"prob": 0.0}}}]
    data = opened(ten, classes=5, workers=0)
    assert data.soft
    np.testing.assert_array_equal(next(data.epoch(0)).labels, np.eye(5)[names])


def test_several_labels_are_zeros_and_ones(tmp_path):
    listed = write_list(tmp_path, {"a.png": "1,0,1", "b.png": "0,0,1"}, "\t")
    section = loader_section(tmp_path, listed, name="MultiLabelDataset", label_ratio=True)
    section["sampler"]["shuffle"] = False
    data = opened(section, classes=3, workers=0)
    (batch,) = data.epoch(0)
    assert data.soft
    np.testing.assert_array_equal(batch.labels, np.float32([[1, 0, 1], [0, 0, 1]]))
    np.testing.assert_array_equal(data.label_ratio, np.float32([0.5, 0, 1]))


def test_paths_with_spaces_and_other_delimiters(tmp_path):
    for delimiter, configured in (
        *((" ", None), ("\t", None), (",", ","), (";;", ";;")),
        ("\t", r"\t"),  # a shell hands the two characters on
    ):
        listed = write_list(tmp_path, {"a b.png": 1, "c  d e.png": 0}, delimiter)
        section = loader_section(tmp_path, listed, delimiter=configured)
        data = opened(section, workers=0)
        labels = {p: int(y) for b in data.epoch(0) for p, y in zip(b.paths, b.labels, strict=True)}
        assert labels == {str(tmp_path / "a b.png"): 1, str(tmp_path / "c  d e.png"): 0}


def test_names_in_a_list_are_numbered_in_alphabetical_order(tmp_path):
    listed = write_list(tmp_path, {"a.png": "tabby cat", "b.png": "hen", "c.png": "hen"}, "\t")
    data = opened(loader_section(tmp_path, listed), workers=0)
    assert data.names == {0: "hen", 1: "tabby cat"}
    labels = [int(y) for b in data.epoch(0) for _, y in sorted(zip(b.paths, b.labels, strict=True))]
    assert labels == [1, 0, 0]


def test_a_folder_for_each_class_and_the_same_numbers_for_the_evaluation(tmp_path):
    write_images(tmp_path / "train", ["hen/1.png", "cat/2.png", "dog/3.png", "cat/x/4.png"])
    write_images(tmp_path / "val", ["dog/5.png"])
    train = opened(loader_section(tmp_path / "train", None), workers=0)
    assert (train.names, train.classes, train.samples) == ({0: "cat", 1: "dog", 2: "hen"}, 3, 4)
    section = {**pphgnet_loader("tiny")["Eval"]}
    section["dataset"] |= {"image_root": str(tmp_path / "val"), "cls_label_path": None}
    options = {"training": False, "names": train.names, "classes": 3}
    (batch,) = opened(section, workers=0, **options).epoch(0)
    assert batch.labels.tolist() == [1]


@pytest.mark.parametrize("written", [None, "null", "~", ""])
def test_no_list_however_it_is_written_is_a_folder_for_each_class(tmp_path, written):
    write_images(tmp_path, ["hen/1.png", "cat/2.png"])
    section = loader_section(tmp_path, None)
    section["dataset"]["cls_label_path"] = written
    assert opened(section, workers=0).names == {0: "cat", 1: "hen"}


def test_folders_that_are_class_ids_are_these(tmp_path):
    write_images(tmp_path, ["10/1.png", "2/2.png"])
    data = opened(loader_section(tmp_path, None), workers=0)
    assert (data.names, data.classes) == (None, 11)


@pytest.mark.parametrize(
    ("labels", "delimiter", "classes", "words"),
    [
        ({"a.png": 0, "b.png": 7}, " ", 5, "'b.png' has class 7, and the network 5 classes"),
        ({"a.png": 0, "b.png": "cat"}, " ", 5, "line 2: 'b.png cat' is not 'PATH LABEL'"),
        ({"a.png": "cat", "b.png": 3}, " ", 5, "some classes have names, such as 'cat'"),
        ({"a.png": ""}, " ", 5, "line 1: 'a.png ' is not 'PATH LABEL'"),
        ({}, " ", 5, "names no labelled images"),
    ],
)
def test_a_wrong_list_is_one_line(tmp_path, labels, delimiter, classes, words):
    listed = write_list(tmp_path, labels, delimiter)
    with pytest.raises(InputError) as caught:
        opened(loader_section(tmp_path, listed), classes=classes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_multi_label_list_is_one_line(tmp_path):
    for labels, words in (("1,-1", "has a label of -1"), ("1,0,1", "3 labels for each image")):
        listed = write_list(tmp_path, {"a.png": labels}, "\t")
        section = loader_section(tmp_path, listed, name="MultiLabelDataset")
        with pytest.raises(InputError, match=words):
            opened(section, classes=2)


def test_an_empty_class_folder_and_no_folder_are_refused(tmp_path):
    write_images(tmp_path, ["hen/1.png"])
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError, match="the class 'cat' has no images"):
        opened(loader_section(tmp_path, None))
    with pytest.raises(InputError, match=r"folder .*/nowhere does not exist"):
        opened(loader_section(tmp_path / "nowhere", None))


def test_an_evaluation_sees_what_a_deployed_model_sees(tmp_path):
    listed = write_list(tmp_path, {"a.png": 0, "b.jpg": 1})
    section = pphgnet_loader("base")["Eval"]
    section["dataset"] |= {"image_root": str(tmp_path), "cls_label_path": str(listed)}
    (batch,) = opened(section, training=False, workers=0).epoch(0)
    ops = parse_ops(section["dataset"]["transform_ops"], "ops")
    reader = ImageReader((*ops, ToCHWImage()))
    for path, image in zip(batch.paths, batch.images, strict=True):
        np.testing.assert_array_equal(image, reader.read_file(Path(path)).tensor)
