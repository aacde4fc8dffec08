"""What a single token is computed with on a CPU, where XLA has no fast loop for it (`loops.py`), as functions of JAX.

A token is as fast as its weights, keys and values are read. Shipped weights are float16: widened to float32 in a
register they are the same numbers and half the bytes. And attention reads the slots that hold something, once for all
takes that have them alike.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import jax
import jax.numpy as jnp
from jax import ffi
from jaxtyping import Array, Float, Float16, Int

from perceiver_ar import machine_code
from perceiver_ar.cache import EMPTY, Entries
from perceiver_ar.machine_code import BEGIN, END, HELP

TARGET = "perceiver_ar"
THREADS = 4
"""Most that compute one call together."""
_CALLED = machine_code.function("called")


@cache
def _helpers() -> int:
    """How many threads help: one for each other core, up to a number."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, THREADS) - 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_helpers(), "kernels")


@contextmanager
def helped() -> Iterator[None]:
    """Other threads take parts of what is computed inside; they wait for them busily, since these are short."""
    if not _helpers():
        yield
        return
    _CALLED(BEGIN)
    try:
        for _ in range(_helpers()):
            _pool().submit(_CALLED, HELP)
        yield
    finally:
        _CALLED(END)


def usable() -> bool:
    """Whether XLA takes the kernels, and they compute; called once before they are used."""
    ffi.register_ffi_target(TARGET, ffi.pycapsule(_CALLED), platform="cpu")
    try:
        with jax.ensure_compile_time_eval():
            return bool((multiply(jnp.ones((5, 3)), jnp.ones((2, 3), jnp.float16)) == 3).all())
    except jax.errors.JaxRuntimeError:  # another version of the interface
        return False


def multiply(
    x: Float[Array, "rows inputs"], weight: Float16[Array, "outputs inputs"]
) -> Float[Array, "rows outputs"]:
    """`x @ weight.T` in float32."""
    return ffi.ffi_call(TARGET, _floats(x.shape[0], weight.shape[0]))(x, weight)


def attend(
    queries: Float[Array, "rows queries dim"],
    stores: list[Entries],
    index: Int[Array, "queries"],
    start: Int[Array, ""] | int,
    alike: tuple[int, Int[Array, ""] | int] = (1, 0),
) -> Float[Array, "rows queries dim"]:
    """`attention.attend` over float32 stores. A query that sees nothing gets zeros."""
    rows, count, dim = queries.shape
    bounds = jnp.stack([jnp.maximum(start, EMPTY + 1), *alike])
    seen = jnp.concatenate([bounds, index]).astype(jnp.int32)
    results = _floats(rows, count, dim), _floats(rows, count, 2)
    return ffi.ffi_call(TARGET, results)(queries, seen, *(x for store in stores for x in store))[0]


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
