"""TFLOP/s of a large matrix product on the GPU in each precision: what a share of the peak refers to."""

from __future__ import annotations

import json
import sys

import torch

SIZE, WARM_UP, REPEATS = 8192, 3, 10
PRECISIONS = {
    "float32": (torch.float32, "highest"),
    "tf32": (torch.float32, "high"),
    "bfloat16": (torch.bfloat16, "highest"),
}


def teraflops(precision: str) -> float:
    """Mean rate of the timed products of two random matrices of SIZE × SIZE; 2 operations for each multiply-add."""
    dtype, matmul = PRECISIONS[precision]
    torch.set_float32_matmul_precision(matmul)
    a, b = (torch.randn(SIZE, SIZE, device="cuda", dtype=dtype) for _ in range(2))
    for _ in range(WARM_UP):
        a @ b
    started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    started.record()
    for _ in range(REPEATS):
        a @ b
    ended.record()
    torch.cuda.synchronize()
    return REPEATS * 2 * SIZE**3 / started.elapsed_time(ended) / 1e9


if __name__ == "__main__" and "--child" in sys.argv:
    print(json.dumps({"gpu": torch.cuda.get_device_name(), **{name: teraflops(name) for name in PRECISIONS}}))
