# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST as image files and lists, and the config to train on them; see chain.py."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hgdeploy.system.files import write_text

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
HELD_OUT = 0.1  # of the training images, for choosing the best epoch and for calibration
_EVAL_BATCH = 64


@dataclass(frozen=True)
class Recipe:
    """How the network is trained.

    Attributes:
        network: its name in the zoo.
        size: pixels of an image's side.
        images: training images, the first of the data set; None for all.
        epochs: how often each is seen.
        batch: images a step.
        rate: the highest learning rate.
        warmup: epochs in which it rises.
        workers: processes that read images.
    """

    network: str = "PPHGNet_tiny"
    size: int = 32
    images: int | None = None
    epochs: int = 2
    batch: int = 32
    rate: float = 0.05
    warmup: int = 0
    workers: int = 1


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of unsigned bytes (Y. LeCun's format of MNIST), perhaps gzipped."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    kind, axes = data[2], data[3]
    if kind != 8:
        raise SystemExit(f"{path} has values of kind {kind}, expected unsigned bytes (8)")
    shape = np.frombuffer(data, ">u4", axes, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def find_idx(data: Path, part: str, what: str) -> np.ndarray:
    """Read one of the four files of the data set."""
    for name in (f"{part}-{what}-ubyte.gz", f"{part}-{what}-ubyte"):
        if (data / name).is_file():
            return read_idx(data / name)
    raise SystemExit(
        f"{data} has no {part}-{what}-ubyte.gz; apt-get install dataset-fashion-mnist, or name the "
        "folder with --data"
    )


def write_images(data: Path, folder: Path, count: int | None) -> None:
    """Write the images as PNG files, and lists of them: train.txt, val.txt and test.txt."""
    if (folder / "labels.txt").is_file():
        return
    parts = {}
    for part, name in (("train", "train"), ("t10k", "test")):
        pixels, labels = find_idx(data, part, "images-idx3"), find_idx(data, part, "labels-idx1")
        kept = len(labels) if count is None or name == "test" else min(count, len(labels))
        (folder / name).mkdir(parents=True, exist_ok=True)
        lines = []
        for number in range(kept):
            place = f"{name}/{number:05d}.png"
            Image.fromarray(pixels[number]).save(folder / place)
            lines.append(f"{place} {labels[number]}\n")
        parts[name] = lines
    held = round(len(parts["train"]) * HELD_OUT)
    lists = {"train": parts["train"][held:], "val": parts["train"][:held], "test": parts["test"]}
    for name, lines in lists.items():
        write_text(folder / f"{name}.txt", "".join(lines))
    write_text(folder / "calibration.txt", "".join(f"{line.split()[0]}\n" for line in lists["val"]))
    write_text(folder / "labels.txt", "".join(f"{i} {name}\n" for i, name in enumerate(CLASSES)))


def config_of(work: Path, recipe: Recipe) -> dict[str, Any]:
    """Return the training config, as PaddleClas would have it."""
    size = recipe.size
    normalize = {
        "NormalizeImage": {"scale": "1.0/255.0", "mean": [0.5] * 3, "std": [0.5] * 3, "order": ""}
    }
    decode = {"DecodeImage": {"to_rgb": True, "channel_first": False}}
    resize = {"ResizeImage": {"size": size, "interpolation": "bilinear"}}
    train = [decode, resize, {"RandFlipImage": {"flip_code": 1}}, normalize]

    def loader(name: str, ops: list[Any], batch: int, *, shuffle: bool) -> dict[str, Any]:
        images, sampler = work / "images", {"name": "DistributedBatchSampler", "batch_size": batch}
        listed = {"image_root": f"{images}", "cls_label_path": f"{images / name}.txt"}
        return {
            "dataset": {"name": "ImageNetDataset", **listed, "transform_ops": ops},
            "sampler": {**sampler, "drop_last": shuffle, "shuffle": shuffle},
            "loader": {"num_workers": recipe.workers, "use_shared_memory": False},
        }

    rate = {"name": "Cosine", "learning_rate": recipe.rate, "warmup_epoch": recipe.warmup}
    return {
        "Global": {
            "output_dir": str(work / "output"),
            "device": "cpu",
            "epochs": recipe.epochs,
            "seed": 0,
            "eval_during_train": True,
            "eval_interval": 1,
            "save_interval": 1,
            "print_batch_step": 10,
            "image_shape": [3, size, size],
            "save_inference_dir": str(work / "bundle"),
        },
        "Arch": {"name": recipe.network, "class_num": len(CLASSES)},
        "Loss": {
            "Train": [{"CELoss": {"weight": 1.0, "epsilon": 0.1}}],
            "Eval": [{"CELoss": {"weight": 1.0}}],
        },
        "Optimizer": {
            "name": "Momentum",
            "momentum": 0.9,
            "lr": rate,
            "regularizer": {"name": "L2", "coeff": 4e-5},
        },
        "DataLoader": {
            "Train": loader("train", train, recipe.batch, shuffle=True),
            "Eval": loader("val", [decode, resize, normalize], _EVAL_BATCH, shuffle=False),
        },
        "Infer": {
            "infer_imgs": str(work / "images" / "test"),
            "batch_size": 8,
            "transforms": [decode, resize, normalize, {"ToCHWImage": None}],
            "PostProcess": {
                "name": "Topk",
                "topk": 5,
                "class_id_map_file": str(work / "images" / "labels.txt"),
            },
        },
        "Metric": {
            "Train": [{"TopkAcc": {"topk": [1, 5]}}],
            "Eval": [{"TopkAcc": {"topk": [1, 5]}}],
        },
    }
