# SPDX-License-Identifier: Apache-2.0
"""Small data sets, and the `DataLoader` of PaddleClas's PPHGNet recipes for them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

# ppcls/configs/ImageNet/PPHGNet/PPHGNet_{tiny,small,base}.yaml differ in the words in braces alone.
_RECIPE = """
Train:
  dataset:
    name: ImageNetDataset
    image_root: ./dataset/ILSVRC2012/
    cls_label_path: ./dataset/ILSVRC2012/train_list.txt
    transform_ops:
      - DecodeImage:
          to_rgb: True
          channel_first: False
      - RandCropImage:
          size: 224
          interpolation: bicubic
          backend: pil
      - RandFlipImage:
          flip_code: 1
      - TimmAutoAugment:
          config_str: rand-m{magnitude}-mstd0.5-inc1
          interpolation: bicubic
          img_size: 224
      - NormalizeImage:
          scale: 1.0/255.0
          mean: [0.485, 0.456, 0.406]
          std: [0.229, 0.224, 0.225]
          order: ''
      - RandomErasing:
          EPSILON: {erasing}
          sl: 0.02
          sh: 1.0/3.0
          r1: 0.3
          attempt: 10
          use_log_aspect: True
          mode: pixel
    batch_transform_ops:
      - OpSampler:
          MixupOperator:
            alpha: {alpha}
            prob: 0.5
          CutmixOperator:
            alpha: 1.0
            prob: 0.5
  sampler:
    name: DistributedBatchSampler
    batch_size: 128
    drop_last: False
    shuffle: True
  loader:
    num_workers: 16
    use_shared_memory: True
Eval:
  dataset:
    name: ImageNetDataset
    image_root: ./dataset/ILSVRC2012/
    cls_label_path: ./dataset/ILSVRC2012/val_list.txt
    transform_ops:
      - DecodeImage:
          to_rgb: True
          channel_first: False
      - ResizeImage:
          resize_short: {short}
          interpolation: bicubic
          backend: pil
      - CropImage:
          size: 224
      - NormalizeImage:
          scale: 1.0/255.0
          mean: [0.485, 0.456, 0.406]
          std: [0.229, 0.224, 0.225]
          order: ''
  sampler:
    name: DistributedBatchSampler
    batch_size: 128
    drop_last: False
    shuffle: False
  loader:
    num_workers: 16
    use_shared_memory: True
"""
_OWN = {
    "tiny": {"magnitude": 7, "erasing": 0.25, "alpha": 0.2, "short": 232},
    "small": {"magnitude": 7, "erasing": 0.25, "alpha": 0.2, "short": 236},
    "base": {"magnitude": 15, "erasing": 0.4, "alpha": 0.4, "short": 236},
}


def pphgnet_loader(size: str) -> dict[str, Any]:
    """Return the `DataLoader` of PPHGNet_tiny, _small or _base, as PaddleClas has it."""
    return yaml.safe_load(_RECIPE.format(**_OWN[size]))


def loader_section(
    root: Path, listed: Path | None, side: int = 16, batch: int = 4, **dataset: Any
) -> dict[str, Any]:
    """Return `DataLoader.Train` of PPHGNet_tiny for small images without what mixes batches."""
    section = copy.deepcopy(pphgnet_loader("tiny")["Train"])
    section["dataset"] |= {"image_root": str(root), "cls_label_path": listed and str(listed)}
    del section["dataset"]["batch_transform_ops"]
    section["dataset"]["transform_ops"][1]["RandCropImage"]["size"] = side
    section["sampler"]["batch_size"] = batch
    section["dataset"] |= dataset
    return section


def write_images(folder: Path, names: Mapping[str, int] | list[str]) -> None:
    """Write a picture of 24 x 20 of smooth colours under each name; folders are made."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(sum(name.encode()))
        picture = cv2.resize(rng.integers(0, 255, (4, 5, 3), np.uint8), (24, 20))
        path.write_bytes(cv2.imencode(path.suffix, picture)[1].tobytes())


def write_list(folder: Path, labels: Mapping[str, object], delimiter: str = " ") -> Path:
    """Write images with a list of their labels beside them; return the list."""
    write_images(folder, list(labels))
    listed = folder / "list.txt"
    lines = [f"{name}{delimiter}{label}\n" for name, label in labels.items()]
    listed.write_text("".join(lines), encoding="utf-8")
    return listed
