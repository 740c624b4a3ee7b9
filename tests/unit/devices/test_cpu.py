"""Threads, subnormal numbers, memory."""

from __future__ import annotations

import pytest
import torch

from neurona.devices import cpu


def is_flushed() -> bool:
    """Seen in the bits: a comparison would take it for zero."""
    return (torch.tensor([1e-40]) * 1).view(torch.int32).item() == 0


@pytest.mark.parametrize("before", [False, True])
def test_subnormal_numbers_count_as_zero_within_alone(before: bool, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(lambda: torch.set_flush_denormal(False))
    torch.set_flush_denormal(before)
    with cpu.prepared():
        assert is_flushed()
    assert is_flushed() == before


def test_the_number_of_threads_is_put_back() -> None:
    with cpu.prepared():
        torch.set_num_threads(2)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("threads", "cost", "processes", "expected"),
    [(None, 1e6, 1, 1), (None, 1e8, 1, 6), (None, 1e8, 4, 1), (3, 1e6, 1, 3)],
)
def test_a_small_step_takes_one_thread_and_a_large_one_the_cores_of_its_process(
    monkeypatch: pytest.MonkeyPatch, threads: int | None, cost: float, processes: int, expected: int
) -> None:
    numbers: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    monkeypatch.setattr(cpu, "cores", 6)
    monkeypatch.setattr(cpu.distributed, "local_world_size", lambda: processes)
    cpu.set_threads(threads, int(cost))
    assert numbers == [expected]
