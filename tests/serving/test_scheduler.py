# SPDX-License-Identifier: Apache-2.0
"""A served model: every request gets its own answers, and what cannot be answered says why."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from image_files import jpeg, png_of_declared_size
from served import SETTINGS, pictures, served

from conftest import DEADLINE, require_engine
from hgdeploy.classify.batch import Answer, Image
from hgdeploy.classify.classifier import Classifier
from hgdeploy.errors import BundleError, ConfigError, EngineError, ResourceError
from hgdeploy.serving.server.model import ServedModel, ServedOptions
from hgdeploy.serving.server.models import Models
from hgdeploy.serving.server.refusals import RefusedError, Why
from hgdeploy.serving.server.scheduler import QueueOptions, Scheduler
from hgdeploy.transforms.prediction import Prediction

IMAGE = Image("x", lambda _: pytest.fail("is not read here"))


@pytest.fixture(autouse=True)
def _needs_onnxruntime():
    require_engine("onnxruntime")


def answers_of(futures: list[Future[Answer]]) -> list[Answer]:
    return [future.result(DEADLINE) for future in futures]


def blocked(**options: object) -> tuple[Scheduler, threading.Event, threading.Event, list[str]]:
    """A scheduler of one thread that waits in its first batch; the names that it worked off."""
    entered, leave, done = threading.Event(), threading.Event(), []

    def work(images):
        entered.set()
        assert leave.wait(DEADLINE)
        done.extend(image.name for image in images)
        return [Answer(Prediction(image.name, (), (), ()), None) for image in images]

    return Scheduler(work, QueueOptions(**options)), entered, leave, done


def named(*names: str) -> list[Image]:
    return [Image(name, IMAGE.read) for name in names]


@pytest.mark.parametrize("batch", [1, 4])
def test_requests_of_many_threads_never_get_one_anothers_answers(mini: Path, batch: int):
    files = [*pictures(12), b"no image", jpeg()[:300]]
    with Classifier(mini, settings=SETTINGS) as classifier:
        expected = list(classifier.predict(files))
    model = served(mini, batch, max_queue=4000, max_delay_ms=1.0 if batch > 1 else 0.0)
    reader = model.classifier.reader
    tensors = [reader.read_bytes(data).tensor for data in files[:12]]

    def ask(seed: int) -> None:
        choice = random.Random(seed)
        for _ in range(4):
            asked = choice.choices(range(len(files)), k=choice.randint(1, 7))
            images = [
                model.tensor(tensors[i])
                if i < 12 and choice.random() < 0.3
                else model.image(files[i])
                for i in asked
            ]
            for i, answer in zip(asked, answers_of(model.submit(images)), strict=True):
                found, wanted = answer.prediction, expected[i]
                assert (found.error, found.class_ids) == (wanted.error, wanted.class_ids)
                if batch == 1:
                    assert found.scores == wanted.scores
                else:  # an engine may compute another batch in another order
                    assert found.scores == pytest.approx(wanted.scores, abs=1e-5)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(ask, range(12)))
    assert model.scheduler.times.runs <= model.scheduler.times.images
    assert model.close()


def test_images_that_wait_share_an_inference():
    scheduler, entered, leave, _ = blocked(max_batch=4, max_delay_ms=0)
    first = scheduler.submit(named("first"))
    assert entered.wait(DEADLINE)
    rest = scheduler.submit(named(*"abcdef"))
    leave.set()
    assert [a.prediction.path for a in answers_of(first + rest)] == ["first", *"abcdef"]
    assert (scheduler.times.images, scheduler.times.runs) == (7, 3)
    assert scheduler.close(DEADLINE)


def test_an_image_waits_for_others_to_share_its_inference():
    scheduler, _, leave, _ = blocked(max_batch=2, max_delay_ms=60_000)
    leave.set()
    first = scheduler.submit(named("a"))
    answers_of(first + scheduler.submit(named("b")))
    assert (scheduler.times.images, scheduler.times.runs) == (2, 1)
    alone = scheduler.submit(named("c"))
    assert scheduler.close(DEADLINE)  # which nobody has to wait a minute for
    assert answers_of(alone)[0].prediction.path == "c"


def test_what_nobody_waits_for_costs_no_work():
    scheduler, entered, leave, done = blocked()
    first = scheduler.submit(named("first"))
    assert entered.wait(DEADLINE)
    late = scheduler.submit(named("late"), due=time.monotonic() + 0.01)
    (gone,) = scheduler.submit(named("gone"))
    kept = scheduler.submit(named("kept"))
    assert gone.cancel()
    time.sleep(0.02)
    leave.set()
    answers_of(first + kept)
    assert done == ["first", "kept"]
    with pytest.raises(RefusedError, match="timeout has passed") as refused:
        late[0].result(DEADLINE)
    assert refused.value.why is Why.LATE
    with pytest.raises(CancelledError):
        gone.result(DEADLINE)
    assert scheduler.close(DEADLINE)


def test_a_full_queue_takes_all_images_of_a_request_or_none():
    scheduler, entered, leave, done = blocked(max_queue=3)
    first = scheduler.submit(named("first"))
    assert entered.wait(DEADLINE)
    waiting = scheduler.submit(named("a", "b"))
    with pytest.raises(RefusedError, match="2 images wait already, at most 3 may") as refused:
        scheduler.submit(named("c", "d"))
    assert refused.value.why is Why.BUSY
    with pytest.raises(RefusedError, match="has 4 images, and at most 3 may wait") as refused:
        scheduler.submit(named(*"wxyz"))
    assert refused.value.why is Why.TOO_LARGE
    waiting[0].cancel()  # makes room
    later = scheduler.submit(named("c", "d"))
    leave.set()
    answers_of([*first, waiting[1], *later])
    assert done == ["first", "b", "c", "d"]
    assert scheduler.close(DEADLINE)


def test_closing_answers_what_waits_and_takes_no_more():
    scheduler, entered, leave, _ = blocked()
    futures = scheduler.submit(named(*"abc"))
    assert entered.wait(DEADLINE)
    assert not scheduler.close(0.01)  # no time: what has not begun is refused
    with pytest.raises(RefusedError, match="has ended"):
        futures[2].result(DEADLINE)
    leave.set()
    assert scheduler.close(DEADLINE)
    assert futures[0].result(DEADLINE).prediction.path == "a"
    with pytest.raises(RefusedError, match="takes no more requests") as refused:
        scheduler.submit(named("d"))
    assert refused.value.why is Why.CLOSING


def test_a_failing_engine_is_told_to_those_who_wait_and_the_thread_goes_on():
    failures = iter([EngineError("the GPU is gone"), None])

    def work(images):
        if error := next(failures):
            raise error
        return [Answer(Prediction("x", (), (), ()), None) for _ in images]

    scheduler = Scheduler(work, QueueOptions())
    with pytest.raises(EngineError, match="the GPU is gone"):
        answers_of(scheduler.submit(named("a")))
    assert len(answers_of(scheduler.submit(named("b")))) == 1
    assert scheduler.close(DEADLINE)


def test_one_image_that_fails_beyond_reason_fails_alone_in_its_batch():
    entered, leave = threading.Event(), threading.Event()

    def work(images):
        entered.set()
        assert leave.wait(DEADLINE)
        if any(image.name == "bad" for image in images):
            raise ResourceError("there is no memory")
        return [Answer(Prediction(image.name, (), (), ()), None) for image in images]

    scheduler = Scheduler(work, QueueOptions(max_batch=4))
    scheduler.submit(named("first"))
    assert entered.wait(DEADLINE)
    good, bad, other = scheduler.submit(named("good", "bad", "other"))
    leave.set()
    assert [a.prediction.path for a in answers_of([good, other])] == ["good", "other"]
    with pytest.raises(ResourceError, match="no memory"):
        bad.result(DEADLINE)
    assert scheduler.close(DEADLINE)


def test_pictures_beyond_the_limit_are_refused_before_they_are_decoded(mini: Path):
    model = served(mini, max_pixels=10_000)
    (answer,) = answers_of(model.submit([model.image(png_of_declared_size(101, 100))]))
    assert "has 10100 pixels (101x100), more than the limit of 10000" in answer.prediction.error
    assert model.close()


def test_models_are_found_by_name_and_version(mini: Path):
    models = Models()
    with pytest.raises(RefusedError, match="not ready") as refused:
        models.find("pphgnet_mini")
    assert refused.value.why is Why.CLOSING
    models.load([lambda: served(mini), lambda: served(mini)])
    assert models.ready
    assert models.names == ["pphgnet_mini"]
    assert models.versions("pphgnet_mini") == ["1", "2"]
    assert models.find()[0] == models.find("pphgnet_mini", "2")[0] == "2"
    for name, version in (("pphgnet_mono", None), ("pphgnet_mini", "3")):
        with pytest.raises(RefusedError) as refused:
            models.find(name, version)
        assert refused.value.why is Why.UNKNOWN
    model = models.find()[1]
    assert model.input.shape == (-1, 3, 64, 64)
    assert model.output.shape == (-1, 10)
    assert model.labels[3] == "name 3, the"
    assert models.close(DEADLINE)
    assert not models.ready


def test_a_model_that_cannot_be_loaded_is_an_error_at_once(mini: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="there is no model to serve"):
        Models().load([])
    (mini / "inference.onnx").write_bytes(b"none")
    models = Models()
    with pytest.raises(BundleError):
        models.load([lambda: ServedModel(mini, SETTINGS, ServedOptions())])
    assert not models.ready


def test_a_tensor_is_answered_as_the_picture_that_it_was_made_of(mini: Path):
    model = served(mini)
    data = pictures(1)[0]
    tensor = model.classifier.reader.read_bytes(data).tensor
    of_picture, of_tensor = answers_of(model.submit([model.image(data), model.tensor(tensor)]))
    assert np.array_equal(of_picture.row, of_tensor.row)
    assert model.close()
