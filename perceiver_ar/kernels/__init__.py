"""What a CPU computes with where XLA has no fast loop for it, as functions of JAX.

A token is as fast as its weights, keys and values are read. Shipped weights are float16: widened to float32 in a
register they are the same numbers and half the bytes. And attention reads the slots that hold something, once for all
takes that have them alike (`loops.py`). Training gets derivatives that write no scores to memory and turn no matrix
(`gradients.py`).
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

import jax
import jax.numpy as jnp
from jax import ffi
from jaxtyping import Array, Float, Float16, Int

from perceiver_ar.cache import EMPTY, Entries
from perceiver_ar.kernels import machine_code
from perceiver_ar.kernels.machine_code import BEGIN, END, HELP

PREFIX = "perceiver_ar_"
"""Of the names of what XLA calls, which all libraries share."""
THREADS = 4
"""Most that compute one call together."""
_HELP = machine_code.function("help")
_KNOWN: dict[str, machine_code.Function] = {}
"""What XLA knows; it holds addresses alone, so the functions must stay."""
_LOCK = Lock()


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
    _HELP(BEGIN)
    try:
        for _ in range(_helpers()):
            _pool().submit(_HELP, HELP)
        yield
    finally:
        _HELP(END)


def usable() -> bool:
    """Whether the kernels compute; called once before they are used.

    Raises:
        ImportError, RuntimeError: LLVM fails here, or XLA has another version of the interface.
    """
    with jax.ensure_compile_time_eval():
        return bool((multiply(jnp.ones((5, 3)), jnp.ones((2, 3), jnp.float16)) == 3).all())


def multiply(
    x: Float[Array, "rows inputs"], weight: Float16[Array, "outputs inputs"]
) -> Float[Array, "rows outputs"]:
    """`x @ weight.T` in float32."""
    return _call("multiply", _floats(x.shape[0], weight.shape[0]))(x, weight)


def attend(
    queries: Float[Array, "rows queries dim"],
    stores: list[Entries],
    index: Int[Array, "queries"],
    start: Int[Array, ""] | int,
    alike: tuple[int, Int[Array, ""] | int] = (1, 0),
) -> Float[Array, "rows queries dim"]:
    """`attention.attend` over stores that are all float32 or all float16."""
    return _attend(queries, stores, index, start, alike)[0]


def attend_whole(
    queries: Float[Array, "rows queries dim"],
    store: Entries,
    index: Int[Array, "queries"],
    start: Int[Array, ""] | int,
) -> tuple[Float[Array, "rows queries dim"], Float[Array, "rows queries 1"]]:
    """`attention.attend_whole` over a float32 store, and the logarithm of each query's normaliser."""
    average, state = _attend(queries, [store], index, start, (1, 0))
    return average, state[..., :1] + jnp.log(state[..., 1:])


def _attend(
    queries: Array, stores: list[Entries], index: Array, start: Array | int, alike: tuple
) -> list[Array]:
    rows, count, dim = queries.shape
    seen = jnp.concatenate([jnp.stack([_first(start), *alike]), index]).astype(jnp.int32)
    results = _floats(rows, count, dim), _floats(rows, count, 2)
    name = "attend_halves" if stores[0].keys.dtype == jnp.float16 else "attend"
    return _call(name, results)(queries, seen, *(x for store in stores for x in store))


def attention_gradient(
    queries: Float[Array, "rows queries dim"],
    store: Entries,
    index: Int[Array, "queries"],
    start: Int[Array, ""] | int,
    gradient: Float[Array, "rows queries dim"],
    normaliser: Float[Array, "rows queries 1"],
    offset: Float[Array, "rows queries 1"],
) -> tuple[Float[Array, "rows queries dim"], Float[Array, "rows dim slots"], Float[Array, "rows slots dim"]]:
    """Gradients of queries, keys and values from that of `attend_whole`'s averages.

    Args:
        index: must rise; the rest is as in `attend`.
        offset: each query's product of its average and the gradient of that.
    """
    rows, count, dim = queries.shape
    slots = store.keys.shape[-1]
    seen = jnp.concatenate([_first(start)[None], index]).astype(jnp.int32)
    sides = jnp.stack([normaliser[..., 0], offset[..., 0]], axis=1)
    results = _floats(rows, dim, count), _floats(rows, slots, dim), _floats(rows, slots, dim)
    given = queries, queries.mT, gradient, gradient.mT, *store, seen, sides
    found = _call("attention_gradient", results)(*given)
    return found[0].mT, found[1].mT, found[2]


def weights_gradient(
    gradient: Float[Array, "rows outputs"], x: Float[Array, "rows inputs"]
) -> Float[Array, "outputs inputs"]:
    """`gradient.T @ x` in float32, where XLA would turn a matrix first."""
    return _call("weights_gradient", _floats(gradient.shape[1], x.shape[1]))(gradient, x)


def _call(name: str, results: Any) -> Callable[..., Any]:
    """What calls a kernel, which is compiled when it is first asked for."""
    with _LOCK:
        if name not in _KNOWN:
            _KNOWN[name] = machine_code.function(name)
            ffi.register_ffi_target(f"{PREFIX}{name}", ffi.pycapsule(_KNOWN[name]), platform="cpu")
    return ffi.ffi_call(f"{PREFIX}{name}", results, vmap_method="sequential")


def _first(start: Array | int) -> Array:
    """The first index that is seen: never that of an empty slot."""
    return jnp.maximum(start, EMPTY + 1)


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
