# SPDX-License-Identifier: Apache-2.0
"""Who hears what TensorRT says; its logger needs no GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable

import fake_tensorrt

from hgdeploy.engines.tensorrt.logger import Messages, hearing, messages_here, shared_logger

ERROR, WARNING = fake_tensorrt.ILogger.ERROR, fake_tensorrt.ILogger.WARNING


def in_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_build_hears_the_librarys_threads_and_not_an_engine_that_runs_beside_it():
    logger, build, of_engine = shared_logger(fake_tensorrt), Messages(), []

    def engine() -> None:
        messages_here().clear()
        logger.log(ERROR, "the engine fails")
        of_engine.append(messages_here().reason())

    with hearing(build):
        in_a_thread(engine)
        in_a_thread(lambda: logger.log(ERROR, "a tactic fails"))
        logger.log(ERROR, "the build fails")
        assert messages_here() is build
    logger.log(ERROR, "afterwards")
    assert of_engine == ["the engine fails"]
    assert build.errors == ["a tactic fails", "the build fails"]


def test_many_threads_get_the_same_logger():
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(shared_logger(fake_tensorrt)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(logger) for logger in found}) == 1


def test_the_reason_is_the_errors_else_the_warnings_else_what_was_raised():
    messages = Messages()
    assert messages.reason() == "it does not say why"
    messages.raised = "a null pointer"
    assert messages.reason() == "a null pointer"
    messages.take("INFO", "noise")
    messages.take("WARNING", "no\n  driver")
    assert messages.reason() == "no driver"
    messages.take("ERROR", "x" * 1000)
    assert messages.reason() == "x" * 400
    messages.clear()
    assert messages.reason() == "it does not say why"
