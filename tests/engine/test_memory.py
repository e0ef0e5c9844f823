"""Bytes are counted before they are taken: by hand for a perceptron, by torch's profiler else."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from steadydescent.engine import memory
from steadydescent.engine.memory import bytes_made, is_out_of_memory, replicas_at_once, room_on
from steadydescent.engine.runs import Run
from steadydescent.engine.stack import Stack
from steadydescent.engine.stepping import Flat, numerics
from steadydescent.engine.view import LAST_WEIGHTS
from steadydescent.study.paths import DATA

N, D, H, K = 11, 7, 5, 3
REPLICAS = 5


def a_stack(task: str, replicas: int = 1, device: str = "cpu") -> Stack:
    told = {"task": task, "optimizer": "momentum", "schedule": "constant", "readouts": ("last",)}
    told |= {"batch_size": 20, "steps": 5}
    return Stack(
        [Run(**told, lr=0.01 * (1 + i), seed=0) for i in range(replicas)],
        DATA,
        device,
        compile=False,
    )


def test_the_bytes_of_a_perceptron_are_those_of_its_layers():
    module = nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, K))
    flat = Flat(module, 1)
    # two products with their biases and one ReLU, 4 bytes a number; weights are views and take none
    made = bytes_made(flat.outputs, *flat.pack(module), torch.randn(N, D))
    assert made == 4 * N * (H + H + K)


def test_views_and_what_is_changed_in_place_take_no_bytes():
    x = torch.randn(N, D + 1)
    assert bytes_made(lambda x: x.view(-1)[2:].view(-1, 2).t(), x) == 0
    assert bytes_made(lambda x: x.add_(1), x) == 0
    assert bytes_made(lambda x: (x + 1).t().contiguous(), x) == 2 * x.nbytes


@pytest.mark.parametrize("task", ["mnist1d-mlp", "mnist1d-cnn", "names-transformer"])
def test_the_count_is_at_least_what_is_held_at_any_moment(task):
    stack = a_stack(task)
    look = stack.examples.look(stack.examples.validation[:, :N])
    x = stack.task.inputs(look.pool[look.rows], stack.examples.mean, stack.examples.std)
    one = (stack.view.theta[0], stack.view.buffers[0], x[0])
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        stack.flat.outputs(*one)
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    peak = held = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    assert 0 < peak <= bytes_made(stack.flat.outputs, *one)


def test_as_many_replicas_at_once_as_the_room_holds_and_never_none():
    triple, x = lambda x: 3 * x, torch.randn(REPLICAS, N)
    sizes = {0: 1, 4 * N: 1, 4 * N * 3: 3, 4 * N * 4 - 1: 3, 4 * N * REPLICAS: None}
    assert {room: replicas_at_once(triple, (x,), room) for room in sizes} == sizes


def test_what_was_counted_is_not_counted_again(monkeypatch):
    counts, real = [], memory.bytes_made
    monkeypatch.setattr(memory, "bytes_made", lambda *given: counts.append(1) or real(*given))
    double, x = lambda x: 2 * x, torch.randn(REPLICAS, N)
    for _ in range(3):
        replicas_at_once(double, (x,), 4 * N)
    assert len(counts) == 1
    replicas_at_once(double, (x[:, 1:],), 4 * N)  # another shape
    replicas_at_once(lambda x: x + 1, (x,), 4 * N)  # other code
    assert len(counts) == 3


def test_evaluation_on_a_gpu_is_cut_by_memory_and_gives_the_same(monkeypatch):
    """The way of a GPU, taken on a CPU: the whole stack at once, and with room for two replicas."""
    with torch.no_grad():
        stack = a_stack("mnist1d-mlp", REPLICAS)
        look = stack.examples.look(stack.examples.validation[:, :N])
        plain = stack.view.outputs(LAST_WEIGHTS, look)
        stack.view.batched = True
        one = bytes_made(
            stack.flat.outputs, stack.view.theta[0], stack.view.buffers[0], torch.randn(N, 40)
        )
        cuts, real = [], memory.vmap
        counted = lambda *given, chunk_size=None: (
            cuts.append(chunk_size) or real(*given, chunk_size=chunk_size)
        )
        monkeypatch.setattr(memory, "vmap", counted)
        for room in (1e12, 2.5 * one):
            monkeypatch.setattr(memory, "room_on", lambda device, room=room: room)
            torch.testing.assert_close(stack.view.outputs(LAST_WEIGHTS, look), plain)
    assert cuts == [None, 2]


def test_what_says_that_memory_was_wanting():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60)
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))


@pytest.mark.gpu
@pytest.mark.parametrize("task", ["mnist1d-mlp", "mnist1d-cnn", "names-transformer"])
def test_what_a_gpu_evaluates_in_parts_is_what_a_cpu_does(task, monkeypatch):
    with torch.no_grad(), numerics():
        here, there = a_stack(task, REPLICAS), a_stack(task, REPLICAS, "cuda")
        look = lambda stack: stack.examples.look(stack.examples.validation[:, :N])
        wanted = here.view.outputs(LAST_WEIGHTS, look(here))
        for room in (1e12, 1.0):
            monkeypatch.setattr(memory, "room_on", lambda device, room=room: room)
            found = there.view.outputs(LAST_WEIGHTS, look(there)).cpu()
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
        assert room_on(torch.device("cuda")) > 2**28
