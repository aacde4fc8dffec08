"""The loops that continuations are computed with on a CPU: products with float16 weights, and attention.

They are written in the language of `vectors.py`, compiled by LLVM, and called with a frame of XLA's (`frames.py`).
"""

from collections.abc import Callable, Iterator
from functools import reduce

from llvmlite import ir

from perceiver_ar.cache import MASKED
from perceiver_ar.kernels.frames import Frame, array, size
from perceiver_ar.kernels.vectors import FLOAT, HALF, INT32, LANES, REGISTERS, Array, Code, Value, Variable

ROWS, WIDE = 4, REGISTERS // 8
"""Rows (or takes), and outputs (or vectors of channels), whose sums are made at once, each in a register of its own."""
AHEAD = 8
"""Rows of a matrix, or vectors of keys, that memory is asked for before they are needed."""
SLOTS = 512
"""Of keys and values that are attended to before the next: 256 KiB of 64 channels, which the second cache holds."""
WEIGHTS, PART = 1 << 16, 16
"""Of a part of a product: 128 KiB, which take some microseconds for up to four rows; and the least of its outputs."""
EXP = 1.87756021e-3, 8.98937992e-3, 5.58262846e-2, 2.40153628e-1, 6.93153072e-1, 9.99999925e-1
"""2^x for x from 0 to 1, the highest power first (least squares), to 1e-7."""


Kernel = tuple[Callable[[Code, Frame], Value], Code]
"""How many parts a call is cut into, and a function of a frame's address, a part and how many there are."""


def multiply(module: ir.Module) -> Kernel:
    """`x @ weight.T`, x (rows, inputs), weight (outputs, inputs), in parts of some outputs."""
    code = Code(module, "product", 3)
    address, part, parts = code.arguments
    frame = Frame(address)
    x, weight, y = frame.arguments[0], frame.arguments[1], frame.results[0]
    rows, inputs, outputs = size(x, 0), size(x, 1), size(weight, 0)
    x, weight, y = array(x, FLOAT), array(weight, HALF), array(y, FLOAT)
    first = outputs * part // parts
    count = outputs * (part + 1) // parts - first
    for row, height in code.groups(rows, ROWS):
        for at, width in code.groups(count, WIDE):
            out = first + at
            sums = [[Variable(code.numbers(0)) for _ in range(width)] for _ in range(height)]
            for i, mask in code.vectors(inputs):
                for n in range(width):
                    weight.prefetch((out + n + AHEAD) * inputs + i)
                columns = [weight.vector((out + n) * inputs + i, mask) for n in range(width)]
                for n, those in enumerate(sums):
                    numbers = x.vector((row + n) * inputs + i, mask)
                    for total, column in zip(those, columns, strict=True):
                        total.value += column * numbers
            totals = code.sums([total.value for those in sums for total in those])
            for n, total in enumerate(totals):
                y[(row + n // width) * outputs + out + n % width] = total
    code.give(0)

    def cut(code: Code, frame: Frame) -> Value:
        x, weight = frame.arguments[0], frame.arguments[1]
        rows, inputs, outputs = size(x, 0), size(x, 1), size(weight, 0)
        cost = outputs * inputs * ((rows + ROWS - 1) // ROWS)
        return (cost // WEIGHTS).minimum(outputs // PART).maximum(1)

    return cut, code


class _Attention:
    """What is the same for all stores of a call: queries (rows, count, dim), what they see, and the results.

    Keys and values are of one `kind`.
    """

    def __init__(self, code: Code, frame: Frame, kind: ir.Type) -> None:
        self.kind = kind
        queries, seen = frame.arguments[0], array(frame.arguments[1], INT32)
        self.code, self.scratch = code, code.scratch(ROWS * SLOTS)
        self.rows, self.count, self.dim = (size(queries, axis) for axis in range(3))
        self.start, self.group, self.alike = (seen[n] for n in range(3))
        self.index = seen.since(3)
        self.queries, self.out = array(queries, FLOAT), array(frame.results[0], FLOAT)
        self.state = array(frame.results[1], FLOAT)

    def mine(self, part: Value, parts: Value) -> Iterator[Value]:
        """The queries of this part's heads."""
        for row in self.code.range(part, self.rows, parts):
            yield from self.code.range(row * self.count, (row + 1) * self.count)

    def seen(self, index: Value, last: Value) -> Value:
        """Which of a vector of indices are in the window of a query that stands at `last`."""
        return (index >= self.start) & (index <= last)


class _Store:
    """Three arguments of a call of attention, as `kernels.attend` describes them."""

    def __init__(self, call: _Attention, arguments: Array, at: Value) -> None:
        keys, values, index = (arguments[at + n] for n in range(3))
        self.keys, self.values, self.index = (
            array(keys, call.kind),
            array(values, call.kind),
            array(index, INT32),
        )
        self.dim, self.slots, self.examples = call.dim, size(keys, 2), size(index, 0)
        self.heads = size(keys, 0) // self.examples
        self.takes = call.rows // size(keys, 0)


class _Slots:
    """Slots `low` to `high` of a row of a store: of transposed keys (dim, slots), of values, of an example's index."""

    def __init__(self, store: _Store, row: Value, example: Value, low: Value, high: Value) -> None:
        self.store, self.row, self.example, self.low, self.count = store, row, example, low, high - low
        self.keys = store.keys.since(row * store.dim * store.slots + low)
        self.values = store.values.since((row * store.slots + low) * store.dim)
        self.index = store.index.since(example * store.slots + low)

    def part(self, low: Value, high: Value) -> "_Slots":
        return _Slots(self.store, self.row, self.example, self.low + low, self.low + high)

    def stretch(self, call: _Attention, last: Value) -> tuple[Value, Value]:
        """From where to where there are slots, by whole vectors, that a query at `last` sees; nothing if none are."""
        first, end = Variable(self.count), Variable(call.code.word(0))
        for s, mask in call.code.vectors(self.count):
            seen = call.seen(self.index.vector(s, mask), last)
            with call.code.when(call.code.any(seen if mask is None else seen & mask)):
                first.value = first.value.minimum(s)
                end.value = (s + LANES).minimum(self.count)
        return first.value, end.value


def _scores(call: _Attention, queries: list[Value], slots: _Slots) -> list[Value]:
    """Write the scores of some queries to the scratch, `SLOTS` a row, masked behind the last; the greatest of each."""
    code = call.code
    last = [call.index[query % call.count] for query in queries]
    numbers = [call.queries.since(query * call.dim) for query in queries]
    peaks = [Variable(code.numbers(MASKED)) for _ in queries]
    for s, width, mask in code.tiles(slots.count, WIDE):
        places = [s + n * LANES for n in range(width)]
        sums = [[Variable(code.numbers(0)) for _ in places] for _ in queries]
        for c in code.range(0, call.dim):
            keys = slots.keys.since(c * slots.store.slots)
            read = [keys.vector(at, mask) for at in places]
            for at in places:
                keys.prefetch(at + AHEAD * LANES)
            for row, those in zip(numbers, sums, strict=True):
                factor = code.spread(row[c])
                for total, key in zip(those, read, strict=True):
                    total.value += key * factor
        for n, at in enumerate(places):
            index = slots.index.vector(at, mask)
            for query, those in enumerate(sums):
                seen = call.seen(index, last[query])
                score = those[n].value.where(seen if mask is None else seen & mask, MASKED)
                call.scratch.put(at + query * SLOTS, score)
                peaks[query].value = peaks[query].value.maximum(score)
    return [code.greatest(peak.value) for peak in peaks]


def _update(call: _Attention, queries: list[Value], slots: _Slots) -> None:
    """Let some queries see these slots as well: each reading of keys and values serves all of them.

    A query's state is the greatest of its scores so far, and the sum of its weights, which are relative to that
    (Milakov & Gimelshein 2018); `out` has the weighted sum of values.
    """
    code = call.code
    rows = [call.scratch.since(n * SLOTS) for n in range(len(queries))]
    scales = []
    for query, row, greatest in zip(queries, rows, _scores(call, queries, slots), strict=True):
        state = call.state.since(2 * query)
        peak = greatest.maximum(state[0])
        scale = exp(code, code.spread(state[0]) - peak)
        totals = Variable(code.numbers(0))
        for s in code.range(0, slots.count, LANES):
            weight = exp(code, row.vector(s) - peak)
            row.put(s, weight)
            totals.value += weight
        state[0], state[1] = peak, state[1] * code.lane(scale, 0) + code.sums([totals.value])[0]
        scales.append(scale)
    out = [call.out.since(query * call.dim) for query in queries]
    for c, width, mask in code.tiles(call.dim, WIDE):
        places = [c + n * LANES for n in range(width)]
        sums = [
            [Variable(row.vector(at, mask) * scale) for at in places]
            for row, scale in zip(out, scales, strict=True)
        ]
        for s in code.range(0, slots.count):
            values = [slots.values.vector(s * call.dim + at, mask) for at in places]
            for weights, those in zip(rows, sums, strict=True):
                factor = code.spread(weights[s])
                for total, value in zip(those, values, strict=True):
                    total.value += value * factor
        for row, those in zip(out, sums, strict=True):
            for at, total in zip(places, those, strict=True):
                row.put(at, total.value, mask)


def _over_store(call: _Attention, store: _Store, part: Value, parts: Value) -> None:
    """Of the heads every one that leaves the rest `part` when it is divided by `parts`.

    A store's row serves the queries of all takes of its example, which lie as far apart as the example has rows; and
    of takes that have rows of their own, that of the first serves all for the slots that they have alike.
    """
    code = call.code
    alike = call.alike.minimum(store.slots).where(call.group > 1, 0)
    for example in code.range(0, store.examples):
        for own in code.range(0, code.word(2)):
            begin, end = alike.where(own.equals(1), 0), alike.where(own.equals(0), store.slots)
            takes = store.takes.where(own.equals(1), call.group)
            with code.when(own.equals(1) | (example % call.group).equals(0)):
                for head in code.range(part, store.heads, parts):
                    row, first = example * store.heads + head, example * store.takes * store.heads + head
                    for low in code.range(begin, end, SLOTS):
                        slots = _Slots(store, row, example, low, end.minimum(low + SLOTS))
                        for at, size in code.groups(takes * call.count, ROWS):
                            several = [at + n for n in range(size)]
                            queries = [
                                (first + n // call.count * store.heads) * call.count + n % call.count
                                for n in several
                            ]
                            last = reduce(Value.maximum, [call.index[n % call.count] for n in several])
                            left, right = slots.stretch(call, last)
                            with code.when(left < right):
                                _update(call, queries, slots.part(left, right))


def exp(code: Code, x: Value) -> Value:
    """e^x for x up to 0, near it to 1e-7: a power of two, and a polynomial."""
    x = (x * 1.4426950408889634).maximum(-126.0)
    whole = code.converted(x, INT32) - 1
    part = x - code.converted(whole, FLOAT)
    y = code.numbers(EXP[0])
    for more in EXP[1:]:
        y = y * part + more
    return y * code.bits((whole + 127) << 23, FLOAT)


def attend(module: ir.Module) -> Kernel:
    """Softmax attention of queries to all stores, in parts of some heads."""
    return _attend(module, FLOAT)


def attend_halves(module: ir.Module) -> Kernel:
    """The same where keys and values are float16."""
    return _attend(module, HALF)


def _attend(module: ir.Module, kind: ir.Type) -> Kernel:
    code = Code(module, "attention", 3)
    address, part, parts = code.arguments
    frame = Frame(address)
    call = _Attention(code, frame, kind)
    for query in call.mine(part, parts):
        call.state[2 * query], call.state[2 * query + 1] = code.number(MASKED), code.number(0)
        for c, mask in code.vectors(call.dim):
            call.out.put(query * call.dim + c, code.numbers(0), mask)
    for at in code.range(2, frame.count, 3):
        _over_store(call, _Store(call, frame.arguments, at), part, parts)
    for query in call.mine(part, parts):
        total = call.state[2 * query + 1]
        for c, mask in code.vectors(call.dim):
            at = query * call.dim + c
            # Of what nobody saw there is no average, but a number.
            call.out.put(at, call.out.vector(at, mask) / total.where(total > 0, 1.0), mask)
    code.give(0)

    def cut(code: Code, frame: Frame) -> Value:
        least = Variable(size(frame.arguments[0], 0))
        for at in code.range(2, frame.count, 3):
            heads = size(frame.arguments[at], 0) // size(frame.arguments[at + 2], 0)
            least.value = least.value.minimum(heads)
        return least.value

    return cut, code
