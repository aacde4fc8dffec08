"""Instructions that Numba lacks, as LLVM has them: of pointers, of bits, and of two threads on the same words.

Numba's cache looks at the file of a function alone: `kernels.INSTRUCTIONS` changes with this one, as a test sees to.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def pointer(context, address):
    def make(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.intp), make


@intrinsic
def widened(context, half):
    """The float32 of a float16 that is given by its bits: Numba itself knows no float16 on a CPU."""

    def make(context, builder, signature, args):
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), make


@intrinsic
def float_of(context, bits):
    def make(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), make


@intrinsic
def board(context, word):
    """The address of a word of the board, 64 words that are nought when a process begins."""

    def make(context, builder, signature, args):
        words, name = ir.ArrayType(ir.IntType(64), 64), "perceiver_ar_board"
        board = builder.module.globals.get(name)
        if board is None:
            board: Any = ir.GlobalVariable(builder.module, words, name)
            board.linkage, board.initializer, board.align = "linkonce_odr", ir.Constant(words, None), 64
        place = builder.gep(board, [ir.Constant(ir.IntType(64), 0), args[0]])
        return builder.ptrtoint(place, ir.IntType(64))

    return types.int64(types.int64), make


def _at(builder, address):
    return builder.inttoptr(address, ir.IntType(64).as_pointer())


@intrinsic
def load(context, address):
    def make(context, builder, signature, args):
        return builder.load_atomic(_at(builder, args[0]), "acquire", 8)

    return types.int64(types.int64), make


@intrinsic
def put(context, address, value):
    def make(context, builder, signature, args):
        builder.store_atomic(args[1], _at(builder, args[0]), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), make


@intrinsic
def add(context, address, value):
    def make(context, builder, signature, args):
        return builder.atomic_rmw("add", _at(builder, args[0]), args[1], "acq_rel")

    return types.int64(types.int64, types.int64), make


@intrinsic
def exchanged(context, address, old, new):
    """Whether the word was `old`, and is `new` now."""

    def make(context, builder, signature, args):
        pair = builder.cmpxchg(_at(builder, args[0]), args[1], args[2], "acq_rel", "acquire")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), make
