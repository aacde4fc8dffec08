"""The machine's own bounds on generation: what a token must read, over how fast memory can be read; and its arithmetic.

The first is no law for what fits a cache of the processor: weights and keys that stay in tens of megabytes of L2 and L3
are read faster than memory, and then a contestant may beat it (config S does fit many a server's L3).
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from benchmarks.contest import Measurement, Shape, serve

FLOAT = 4
"""Bytes of a float32."""
TRIES = 8
"""Of reading and of arithmetic, the fastest of which counts."""
SIDE = 1024
"""Of the square matrices whose product measures arithmetic."""


class Need(NamedTuple):
    """What a token takes at least: bytes that must be read, and floating-point operations, two a multiplication."""

    bytes: float
    operations: float

    def bounds(self, read: float, computed: float) -> tuple[float, float]:
        """Tokens a second by either, where so many bytes are read and so many operations done a second."""
        return read / self.bytes, computed / self.operations


def block(shape: Shape) -> float:
    """Weights of a layer: queries, keys, values, output, and an MLP that widens by 4."""
    return (4 + 2 * 4) * shape.width**2


def weights(shape: Shape) -> float:
    """Of all matrices that a token is multiplied with, a token's own embedding left out."""
    return (shape.layers + 1) * block(shape) + shape.width * shape.vocab


def need_of_ours(shape: Shape, takes: int, cache: str, first: int, count: int) -> Need:
    """Of a token of `takes` takes at once, on average over the new tokens `first` to `first + count`.

    Weights, which are float16, and the primer's keys and values are read once for all takes; each reads its own keys
    and values of the new tokens, and of the latents since the last fill, which begins with half of them. For each new
    token a refill computes a latent once more, without the cross-attend, and keys and values alone in the last layer.
    """
    pair = 2 * shape.width * np.dtype(cache).itemsize
    new = np.arange(first, first + count)
    half = shape.latents // 2
    in_use = half + new % (shape.latents - half) + 1
    own = pair * (new + 1 + shape.layers * in_use).mean()
    seen = (shape.primer + new + 1 + shape.layers * in_use).mean() + (shape.layers - 1) * half / 2
    again = (shape.layers - 1) * block(shape) + 2 * shape.width**2
    return Need(
        float((2 * weights(shape) + pair * shape.primer) / takes + own),
        float(2 * (weights(shape) + again) + 4 * shape.width * seen),
    )


def need_of_gpt2(shape: Shape, count: int) -> Need:
    """Of a decoder with as many layers, each of which keeps keys and values of every token."""
    numbers = (shape.layers + 1) * 2 * shape.width * (shape.primer + (count + 1) / 2)
    return Need(FLOAT * (weights(shape) + numbers), 2 * (weights(shape) + numbers))


def prepare(task: dict[str, Any]) -> Callable[[], Measurement]:
    """Bytes read and operations done a second, by `threads` threads, of which numpy's library has as many.

    A dot product of an array of `mib` MiB with itself reads at the speed of memory, and its threads need no lock. A
    product of square matrices computes as fast as can be.
    """
    parts = np.array_split(np.ones(task["mib"] * 2**20 // FLOAT, np.float32), task["threads"])
    pool = ThreadPoolExecutor(len(parts))
    factors = np.ones((2, SIDE, SIDE), np.float32)

    def read() -> float:
        begin = time.perf_counter()
        list(pool.map(lambda part: np.dot(part, part), parts))
        return sum(part.nbytes for part in parts) / (time.perf_counter() - begin)

    def computed() -> float:
        begin = time.perf_counter()
        np.matmul(*factors)
        return 2 * SIDE**3 / (time.perf_counter() - begin)

    return lambda: {
        "read": max(read() for _ in range(TRIES)),
        "computed": max(computed() for _ in range(TRIES)),
    }


if __name__ == "__main__":
    serve(prepare)
