"""How the processor and its memory are used: threads, subnormal numbers, what the C library keeps."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator

import torch

from neurona.devices import distributed

cores = torch.get_num_threads()
"""Those that a run may use; a job of a sweep has its share of the machine's."""

SMALL_STEP_FLOPS = 3e7
"""Below this much arithmetic per step, handing work to a second thread costs more than it saves."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h; see mallopt(3), where the largest threshold is from."""

KEPT_BYTES = 1 << 30
LARGEST_KEPT_BYTES = 1 << 25

SUBNORMAL = 1e-40


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Has numbers below 1e-38 count as zero, and memory kept. To be entered before torch first computes on several
    threads: they go on to do as the one did that started them. The number of threads is put back.

    Subnormal numbers cost a processor some hundred times as much as others, and an optimiser's averages of a gradient
    that has become zero get there within a thousand steps, and stay. Of what tensors of up to 32 MiB leave, up to 1 GiB
    is kept for the next step, which would otherwise be handed new pages, one fault for each; for good.
    """
    was_flushing, threads = torch.tensor(SUBNORMAL).item() == 0, torch.get_num_threads()
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushing)
        torch.set_num_threads(threads)


@contextlib.contextmanager
def half_the_threads() -> Iterator[None]:
    """Within, half of the threads compute, rounded down, but at least one."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(max(1, threads // 2))
        yield
    finally:
        torch.set_num_threads(threads)


def set_threads(threads: int | None, parameters_times_samples: int) -> None:
    """threads: None takes one for a step of a small network, else the cores that this process has for itself."""
    if threads is None:
        share = max(1, cores // distributed.local_world_size())
        threads = 1 if 6 * parameters_times_samples < SMALL_STEP_FLOPS else share
    torch.set_num_threads(threads)
