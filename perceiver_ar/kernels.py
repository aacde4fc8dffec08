"""What a single token is computed with on a CPU, where XLA has no fast loop for it: compiled by Numba, called by XLA.

A token is as fast as its weights, keys and values are read. Shipped weights are float16: widened to float32 in a
register they are the same numbers and half the bytes. And attention reads the slots that hold something, once.

XLA calls a function with a frame of pointers (its foreign function interface, `xla/ffi/api/c_api.h` in jaxlib), which
is read here as words of 8 bytes. That interface is versioned, and XLA refuses one that it does not know.
"""
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
# (Numba's decorators say nothing of what they give.)

import os
import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import ffi
from jaxtyping import Array, Float, Float16, Int
from llvmlite.binding import get_host_cpu_features
from numba import cfunc, njit
from numba.np.numpy_support import carray

from perceiver_ar.cache import EMPTY, MASKED, Entries
from perceiver_ar.instructions import add, board, exchanged, float_of, load, pointer, put, widened

INSTRUCTIONS = "0398bf97e7e6"
"""How the SHA-256 of `instructions.py` begins: Numba compiles anew when this file changes, not for another's sake."""
TARGET = "perceiver_ar"
PRODUCT_ARGUMENTS = 2
"""Of a product; attention has more."""
WEIGHTS = 1 << 16
"""Of a part of a product: 128 KiB, which take some microseconds."""
HELP, BEGIN, END = 1, 2, 3
"""What is asked for in place of a frame, which no address is."""
WORK, DONE, FRAME, PARTS, BUSY, HELPED = 0, 8, 16, 17, 24, 32
"""Words of the board on which two threads share a call; those that both write lie in cache lines of their own."""
VERSION = 0, 3
"""Of the interface that is written here."""
METADATA, EXECUTE = 1, 3
"""The kind of a frame's extension that asks for the version, and the stage at which there is something to compute."""
LOOSE = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be made in any order, or no loop of them could use a CPU's vectors."""

if platform.machine() not in {"arm64", "aarch64"} and not get_host_cpu_features().get("f16c"):
    raise ImportError("this CPU does not widen float16 itself, and LLVM would end the process for want of it")


@njit(cache=True, fastmath=LOOSE)
def _multiply(x, weight, first, end, y):
    """Write the outputs `first` to `end` of `x @ weight.T` to `y`, four rows for each reading of the weights."""
    rows, inputs = x.shape
    fours = rows - rows % 4
    for row in range(0, fours, 4):
        for out in range(first, end):
            a = b = c = d = np.float32(0)
            for i in range(inputs):
                w = widened(weight[out, i])
                a += w * x[row, i]
                b += w * x[row + 1, i]
                c += w * x[row + 2, i]
                d += w * x[row + 3, i]
            y[row, out], y[row + 1, out], y[row + 2, out], y[row + 3, out] = a, b, c, d
    for row in range(fours, rows):
        for out in range(first, end):
            a = np.float32(0)
            for i in range(inputs):
                a += widened(weight[out, i]) * x[row, i]
            y[row, out] = a


@njit(cache=True, fastmath=LOOSE, inline="always")
def _exp(x):
    """e^x for x up to 0, to 1e-7 near it: a power of two, and a polynomial (least squares), in a CPU's vectors."""
    x = max(x * np.float32(1.4426950408889634), np.float32(-126))
    whole = np.floor(x)
    part = x - whole
    y = np.float32(1.87756021e-3)
    for more in (8.98937992e-3, 5.58262846e-2, 2.40153628e-1, 6.93153072e-1, 9.99999925e-1):
        y = y * part + np.float32(more)
    return y * float_of((np.int32(whole) + np.int32(127)) << np.int32(23))


@njit(cache=True)
def _stretch(index, seen):
    """The slots from the first that holds an entry of the window to behind the last, and whether all of them do."""
    first, end = 0, len(index)
    while first < end and not seen[0] <= index[first] <= seen[1]:
        first += 1
    while first < end and not seen[0] <= index[end - 1] <= seen[1]:
        end -= 1
    held = 0
    for s in range(first, end):
        held += np.int64(seen[0] <= index[s]) & np.int64(index[s] <= seen[1])
    return first, end, held == end - first


@njit(cache=True, fastmath=LOOSE)
def _score(queries, takes, keys, first, end, scores, at):
    """Scores of the slots `first` to `end` of transposed keys, eight channels a pass, all takes in each of them.

    Args:
        takes: the rows of `queries` and of `scores` that the takes have.
        at: column of `scores` for the slot `first`.
    """
    dim, count = len(keys), end - first
    eights = dim - dim % 8
    for n in takes:
        scores[n, at : at + count] = 0
    for c in range(0, eights, 8):
        k0, k1, k2, k3 = keys[c, first:], keys[c + 1, first:], keys[c + 2, first:], keys[c + 3, first:]
        k4, k5, k6, k7 = keys[c + 4, first:], keys[c + 5, first:], keys[c + 6, first:], keys[c + 7, first:]
        for n in takes:
            q, row = queries[n, c:], scores[n, at:]
            q0, q1, q2, q3, q4, q5, q6, q7 = q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7]
            for s in range(count):
                low = q0 * k0[s] + q1 * k1[s] + q2 * k2[s] + q3 * k3[s]
                row[s] += low + q4 * k4[s] + q5 * k5[s] + q6 * k6[s] + q7 * k7[s]
    for c in range(eights, dim):
        for n in takes:
            for s in range(count):
                scores[n, at + s] += queries[n, c] * keys[c, first + s]


@njit(cache=True, fastmath=LOOSE)
def _sum(weights, at, values, first, end, takes, out):
    """Add the weighted values of the slots `first` to `end`, two slots a pass, all takes in each of them.

    Of more slots a pass memory is read at half the speed, when it is no cache's.
    """
    dim = values.shape[1]
    twos = end - (end - first) % 2
    for s in range(first, twos, 2):
        v0, v1 = values[s], values[s + 1]
        for n in takes:
            w0, w1, row = weights[n, at + s - first], weights[n, at + s - first + 1], out[n]
            for c in range(dim):
                row[c] += w0 * v0[c] + w1 * v1[c]
    for s in range(twos, end):
        for n in takes:
            for c in range(dim):
                out[n, c] += weights[n, at + s - first] * values[s, c]


@njit(cache=True, fastmath=LOOSE)
def _exponentials(scores):
    """Replace scores by weights, relative to the greatest; the sum of them."""
    peak = scores[0]
    for n in range(len(scores)):
        peak = max(peak, scores[n])
    total = np.float32(0)
    for n in range(len(scores)):
        weight = _exp(scores[n] - peak)
        scores[n] = weight
        total += weight
    return total


@njit(cache=True)
def _attend(queries, seen, store, which, sums, scores, used, out):
    """One store's part: scores behind the `used` of each query, or, when these are weights (`sums`), their sums.

    Of the heads every one that leaves the rest `which[0]` when it is divided by `which[1]`.

    A store's row serves the queries of all takes of its example, which lie as far apart as the example has rows; and
    of takes that have rows of their own, that of the first serves all for the slots that they have alike.
    """
    keys, values, index = store
    rows, examples, group, alike = len(keys), len(index), seen[2], seen[3]
    heads, takes = rows // examples, len(queries) // rows
    for example in range(examples):
        first, end, whole = _stretch(index[example], seen)
        middle = min(max(alike, first), end) if group > 1 else first
        for head in range(which[0], heads, which[1]):
            row, begin = example * heads + head, example * takes * heads + head
            for part in range(2):
                low, high = (middle, end) if part else (first, middle)
                if low == high or (part == 0 and example % group):
                    continue
                count = takes if part else group
                mine, at = range(begin, begin + count * heads, heads), used[begin]
                if sums:
                    _sum(scores, at, values[row], low, high, mine, out)
                else:
                    _score(queries, mine, keys[row], low, high, scores, at)
                for n in mine:
                    used[n] += high - low
                    for s in range(low, low if whole or sums else high):
                        if not seen[0] <= index[example, s] <= seen[1]:
                            scores[n, at + s - low] = MASKED


@njit(cache=True)
def _words(address, count):
    return carray(pointer(address), (count,), np.intp)


@njit(cache=True)
def _array(buffer, shape, dtype):
    """The array of an `XLA_FFI_Buffer`, whose fourth word points to its data."""
    return carray(pointer(_words(buffer, 4)[3]), shape, dtype)


@njit(cache=True)
def _size(buffer, axis):
    """How long an axis of an `XLA_FFI_Buffer` is: its sixth word points to such numbers."""
    return _words(_words(buffer, 6)[5], axis + 1)[axis]


@njit(cache=True)
def _operands(frame):
    """The arguments and results of an `XLA_FFI_CallFrame`, as buffers; none where there is nothing to compute.

    Its second word points to an extension, the fifth is the stage, and the eighth and thirteenth are the numbers of
    arguments and results, whose lists stand two words behind. An `int` is half a word.
    """
    words = _words(frame, 15)
    if words[1]:
        extension = _words(words[1], 4)
        if extension[1] & 0xFFFFFFFF == METADATA:
            version = carray(pointer(extension[3] + 3 * 8), (2,), np.int32)
            version[0], version[1] = VERSION
    execute = words[4] & 0xFFFFFFFF == EXECUTE
    return _words(words[9], words[7] if execute else 0), _words(words[14], words[12] if execute else 0)


@njit(cache=True)
def _parts(frame):
    """Into how many parts the call of a frame is cut: a product by its outputs, attention by its heads."""
    arguments, results = _operands(frame)
    if not len(results):
        return 0
    if len(arguments) == PRODUCT_ARGUMENTS:
        return max(_size(arguments[1], 0) * _size(arguments[1], 1) // WEIGHTS, 1)
    heads = _size(arguments[0], 0)
    for at in range(2, len(arguments), 3):
        heads = min(heads, _size(arguments[at], 0) // _size(arguments[at + 2], 0))
    return heads


@njit(cache=True)
def _compute(frame, part, parts):
    """One part of the call of a frame: a product has x (rows, inputs) and a weight (outputs, inputs) for arguments."""
    arguments, results = _operands(frame)
    if len(arguments) > PRODUCT_ARGUMENTS:
        _compute_attention(arguments, results, part, parts)
        return
    rows, inputs, outputs = _size(arguments[0], 0), _size(arguments[0], 1), _size(arguments[1], 0)
    _multiply(
        _array(arguments[0], (rows, inputs), np.float32),
        _array(arguments[1], (outputs, inputs), np.uint16),
        outputs * part // parts,
        outputs * (part + 1) // parts,
        _array(results[0], (rows, outputs), np.float32),
    )


@njit(cache=True)
def _compute_attention(arguments, results, part, parts):
    """Some heads' attention of queries (rows, dim), that see what `attend` says, to the arrays of each store."""
    count, dim = _size(arguments[0], 0), _size(arguments[0], 1)
    queries = _array(arguments[0], (count, dim), np.float32)
    seen = _array(arguments[1], (4,), np.int32)
    out = _array(results[0], (count, dim), np.float32)
    scores = _array(results[1], (count, _size(results[1], 1)), np.float32)
    used = _array(results[2], (count,), np.int32)
    for n in range(part, count, parts):
        out[n] = 0
    for sums in (False, True):
        for n in range(part, count, parts):
            used[n] = 0
        for at in range(2, len(arguments), 3):
            rows, slots = _size(arguments[at], 0), _size(arguments[at], 2)
            store = (
                _array(arguments[at], (rows, dim, slots), np.float32),
                _array(arguments[at + 1], (rows, slots, dim), np.float32),
                _array(arguments[at + 2], (_size(arguments[at + 2], 0), slots), np.int32),
            )
            _attend(queries, seen, store, (part, parts), sums, scores, used, out)
        for n in range(part, 0 if sums else count, parts):
            weights = scores[n, : used[n]]
            if len(weights):
                weights /= _exponentials(weights)


@njit(cache=True)
def _work():
    """Compute parts of what is on the board until none is left that nobody has taken.

    The word `WORK` holds the number of the call, and in its last 16 bits how many parts are left: whoever lowers it has
    taken one, and the call stays on the board until that is done.
    """
    while True:
        left = load(board(WORK))
        if not left & 0xFFFF:
            return
        if exchanged(board(WORK), left, left - 1):
            _compute(load(board(FRAME)), (left & 0xFFFF) - 1, load(board(PARTS)))
            add(board(DONE), 1)


@cfunc("intp(intp)", cache=True)
def _called(frame):
    """What XLA calls; 0 says that all is well. With one of three numbers in place of a frame, see `helped`."""
    if frame in (BEGIN, END):
        add(board(HELPED), 1 if frame == BEGIN else -1)
    elif frame == HELP:
        while load(board(HELPED)) > 0:
            _work()
    else:
        parts = _parts(frame)
        if parts > 1 and load(board(HELPED)) > 0 and exchanged(board(BUSY), 0, 1):
            put(board(FRAME), frame)
            put(board(PARTS), parts)
            put(board(DONE), 0)
            put(board(WORK), (((load(board(WORK)) >> 16) + 1) << 16) | parts)
            _work()
            while load(board(DONE)) < parts:  # what the other thread has taken takes it some microseconds
                pass
            put(board(BUSY), 0)
        else:
            for part in range(parts):
                _compute(frame, part, parts)
    return 0


@cache
def _helper() -> ThreadPoolExecutor | None:
    """The second thread; None where there is one core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(1, "kernels") if cores > 1 else None


@contextmanager
def helped() -> Iterator[None]:
    """A second thread takes parts of what is computed inside; it waits for them busily, since they are short."""
    helper = _helper()
    if helper is None:
        yield
        return
    _called.ctypes(BEGIN)
    try:
        helper.submit(_called.ctypes, HELP)
        yield
    finally:
        _called.ctypes(END)


def usable() -> bool:
    """Whether XLA takes the kernels, and they compute; called once before they are used."""
    ffi.register_ffi_target(TARGET, ffi.pycapsule(_called.address), platform="cpu")
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
    queries: Float[Array, "rows dim"],
    stores: list[Entries],
    index: Int[Array, ""],
    start: Int[Array, ""] | int,
    alike: tuple[int, Int[Array, ""] | int] = (1, 0),
) -> Float[Array, "rows dim"]:
    """`attention.attend` of one query a row, all at `index`, over float32 stores. One that sees nothing gets zeros."""
    rows, dim = queries.shape
    slots = sum(store.keys.shape[-1] for store in stores)
    results = _floats(rows, dim), _floats(rows, slots), jax.ShapeDtypeStruct((rows,), jnp.int32)
    seen = jnp.stack([jnp.maximum(start, EMPTY + 1), index, *alike]).astype(jnp.int32)
    return ffi.ffi_call(TARGET, results)(queries, seen, *(x for store in stores for x in store))[0]


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
