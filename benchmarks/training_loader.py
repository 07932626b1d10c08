# SPDX-License-Identifier: Apache-2.0
"""Measure how fast training images are loaded, and whether a network in training waits for them.

python benchmarks/training_loader.py --output benchmarks/results/training-loader.json

The images are JPEG files of 500 x 375, the recipe is PPHGNet_tiny's with all of its random
operators. Measured are the loader alone, the network alone on synthetic tensors (forward, backward
and the step of the optimizer, on this CPU), and both together: the share is their speed divided by
that of the slower one alone. A third pair stands for an accelerator that is just as fast as the
loader: it computes nothing, and waits as long as the loading of a batch takes.

With `--paddleclas WHEEL`, PaddleClas's own operators read the same files on one core, as one of its
workers does, beside ours without workers. PaddleClas's package has none of this code; the wheel of
paddlex 2.1.0 (Apache-2.0) carries it, and it needs six and scipy:
pip download --no-deps paddlex==2.1.0; pip install six scipy
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy" / "python"))

import numpy as np
from folder import photographs

from hgdeploy import zoo
from hgdeploy.benchmark.machine import describe_environment
from hgdeploy.system.files import write_text
from hgdeploy.system.machine import available_cpus
from hgdeploy.training.data import Batch, DataOptions, TrainingData
from hgdeploy.training.ranks import use_device

CLASSES = 1000
SIDE = 224
_MIX = {"MixupOperator": {"alpha": 0.2, "prob": 0.5}, "CutmixOperator": {"alpha": 1.0, "prob": 0.5}}
# PPHGNet_tiny.yaml of PaddleClas.
OPS: list[dict[str, dict[str, Any]]] = [
    {"DecodeImage": {"to_rgb": True, "channel_first": False}},
    {"RandCropImage": {"size": SIDE, "interpolation": "bicubic", "backend": "pil"}},
    {"RandFlipImage": {"flip_code": 1}},
    {
        "TimmAutoAugment": {
            "config_str": "rand-m7-mstd0.5-inc1",
            "interpolation": "bicubic",
            "img_size": SIDE,
        }
    },
    {
        "NormalizeImage": {
            "scale": "1.0/255.0",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "order": "",
        }
    },
    {
        "RandomErasing": {
            "EPSILON": 0.25,
            "sl": 0.02,
            "sh": "1.0/3.0",
            "r1": 0.3,
            "attempt": 10,
            "use_log_aspect": True,
            "mode": "pixel",
        }
    },
]
Step = Callable[[Batch], object]


def loader(folder: Path, batch: int, workers: int) -> TrainingData:
    """Return the training data of a folder of JPEG files, with labels made up."""
    listed = folder.parent / "list.txt"
    names = sorted(path.name for path in folder.glob("*.jpg"))
    listed.write_text("".join(f"{name} {n % CLASSES}\n" for n, name in enumerate(names)))
    section = {
        "dataset": {
            "image_root": str(folder),
            "cls_label_path": str(listed),
            "transform_ops": OPS,
            "batch_transform_ops": [{"OpSampler": _MIX}],
        },
        "sampler": {"batch_size": batch, "shuffle": True, "drop_last": True},
    }
    return TrainingData.from_config(section, DataOptions(classes=CLASSES, workers=workers))


def endless(data: TrainingData) -> Iterator[Batch]:
    """Yield the batches of one epoch after the other."""
    for epoch in itertools.count():
        yield from data.epoch(epoch)


def rate(batches: Iterator[Batch], step: Step, seconds: float) -> float:
    """Return images a second of a step on each batch, after one that does not count."""
    step(next(batches))
    images, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        batch = next(batches)
        step(batch)
        images += len(batch)
    return images / (time.perf_counter() - start)


def network_step(model: str) -> Step:
    """Return a function that trains a network on a batch, with the CPUs as `hgdeploy train` has."""
    use_device("cpu")
    import paddle

    network = zoo.build(model, CLASSES)
    network.train()
    optimizer = paddle.optimizer.Momentum(0.01, 0.9, parameters=network.parameters())

    def step(batch: Batch) -> object:
        logits = network(paddle.to_tensor(batch.images))
        labels = paddle.to_tensor(batch.labels)
        loss = paddle.nn.functional.cross_entropy(logits, labels, soft_label=True)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        return float(loss)

    return step


def synthetic(batch: int) -> Iterator[Batch]:
    """Yield one batch of noise again and again."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, 3, SIDE, SIDE), np.float32)
    labels = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, batch)]
    noise = Batch(0, images, labels, ("",) * batch, np.arange(batch))
    return itertools.repeat(noise)


def nothing(_: Batch) -> None:
    """Stand for no network."""


def paddleclas_batches(wheel: Path, folder: Path, batch: int) -> Iterator[Batch]:
    """Read batches as a worker of PaddleClas does, by its own classes."""
    # Their `__init__` import all of PaddleClas, of which only the logger's name is used here.
    for name in ("ppcls", "ppcls.data", "ppcls.utils"):
        module = types.ModuleType(name)
        module.__path__ = [f"{wheel}/PaddleClas/{name.replace('.', '/')}"]
        module.__dict__["logger"] = None
        sys.modules[name] = module
    from ppcls.data import preprocess  # type: ignore[import-not-found]

    def made(parameters: Any, **more: Any) -> list[Any]:
        pairs = (next(iter(entry.items())) for entry in parameters)
        return [getattr(preprocess, name)(**values, **more) for name, values in pairs]

    ops = made(OPS)
    mix = made(json.loads(json.dumps([{"OpSampler": _MIX}])), class_num=CLASSES)
    files = sorted(folder.glob("*.jpg"))
    for start in itertools.count(0, batch):
        samples = []
        for index in range(start, start + batch):
            image: Any = files[index % len(files)].read_bytes()
            for op in ops:
                image = op(image)
            samples.append((image.transpose((2, 0, 1)), index % CLASSES))
        for op in mix:
            samples = op(samples)
        images = np.stack([image for image, _ in samples])
        labels = np.stack([label for _, label in samples])
        yield Batch(0, images, labels, ("",) * batch, np.arange(batch))


def measured(
    arguments: argparse.Namespace, folder: Path
) -> Iterator[tuple[str, Callable[[dict[str, float]], float]]]:
    """Yield each case's name, and what measures it, given the figures of its round so far."""
    size, seconds, workers = arguments.batch, arguments.seconds, arguments.workers
    alone = endless(loader(folder, size, workers))
    one_core = endless(loader(folder, size, 0))
    step = network_step(arguments.model)

    def accelerator(found: dict[str, float]) -> float:
        def wait(batch: Batch) -> None:
            time.sleep(len(batch) / found["loader"])

        return rate(alone, wait, seconds)

    yield "loader", lambda _: rate(alone, nothing, seconds)
    yield "network", lambda _: rate(synthetic(size), step, seconds)
    yield "both", lambda _: rate(alone, step, seconds)
    yield "both_accelerator", accelerator
    yield "loader_one_core", lambda _: rate(one_core, nothing, seconds)
    if arguments.paddleclas is not None:
        theirs = paddleclas_batches(arguments.paddleclas, folder, size)
        yield "paddleclas_one_core", lambda _: rate(theirs, nothing, seconds)


def shares(found: dict[str, float]) -> dict[str, float]:
    """Return the speed of both together by that of the slower one alone, and other quotients."""
    quotients = {
        "both_of_slower": found["both"] / min(found["loader"], found["network"]),
        "both_accelerator_of_slower": found["both_accelerator"] / found["loader"],
        "loader_of_one_core": found["loader"] / found["loader_one_core"],
    }
    if "paddleclas_one_core" in found:
        quotients["one_core_of_paddleclas"] = (
            found["loader_one_core"] / found["paddleclas_one_core"]
        )
    return quotients


def table(result: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    speed, share = result["images_per_s"], result["shares"]
    accelerator = "loader with an accelerator that takes as long as the loading"
    rows = {
        "loader alone": f"{speed['loader']:.0f}",
        "network alone, on synthetic tensors": f"{speed['network']:.1f}",
        "both together": f"{speed['both']:.1f} (share {share['both_of_slower']:.2f})",
        accelerator: (
            f"{speed['both_accelerator']:.0f} (share {share['both_accelerator_of_slower']:.2f})"
        ),
        "loader without processes, one core": f"{speed['loader_one_core']:.0f}",
    }
    if "paddleclas_one_core" in speed:
        rows["PaddleClas's own operators, one core"] = f"{speed['paddleclas_one_core']:.0f}"
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | images/s |", "|---|---:|", *lines])


def main() -> None:
    """Measure all cases in turns, and write the rounds with their medians, and print these."""
    parser = argparse.ArgumentParser(description="Measure the loading of training images.")
    parser.add_argument("--model", default="PPHGNet_tiny", metavar="NAME", help="the network")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="images a batch")
    parser.add_argument("--workers", type=int, default=available_cpus(), metavar="N")
    parser.add_argument("--images", type=int, default=1024, metavar="N", help="JPEG files")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--seconds", type=float, default=6.0, metavar="S", help="of each case")
    parser.add_argument("--paddleclas", type=Path, metavar="WHEEL", help="see above")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--output", type=Path, help="the results, as JSON")
    target.add_argument("--report", type=Path, help="measure nothing, and print these results")
    arguments = parser.parse_args()
    if arguments.report is not None:
        print(table(json.loads(arguments.report.read_text(encoding="utf-8"))))
        return
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = photographs(Path(scratch) / "images", (500, 375), arguments.images)
        cases = list(measured(arguments, folder))
        for number in range(arguments.rounds):
            found: dict[str, float] = {}
            for name, measure in cases:
                found[name] = measure(found)
                print(f"{number + 1}: {name} {found[name]:.1f} images/s", file=sys.stderr)
            rounds.append(found)
    kept = ("model", "batch", "workers", "images", "seconds")
    medians = _medians(rounds), _medians([shares(found) for found in rounds])
    result = {
        "schema": 1,
        "environment": describe_environment(),
        "settings": {"side": SIDE, **{key: getattr(arguments, key) for key in kept}},
        "images_per_s": medians[0],
        "shares": medians[1],
        "rounds": rounds,
    }
    write_text(arguments.output, json.dumps(result, indent=1) + "\n")
    print(table(result))


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}


if __name__ == "__main__":
    main()
