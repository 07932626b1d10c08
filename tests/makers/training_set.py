# SPDX-License-Identifier: Apache-2.0
"""A few small images of three colours, and a config that trains a tiny network on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from hgdeploy.paddleclas.training.config import load_training_config
from hgdeploy.paddleclas.training.recipe import read_recipe
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.training.journal import OnEvent
from hgdeploy.training.recipe import Recipe
from hgdeploy.training.session import train

CLASSES = 3
_NORMALIZE = {
    "NormalizeImage": {
        "scale": "1.0/255.0",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "order": "",
    }
}
_DECODE = {"DecodeImage": {"to_rgb": True, "channel_first": False}}


def write_images(folder: Path, train: int = 24, held_out: int = 12) -> None:
    """Write `train.txt` and `val.txt` with their images, whose colour is their class."""
    rng = np.random.default_rng(0)
    for name, count in (("train", train), ("val", held_out)):
        (folder / name).mkdir(parents=True)
        lines = []
        for index in range(count):
            pixels = rng.integers(0, 80, (36, 36, 3)).astype(np.uint8)
            pixels[..., index % CLASSES] += 150
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
            lines.append(f"{name}/{index}.png {index % CLASSES}\n")
        (folder / f"{name}.txt").write_text("".join(lines))


def training_config(**settings: Any) -> dict[str, Any]:
    """Return PaddleClas's PPHGNet_tiny.yaml in small, for the images in `set`.

    Args:
        **settings: keys of `Global`.
    """
    return {
        "Global": {
            "checkpoints": None, "pretrained_model": None, "output_dir": "./output/",
            "device": "cpu", "save_interval": 100, "eval_during_train": True, "eval_interval": 1,
            "epochs": 2, "print_batch_step": 1, "use_visualdl": False, "image_shape": [3, 32, 32],
            "save_inference_dir": "./inference", "to_static": False, "use_dali": False, "seed": 1,
            **settings,
        },
        "Arch": {"name": "PPLCNet_x0_25", "class_num": CLASSES},
        "Loss": {
            "Train": [{"CELoss": {"weight": 1.0, "epsilon": 0.1}}],
            "Eval": [{"CELoss": {"weight": 1.0}}],
        },
        "Optimizer": {
            "name": "Momentum", "momentum": 0.9,
            "lr": {"name": "Cosine", "learning_rate": 0.05, "warmup_epoch": 1},
            "regularizer": {"name": "L2", "coeff": 0.00004},
        },
        "DataLoader": {
            "Train": _section(
                "train",
                [_DECODE, {"RandCropImage": {"size": 32}}, {"RandFlipImage": None}, _NORMALIZE],
                {
                    "batch_transform_ops": [
                        {
                            "OpSampler": {
                                "MixupOperator": {"alpha": 0.2, "prob": 0.5},
                                "CutmixOperator": {"alpha": 1.0, "prob": 0.5},
                            }
                        }
                    ]
                },
            ),
            "Eval": _section(
                "val", [_DECODE, {"ResizeImage": {"size": 32}}, _NORMALIZE], {}
            ),
        },
        "Infer": {
            "infer_imgs": "set/val", "batch_size": 4,
            "transforms": [
                _DECODE, {"ResizeImage": {"size": 32}}, _NORMALIZE, {"ToCHWImage": None}
            ],
            "PostProcess": {"name": "Topk", "topk": 1},
        },
        "Metric": {
            "Train": [{"TopkAcc": {"topk": [1, 2]}}], "Eval": [{"TopkAcc": {"topk": [1, 2]}}]
        },
    }  # fmt: skip


def distillation_config(teacher: str, weights: str, student: str) -> dict[str, Any]:
    """Return a config with which a student learns from a teacher, as PaddleClas's SSLD does."""
    config = training_config()
    networks = [
        {"Teacher": {"name": teacher, "class_num": CLASSES, "pretrained": weights}},
        {"Student": {"name": student, "class_num": CLASSES, "pretrained": False}},
    ]
    config["Arch"] = {
        "name": "DistillationModel", "class_num": CLASSES, "pretrained_list": None,
        "freeze_params_list": [True, False], "models": networks, "infer_model_name": "Student",
    }  # fmt: skip
    pairs = {"weight": 1.0, "model_name_pairs": [["Student", "Teacher"]]}
    config["Loss"]["Train"] = [{"DistillationCELoss": pairs}]
    config["Metric"]["Eval"] = [{"DistillationTopkAcc": {"model_key": "Student", "topk": [1, 2]}}]
    return config


def _section(name: str, ops: list[Any], more: dict[str, Any]) -> dict[str, Any]:
    dataset = {
        "name": "ImageNetDataset",
        "image_root": "./set/",
        "cls_label_path": f"./set/{name}.txt",
        "transform_ops": ops,
        **more,
    }
    sampler = {"name": "DistributedBatchSampler", "batch_size": 8, "shuffle": name == "train"}
    return {
        "dataset": dataset,
        "sampler": {**sampler, "drop_last": False},
        "loader": {"num_workers": 0, "use_shared_memory": True},
    }


def write_config(config: dict[str, Any], path: Path) -> Path:
    """Write a config as YAML."""
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def recipe_of(config: dict[str, Any], *overrides: str, on_warning: OnLine = nothing) -> Recipe:
    """Return the recipe of a config in the current folder, as the command line reads it."""
    path = write_config(config, Path("config.yaml"))
    return read_recipe(load_training_config(path, overrides), on_warning)


def run_training(
    config: dict[str, Any],
    *overrides: str,
    on_event: OnEvent = lambda _: None,
    on_warning: OnLine = nothing,
) -> list[dict[str, Any]]:
    """Train in the current folder; return all events that the journal then has."""
    recipe = recipe_of(config, *overrides, on_warning=on_warning)
    train(recipe, on_event, on_warning)
    return events(recipe.output)


def events(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Return the events in a training's journal, of one kind or of all."""
    found = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [event for event in found if kind in (None, event["event"])]


def curve(told: list[dict[str, Any]]) -> list[tuple[int, int, float]]:
    """Return epoch, batch and loss of each step."""
    return [(e["epoch"], e["batch"], e["loss"]) for e in told if e["event"] == "step"]
