"""The machine's own bound on generation: bytes that a token must read, over how fast memory can be read.

The bound is no law for what fits a cache of the processor: weights and keys that stay in tens of megabytes of L2 and L3
are read faster than memory, and then a contestant may beat it (config S does fit many a server's L3).
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.contest import Measurement, Shape, serve

FLOAT = 4
"""Bytes of a float32."""
READS = 8
"""Passes over the array, the fastest of which counts."""


def weight_bytes(shape: Shape) -> float:
    """All matrices that a token is multiplied with, a token's own embedding left out."""
    block = (4 + 2 * 4) * shape.width**2  # query, key, value, out; an MLP that widens by 4
    return FLOAT * ((shape.layers + 1) * block + shape.width * shape.vocab)


def bytes_ours(shape: Shape, takes: int, cache: str, first: int, count: int) -> float:
    """Bytes a token of `takes` takes at once, on average over the new tokens `first` to `first + count`.

    Weights, which are float16, and the primer's keys and values are read once for all takes; each reads its own keys
    and values of the new tokens, and of the latents since the last fill, which begins with half of them.
    """
    pair = 2 * shape.width * np.dtype(cache).itemsize
    new = np.arange(first, first + count)
    half = shape.latents // 2
    in_use = half + new % (shape.latents - half) + 1
    own = pair * (new + 1 + shape.layers * in_use).mean()
    return float((weight_bytes(shape) / 2 + pair * shape.primer) / takes + own)


def bytes_gpt2(shape: Shape, count: int) -> float:
    """Bytes a token of a decoder with as many layers, each of which keeps keys and values of every token."""
    seen = shape.primer + (count + 1) / 2
    return weight_bytes(shape) + (shape.layers + 1) * 2 * shape.width * FLOAT * seen


def prepare(task: dict[str, Any]) -> Callable[[], Measurement]:
    """Reading speed, bytes a second, of `threads` threads over an array of `mib` MiB in all.

    A dot product of an array with itself reads at the speed of memory, and its threads need no lock.
    """
    parts = np.array_split(np.ones(task["mib"] * 2**20 // FLOAT, np.float32), task["threads"])
    pool = ThreadPoolExecutor(len(parts))
    size = sum(part.nbytes for part in parts)

    def once() -> float:
        begin = time.perf_counter()
        list(pool.map(lambda part: np.dot(part, part), parts))
        return size / (time.perf_counter() - begin)

    return lambda: {"speed": max(once() for _ in range(READS))}


if __name__ == "__main__":
    serve(prepare)
