# SPDX-License-Identifier: Apache-2.0
"""What a device and its streams do; run by test_cuda.py in a process with the fake driver."""

from __future__ import annotations

import ctypes
import os
import re
import threading

import numpy as np
import pytest
from fake_gpu import count, driver, fail

from hgdeploy.errors import EngineError
from hgdeploy.gpu.device import Device, open_device

OUT_OF_MEMORY, NO_DEVICE, LAUNCH_FAILED = 2, 100, 700
with_graphs = pytest.mark.skipif(
    "os.environ.get('HGDEPLOY_CUDA') == 'pycuda'", reason="pycuda has no graphs"
)


@pytest.fixture
def device():
    return open_device(0)


@pytest.fixture
def active(device: Device):
    with device.activate():
        yield device


@pytest.fixture
def stream(active: Device):
    made = active.stream(2)
    yield made
    made.close()


KERNEL = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


@pytest.fixture
def double(stream):
    """Return a function that puts a kernel on the stream: each of eight bytes is doubled."""
    kept = []

    def put(address: int) -> None:
        def run(argument: int) -> int:
            data = (ctypes.c_uint8 * 8).from_address(address)
            data[:] = [2 * value for value in data]
            return 0

        kept.append(KERNEL(run))
        launch = driver().fake_cuda_launch
        launch.argtypes = [ctypes.c_void_p, KERNEL, ctypes.c_void_p]
        assert launch(stream.handle, kept[-1], None) == 0

    return put


def test_it_tells_what_the_gpu_is(device: Device):
    assert (device.name, device.compute_capability) == ("Fake GPU 0", "8.9")


def test_a_second_gpu_is_another_one():
    assert open_device(1).name == "Fake GPU 1"


def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(EngineError, match="this machine has only gpu:0, gpu:1"):
        open_device(2)


def test_why_there_is_no_gpu_is_said_by_name(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(EngineError, match=r"only gpu:0, gpu:1 \(CUDA_VISIBLE_DEVICES is ''\); use"):
        open_device(2)
    fail("cuInit", NO_DEVICE)
    expected = (
        "error 100 (CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected) "
        "(CUDA_VISIBLE_DEVICES is '')"
    )
    with pytest.raises(EngineError, match=re.escape(f"the NVIDIA driver returns {expected}")):
        open_device(0)


def test_bytes_come_back_through_the_gpu_when_the_stream_is_done(stream):
    there, back = stream.buffer(64), stream.buffer(64)
    there.host[:] = range(64)
    back.host[:] = 0
    stream.upload(there, 64)
    crossed = type(there)(there.address, back.host)
    stream.download(crossed, 64)
    assert not back.host.any(), "nothing is done before synchronize"
    stream.synchronize()
    np.testing.assert_array_equal(back.host, np.arange(64))


def test_a_part_of_a_buffer_is_copied_alone(stream):
    buffer = stream.buffer(8)
    buffer.host[:] = 1
    stream.upload(buffer, 8)
    stream.synchronize()
    buffer.host[:] = 2
    stream.upload(buffer, 3)
    stream.synchronize()
    buffer.host[:] = 9
    stream.download(buffer, 5)
    stream.synchronize()
    assert buffer.host.tolist() == [2, 2, 2, 1, 1, 9, 9, 9]


def test_work_runs_in_order(stream, double):
    buffer = stream.buffer(8)
    buffer.host[:] = 5
    stream.upload(buffer, 8)
    double(buffer.address)
    double(buffer.address)
    stream.download(buffer, 8)
    stream.synchronize()
    assert buffer.host.tolist() == [20] * 8


def test_time_passes_between_marks_and_is_known_when_the_work_is_done(stream):
    buffer = stream.buffer(1 << 20)
    buffer.host[:] = 0
    stream.mark(0)
    stream.upload(buffer, 1 << 20)
    stream.mark(1)
    with pytest.raises(EngineError, match=r"cannot time an event: .*(NOT_READY|not ready)"):
        stream.elapsed_ms(0, 1)
    stream.synchronize()
    assert stream.elapsed_ms(0, 1) > 0


@with_graphs
def test_a_captured_graph_runs_as_often_as_it_is_launched(stream, double):
    buffer = stream.buffer(8)
    buffer.host[:] = 1
    stream.capture(lambda: double(buffer.address))
    stream.upload(buffer, 8)
    for _ in range(3):
        stream.launch()
    stream.download(buffer, 8)
    stream.synchronize()
    assert buffer.host.tolist() == [8] * 8, "capturing itself runs nothing"
    stream.drop_graph()
    with pytest.raises(EngineError, match="no captured graph"):
        stream.launch()


@with_graphs
def test_what_cannot_be_captured_leaves_the_stream_usable(stream, double):
    buffer = stream.buffer(8)
    with pytest.raises(EngineError, match="CUDA_ERROR_STREAM_CAPTURE"):
        stream.capture(stream.synchronize)
    with pytest.raises(EngineError, match="CUDA_ERROR_STREAM_CAPTURE"):
        stream.capture(lambda: stream.mark(0))
    with pytest.raises(KeyboardInterrupt):
        stream.capture(interrupt)
    buffer.host[:] = 3
    stream.upload(buffer, 8)
    double(buffer.address)
    stream.download(buffer, 8)
    stream.synchronize()
    assert buffer.host.tolist() == [6] * 8


def interrupt() -> None:
    raise KeyboardInterrupt


@with_graphs
def test_a_graph_that_cannot_be_instantiated_is_freed(stream, double):
    buffer = stream.buffer(8)
    fail("cuGraphInstantiateWithFlags", OUT_OF_MEMORY)
    with pytest.raises(EngineError, match=r"cannot instantiate a graph: .*OUT_OF_MEMORY"):
        stream.capture(lambda: double(buffer.address))


def test_an_error_of_the_driver_says_what_and_why(stream):
    fail("cuMemAlloc", LAUNCH_FAILED)  # pycuda would try again after an out-of-memory error
    with pytest.raises(EngineError) as caught:
        stream.buffer(100)
    message = str(caught.value)
    assert "CUDA cannot allocate 100 bytes on the GPU: cuMemAlloc" in message
    assert "illegal memory access was encountered" in message
    if os.environ.get("HGDEPLOY_CUDA") != "pycuda":
        assert "CUDA_ERROR_ILLEGAL_ADDRESS" in message
    assert "\n" not in message


def test_a_failure_on_the_gpu_is_told_by_synchronize(stream):
    fail("cuStreamSynchronize", LAUNCH_FAILED)
    with pytest.raises(EngineError, match=r"cannot run on the GPU: .*illegal memory access"):
        stream.synchronize()
    stream.synchronize()


@with_graphs
@pytest.mark.parametrize("after", range(4))
def test_a_stream_that_cannot_be_made_whole_leaves_nothing(active: Device, after: int):
    fail("cuEventCreate", OUT_OF_MEMORY, after)
    with pytest.raises(EngineError, match="cannot make an event"):
        active.stream(4)
    assert count("streams") == count("events") == 0


@with_graphs
def test_what_cannot_be_freed_keeps_nothing_else(active: Device):
    stream = active.stream(4)
    stream.buffer(10)
    fail("cuEventDestroy", LAUNCH_FAILED)
    with pytest.raises(EngineError, match=r"cannot free an event: .*ILLEGAL_ADDRESS"):
        stream.close()
    assert count("streams") == count("events") == 0
    assert count("device bytes") == count("pinned bytes") == 0


def test_memory_of_a_closed_stream_is_gone_at_once(active: Device):
    stream = active.stream(1)
    stream.buffer(10)
    assert (count("device bytes"), count("pinned bytes")) == (10, 10)
    stream.close()
    stream.close()
    assert (count("device bytes"), count("pinned bytes")) == (0, 0)


def test_a_device_is_active_in_each_thread_that_asks_for_it(device: Device):
    """Blocks nest, each thread sees only its own, and an error inside a block leaves it."""
    caught = []

    def work() -> None:
        try:
            with device.activate(), device.activate():
                stream = device.stream(1)
                stream.close()
                raise ValueError("inside")
        except ValueError as error:
            caught.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caught == ["inside"] * 4
    assert count("pushed") == 0
    with pytest.raises(EngineError, match="cannot make a stream"):
        device.stream(1)


def test_each_devices_context_is_retained_once_and_stays():
    before = count("retains")
    assert [open_device(index).name for index in (0, 1)] == ["Fake GPU 0", "Fake GPU 1"]
    assert count("retains") == before, "who only asks for the name takes no memory"
    for index in (0, 1, 0, 1):
        with open_device(index).activate():
            pass
    assert count("retains") == count("contexts") == max(before, 2)
