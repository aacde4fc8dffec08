"""A small language for kernels: Python that writes LLVM's instructions, for vectors as wide as the CPU's.

What a `for` over `Code.range`, `Code.vectors` or `Code.groups` does is written down once for each body that a CPU shall
run, and so a kernel reads as if it computed. Numbers are words of 64 bits, float32, or vectors of `LANES` float32.
"""

import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partialmethod, reduce
from typing import Any

from llvmlite import binding, ir

FEATURES = binding.get_host_cpu_features()
ARM = platform.machine() in {"arm64", "aarch64"}
if not ARM and not FEATURES.get("f16c"):
    raise ImportError("this CPU does not widen float16 itself, and LLVM would end the process for want of it")
LANES = 16 if FEATURES.get("avx512f") else 4 if ARM else 8
"""float32 numbers in a vector."""
REGISTERS = 32 if ARM or FEATURES.get("avx512f") else 16
"""Vectors that a core holds."""
LOOSE = ("reassoc", "contract", "nsz", "arcp")
"""Sums may be made in any order, and a product and a sum be one instruction."""

WORD, INT32 = ir.IntType(64), ir.IntType(32)
FLOAT, HALF = ir.FloatType(), ir.HalfType()
FLOATS = ir.VectorType(FLOAT, LANES)
SIZES = {WORD: 8, INT32: 4, FLOAT: 4, HALF: 2}
"""Bytes of a number in memory."""


class Value:
    """A number, or a vector of them, that the code will have computed. Python's numbers become what they meet."""

    def __init__(self, code: "Code", llvm: Any) -> None:
        self.code, self.llvm, self.type = code, llvm, llvm.type

    @property
    def kind(self) -> Any:
        """The type of one number."""
        return self.type.element if isinstance(self.type, ir.VectorType) else self.type

    def _other(self, other: Any) -> "Value":
        if isinstance(other, Value):
            return other if other.type == self.type else self.code.spread(other, self.type)
        number = ir.Constant(self.kind, other)
        alone = self.kind is self.type
        return Value(self.code, number if alone else ir.Constant(self.type, [number] * LANES))

    def _made(self, other: Any, whole: str, real: str = "") -> "Value":
        # A number and a vector are only ever added or multiplied.
        if self.kind is self.type and isinstance(other, Value) and other.kind is not other.type:
            return other._made(self, whole, real)
        builder, other = self.code.builder, self._other(other)
        if self.kind == FLOAT:
            return Value(self.code, getattr(builder, real)(self.llvm, other.llvm, flags=LOOSE))
        return Value(self.code, getattr(builder, whole)(self.llvm, other.llvm))

    def _compared(self, other: Any, how: str) -> "Value":
        builder, other = self.code.builder, self._other(other)
        compare = builder.fcmp_ordered if self.kind == FLOAT else builder.icmp_signed
        return Value(self.code, compare(how, self.llvm, other.llvm))

    __add__ = partialmethod(_made, whole="add", real="fadd")
    __sub__ = partialmethod(_made, whole="sub", real="fsub")
    __mul__ = __rmul__ = partialmethod(_made, whole="mul", real="fmul")
    __truediv__ = partialmethod(_made, whole="", real="fdiv")
    __floordiv__ = partialmethod(_made, whole="udiv")
    __mod__ = partialmethod(_made, whole="urem")
    __and__ = partialmethod(_made, whole="and_")
    __or__ = partialmethod(_made, whole="or_")
    __lshift__ = partialmethod(_made, whole="shl")
    __rshift__ = partialmethod(_made, whole="lshr")
    __lt__ = partialmethod(_compared, how="<")
    __le__ = partialmethod(_compared, how="<=")
    __gt__ = partialmethod(_compared, how=">")
    __ge__ = partialmethod(_compared, how=">=")
    equals = partialmethod(_compared, how="==")
    differs = partialmethod(_compared, how="!=")

    def where(self, condition: "Value", other: Any) -> "Value":
        """The value where the condition holds, and the other elsewhere."""
        return Value(self.code, self.code.builder.select(condition.llvm, self.llvm, self._other(other).llvm))

    def minimum(self, other: Any) -> "Value":
        other = self._other(other)
        return self.where(self < other, other)

    def maximum(self, other: Any) -> "Value":
        other = self._other(other)
        return self.where(self > other, other)


class Variable:
    """A value that changes while the code runs; in a register, since LLVM finds out that nobody asks where it lies."""

    def __init__(self, value: Value) -> None:
        self.code = value.code
        with self.code.builder.goto_entry_block():
            self.place = self.code.builder.alloca(value.type)
        self.value = value

    @property
    def value(self) -> Value:
        """What it is now."""
        return Value(self.code, self.code.builder.load(self.place))

    @value.setter
    def value(self, value: Value) -> None:
        self.code.builder.store(value.llvm, self.place)


class Array:
    """Numbers of one type in memory, from an address on. Halves are float32 once they are read."""

    def __init__(self, address: Value, kind: Any) -> None:
        self.code, self.address, self.kind = address.code, address, kind

    def since(self, at: Value | int) -> "Array":
        """Without the first `at`."""
        return Array(self._address(at), self.kind)

    def _address(self, at: Value | int) -> Value:
        return self.address + at * SIZES[self.kind]

    def _place(self, at: Value | int, kind: Any) -> Any:
        return self.code.builder.inttoptr(self._address(at).llvm, kind.as_pointer())

    def __getitem__(self, at: Value | int) -> Value:
        builder = self.code.builder
        number = builder.load(self._place(at, self.kind), align=SIZES[self.kind])
        return Value(self.code, builder.sext(number, WORD) if self.kind is INT32 else number)

    def __setitem__(self, at: Value | int, value: Value) -> None:
        number = self.code.builder.trunc(value.llvm, INT32) if self.kind is INT32 else value.llvm
        self.code.builder.store(number, self._place(at, self.kind), align=SIZES[self.kind])

    def vector(self, at: Value | int, mask: Value | None = None) -> Value:
        """`LANES` numbers from `at` on; nought where a mask says that there are none."""
        builder = self.code.builder
        # Of float16 LLVM may have no vectors, and of whole numbers it always has.
        read = ir.VectorType(ir.IntType(16) if self.kind is HALF else self.kind, LANES)
        place = self._place(at, read)
        if mask is None:
            found = builder.load(place, align=SIZES[self.kind])
        else:
            load = self.code.intrinsic("llvm.masked.load", read, [place.type, INT32, mask.type, read])
            align = ir.Constant(INT32, SIZES[self.kind])
            found = builder.call(load, [place, align, mask.llvm, ir.Constant(read, None)])
        if self.kind is HALF:
            found = builder.fpext(builder.bitcast(found, ir.VectorType(HALF, LANES)), FLOATS)
        return Value(self.code, found)

    def prefetch(self, at: Value | int) -> None:
        """Ask memory for the numbers from `at` on, which will be read before long; they need not exist."""
        place = self._place(at, ir.IntType(8))
        fetch = self.code.function_of("llvm.prefetch.p0", ir.VoidType(), [place.type, INT32, INT32, INT32])
        self.code.builder.call(fetch, [place, *(ir.Constant(INT32, n) for n in (0, 2, 1))])

    def put(self, at: Value | int, value: Value, mask: Value | None = None) -> None:
        """Write a vector of numbers from `at` on, those alone that a mask leaves."""
        builder = self.code.builder
        place = self._place(at, value.type)
        if mask is None:
            builder.store(value.llvm, place, align=SIZES[self.kind])
        else:
            types = [value.type, place.type, INT32, mask.type]
            store = self.code.intrinsic("llvm.masked.store", ir.VoidType(), types, value.type)
            builder.call(store, [value.llvm, place, ir.Constant(INT32, SIZES[self.kind]), mask.llvm])


class Code:
    """A function of words that gives a word, while it is written; `arguments` are its values."""

    def __init__(self, module: ir.Module, name: str, arguments: int, *, exported: bool = False) -> None:
        self.function = ir.Function(module, ir.FunctionType(WORD, [WORD] * arguments), name)
        # Or there would be tables for whoever looks for an exception's handler.
        self.function.attributes.add("nounwind")
        if not exported:
            self.function.linkage = "internal"
        self.builder = ir.IRBuilder(self.function.append_basic_block())
        body = self.function.append_basic_block()
        self.builder.branch(body)  # the first block is for variables alone
        self.builder.position_at_end(body)
        self.arguments = [Value(self, argument) for argument in self.function.args]

    def word(self, number: int) -> Value:
        return Value(self, ir.Constant(WORD, number))

    def number(self, number: float) -> Value:
        return Value(self, ir.Constant(FLOAT, number))

    def numbers(self, number: float) -> Value:
        """A vector of one number."""
        return Value(self, ir.Constant(FLOATS, [ir.Constant(FLOAT, number)] * LANES))

    def give(self, value: Value | int) -> None:
        self.builder.ret((value if isinstance(value, Value) else self.word(value)).llvm)

    def call(self, other: "Code", *arguments: Value) -> Value:
        return Value(self, self.builder.call(other.function, [argument.llvm for argument in arguments]))

    def address_of(self, other: "Code") -> Value:
        """Where another function lies."""
        return Value(self, self.builder.ptrtoint(other.function, WORD))

    def call_at(self, address: Value, *arguments: Value) -> Value:
        """Call the function of words that lies there."""
        kind = ir.FunctionType(WORD, [WORD] * len(arguments))
        function = self.builder.inttoptr(address.llvm, kind.as_pointer())
        return Value(self, self.builder.call(function, [argument.llvm for argument in arguments]))

    def intrinsic(self, name: str, gives: Any, takes: list, named: Any = None) -> ir.Function:
        """LLVM's function of that name, for vectors of the type `named`, or of what it gives."""
        named = named or gives
        letters = {FLOAT: "f32", INT32: "i32", ir.IntType(16): "i16"}[named.element]
        return self.function_of(f"{name}.v{LANES}{letters}.p0", gives, takes)

    def function_of(self, name: str, gives: Any, takes: list) -> ir.Function:
        known = self.builder.module.globals.get(name)
        return known or ir.Function(self.builder.module, ir.FunctionType(gives, takes), name)

    def when(self, condition: Value) -> AbstractContextManager:
        return self.builder.if_then(condition.llvm)

    def during(self, condition: Callable[[], Value]) -> Iterator[None]:
        """A loop that ends when the condition, written down before each turn, does not hold."""
        head, body, end = (self.function.append_basic_block() for _ in range(3))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        self.builder.cbranch(condition().llvm, body, end)
        self.builder.position_at_end(body)
        yield
        self.builder.branch(head)
        self.builder.position_at_end(end)

    def range(self, first: Value | int, end: Value, step: Value | int = 1) -> Iterator[Value]:
        """A loop as over Python's `range`."""
        at = Variable(first if isinstance(first, Value) else self.word(first))
        for _ in self.during(lambda: at.value < end):
            now = at.value
            yield now
            at.value = now + step

    def vectors(self, count: Value) -> Iterator[tuple[Value, Value | None]]:
        """Where each vector of `count` numbers begins, and a mask for the last, which may not be whole."""
        rest = count % LANES
        for at in self.range(0, count - rest, LANES):
            yield at, None
        with self.when(rest > 0):
            lanes = ir.Constant(ir.VectorType(WORD, LANES), [ir.Constant(WORD, n) for n in range(LANES)])
            yield count - rest, Value(self, lanes) < rest

    def tiles(self, count: Value, wide: int) -> Iterator[tuple[Value, int, Value | None]]:
        """Where each tile of `wide` vectors begins, and each vector behind them: with its width, and a mask."""
        rest = count % (wide * LANES)
        for at in self.range(0, count - rest, wide * LANES):
            yield at, wide, None
        for at, mask in self.vectors(rest):
            yield count - rest + at, 1, mask

    def groups(self, count: Value, most: int) -> Iterator[tuple[Value, int]]:
        """Where each group of `most` begins, and one of fewer that may be left, with its size: a body for each size."""
        rest = count % most
        for at in self.range(0, count - rest, most):
            yield at, most
        for size in range(1, most):
            with self.when(rest.equals(size)):
                yield count - rest, size

    def scratch(self, numbers: int, kind: Any = FLOAT) -> Array:
        """Room for so many numbers while the function runs."""
        with self.builder.goto_entry_block():
            place: Any = self.builder.alloca(ir.ArrayType(kind, numbers))
            place.align = 64
            return Array(Value(self, self.builder.ptrtoint(place, WORD)), kind)

    def any(self, condition: Value) -> Value:
        """Whether it holds for a lane."""
        bits: Any = self.builder.bitcast(condition.llvm, ir.IntType(LANES))
        return Value(self, self.builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0)))

    def outside(self, name: str) -> Value:
        """The address of something that whoever loads the code has a place for."""
        found = self.builder.module.globals.get(name) or ir.GlobalVariable(self.builder.module, WORD, name)
        return Value(self, self.builder.ptrtoint(found, WORD))

    def spread(self, value: Value, kind: Any = FLOATS) -> Value:
        """A number as a vector."""
        number = self.builder.trunc(value.llvm, INT32) if value.type != kind.element else value.llvm
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(INT32, 0))
        nought = ir.Constant(ir.VectorType(INT32, LANES), None)
        return Value(self, self.builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), nought))

    def greatest(self, vector: Value) -> Value:
        """Of a vector's lanes."""
        return reduce(Value.maximum, (self.lane(vector, n) for n in range(LANES)))

    def lane(self, vector: Value, number: int) -> Value:
        return Value(self, self.builder.extract_element(vector.llvm, ir.Constant(INT32, number)))

    def picked(self, a: Value, b: Value, lanes: list[int]) -> Value:
        """Lanes of two vectors, those of the second behind the first's."""
        order = ir.Constant(ir.VectorType(INT32, len(lanes)), [ir.Constant(INT32, n) for n in lanes])
        return Value(self, self.builder.shuffle_vector(a.llvm, b.llvm, order))

    def sums(self, vectors: list[Value]) -> list[Value]:
        """The sum of each vector's lanes, made by halves of two vectors at a time."""
        if len(vectors) > LANES:
            return self.sums(vectors[:LANES]) + self.sums(vectors[LANES:])
        count, width = len(vectors), LANES
        while width > 1:
            width //= 2
            pairs = [(n, n + 1) if n + 1 < len(vectors) else (n, n) for n in range(0, len(vectors), 2)]
            alone = len(vectors) == 1
            added = []
            for one, other in pairs:
                a, b = vectors[one], vectors[other]
                length = a.type.count
                low = [n for n in range(length if alone else 2 * length) if n % (2 * width) < width]
                added.append(self.picked(a, b, low) + self.picked(a, b, [n + width for n in low]))
            vectors = added
        return [self.lane(vectors[0], n) for n in range(count)]

    def converted(self, value: Value, kind: Any) -> Value:
        """float32 as 32 bit whole numbers, cut towards zero, or the other way round."""
        to = ir.VectorType(kind, LANES) if value.kind is not value.type else kind
        convert = self.builder.fptosi if kind is INT32 else self.builder.sitofp
        return Value(self, convert(value.llvm, to))

    def bits(self, value: Value, kind: Any) -> Value:
        """The same bits as another kind of numbers."""
        return Value(self, self.builder.bitcast(value.llvm, ir.VectorType(kind, LANES)))

    def _shared(self, address: Value) -> Any:
        return self.builder.inttoptr(address.llvm, WORD.as_pointer())

    def read(self, address: Value) -> Value:
        """A word that other threads write."""
        return Value(self, self.builder.load_atomic(self._shared(address), "acquire", 8))

    def write(self, address: Value, value: Value) -> None:
        """A word that other threads read."""
        self.builder.store_atomic(value.llvm, self._shared(address), "release", 8)

    def add(self, address: Value, value: int) -> None:
        """To a word that other threads read and write."""
        self.builder.atomic_rmw("add", self._shared(address), ir.Constant(WORD, value), "acq_rel")

    def exchanged(self, address: Value, old: Any, new: Any) -> Value:
        """Whether the word was `old`, and is `new` now."""
        old, new = (x if isinstance(x, Value) else self.word(x) for x in (old, new))
        pair = self.builder.cmpxchg(self._shared(address), old.llvm, new.llvm, "acq_rel", "acquire")
        return Value(self, self.builder.extract_value(pair, 1))
