"""Derivatives: of attention, from scores that are computed again (Dao et al. 2022, algorithm 4), and of a product.

Scores are held with a row a key: then each of the five products is a sum of multiples of contiguous rows, and one loop
makes them all. It makes the gradient of a product's weights as well, where XLA would turn a matrix first.
"""

from functools import lru_cache

from llvmlite import ir

from perceiver_ar.kernels.frames import Frame, array, size
from perceiver_ar.kernels.loops import ROWS, WIDE, Kernel, exp
from perceiver_ar.kernels.vectors import FLOAT, INT32, LANES, Array, Code, Value, Variable

QUERIES, KEYS = 64, 128
"""Whose scores are held at once: 32 KiB, and as much of their gradient, which the second cache holds."""
TERMS, COLUMNS, OUTPUTS = 128, 64, 64
"""For the gradient of weights: rows and inputs that are summed over at once, 32 KiB, and the outputs of a part."""
PARTS = 1024
"""Most that heads are cut into: a board counts to 2^16."""
NEVER = (1 << 31) - 1
"""An index that no query has reached."""


@lru_cache(1)
def _added(module: ir.Module) -> Code:
    """A function that adds a product to numbers that are there, or writes it where `fresh` is not 0.

    `c[i, j] += a[i, k] * b[k, j]`: addresses of `a`, `b` and `c`; how far it is from a row of `a` to the next, from a
    column to the next, from a row of `b` and of `c` to the next; the numbers of rows, columns and terms.
    """
    code = Code(module, "add", 11)
    a, b, c = (Array(address, FLOAT) for address in code.arguments[:3])
    a_row, a_column, b_row, c_row, rows, columns, terms, fresh = code.arguments[3:]
    for i, height in code.groups(rows, ROWS):
        for j, width, mask in code.tiles(columns, WIDE):
            places = [j + n * LANES for n in range(width)]
            sums = [[Variable(code.numbers(0)) for _ in places] for _ in range(height)]
            with code.when(fresh.equals(0)):
                for n, those in enumerate(sums):
                    for at, total in zip(places, those, strict=True):
                        total.value = c.vector((i + n) * c_row + at, mask)
            for k in code.range(0, terms):
                vectors = [b.vector(k * b_row + at, mask) for at in places]
                for n, those in enumerate(sums):
                    factor = code.spread(a[(i + n) * a_row + k * a_column])
                    for total, vector in zip(those, vectors, strict=True):
                        total.value += vector * factor
            for n, those in enumerate(sums):
                for at, total in zip(places, those, strict=True):
                    c.put((i + n) * c_row + at, total.value, mask)
    code.give(0)
    return code


class _Gradient:
    """What `kernels.attention_gradient` is given and gives, and room for a block of scores."""

    def __init__(self, code: Code, frame: Frame, add: Code) -> None:
        self.code, self.add = code, add
        given, made = frame.arguments, frame.results
        self.rows, self.count, self.dim = (size(given[0], axis) for axis in range(3))
        self.slots, self.heads = size(given[5], 1), self.rows // size(given[6], 0)
        names = ("queries", "queries_turned", "gradient", "gradient_turned", "keys", "values")
        self.given = {name: array(given[n], FLOAT) for n, name in enumerate(names)}
        self.index, self.seen = array(given[6], INT32), array(given[7], INT32)
        self.sides = array(given[8], FLOAT)
        self.to_queries, self.to_keys, self.to_values = (array(made[n], FLOAT) for n in range(3))
        self.weights, self.to_scores = code.scratch(KEYS * QUERIES), code.scratch(KEYS * QUERIES)

    def part(self, name: str, row: Value) -> Array:
        """A row of an argument."""
        slots = self.slots if name in ("keys", "values") else self.count
        return self.given[name].since(row * slots * self.dim)

    def row(self, row: Value) -> None:
        """The gradients of a head's queries, keys and values."""
        code, (queries, keys) = self.code, (self.count * self.dim, self.slots * self.dim)
        cleared = (self.to_queries, queries), (self.to_keys, keys), (self.to_values, keys)
        for made, length in cleared:
            for n, mask in code.vectors(length):
                made.put(row * length + n, code.numbers(0), mask)
        index = self.index.since(row // self.heads * self.slots)
        for low in code.range(0, self.slots, KEYS):
            for at in code.range(0, self.count, QUERIES):
                tile = (self.count - at).minimum(QUERIES)
                left, right = self.stretch(index.since(low), (self.slots - low).minimum(KEYS), at + tile - 1)
                with code.when(left < right):
                    self.block(row, index, low + left, right - left, at, tile)

    def stretch(self, index: Array, count: Value, query: Value) -> tuple[Value, Value]:
        """From where to where there are slots that a query sees; nothing if none are."""
        code, first, end = self.code, Variable(count), Variable(self.code.word(0))
        last = self.seen[query + 1]
        for s in code.range(0, count):
            with code.when((index[s] >= self.seen[0]) & (index[s] <= last)):
                first.value, end.value = first.value.minimum(s), s + 1
        return first.value, end.value

    def block(self, row: Value, index: Array, low: Value, keys: Value, at: Value, queries: Value) -> None:
        """What so many keys from `low` on and queries from `at` on have to do with each other."""
        width, dim, count = self.code.word(QUERIES), self.dim, self.count
        one, fresh, more = (self.code.word(n) for n in (1, 1, 0))

        def add(*words: Value) -> None:
            self.code.call(self.add, *words)

        def place(name: str, at: Value) -> Value:
            return self.part(name, row).since(at).address

        weights, to_scores = self.weights.address, self.to_scores.address
        turned, towards = place("queries_turned", at), place("gradient_turned", at)
        transposed, values = place("keys", low), place("values", low * dim)
        add(transposed, turned, weights, one, self.slots, count, width, keys, queries, dim, fresh)
        add(values, towards, to_scores, dim, one, count, width, keys, queries, dim, fresh)
        self.weigh(row, index.since(low), keys, at, queries)
        mine = (row * self.slots + low) * dim
        to_queries = self.to_queries.since(row * count * dim + at).address
        to_keys, to_values = self.to_keys.since(mine).address, self.to_values.since(mine).address
        add(transposed, to_scores, to_queries, self.slots, one, width, count, dim, queries, keys, more)
        add(weights, place("gradient", at * dim), to_values, width, one, dim, dim, keys, dim, queries, more)
        add(to_scores, place("queries", at * dim), to_keys, width, one, dim, dim, keys, dim, queries, more)

    def weigh(self, row: Value, index: Array, keys: Value, at: Value, queries: Value) -> None:
        """Of scores make weights, and of what moves these what moves the scores; nought where a query does not see."""
        code = self.code
        normaliser = self.sides.since(row * 2 * self.count + at)
        offset = normaliser.since(self.count)
        for n, mask in code.vectors(queries):
            those = self.seen.since(at + 1).vector(n, mask)
            peak, less = normaliser.vector(n, mask), offset.vector(n, mask)
            for s in code.range(0, keys):
                own, place = index[s], s * QUERIES + n
                own = own.where(own >= self.seen[0], NEVER)
                weight = exp(code, self.weights.vector(place, mask) - peak).where(those >= own, 0.0)
                self.weights.put(place, weight, mask)
                self.to_scores.put(place, weight * (self.to_scores.vector(place, mask) - less), mask)


def attention_gradient(module: ir.Module) -> Kernel:
    """The gradients of queries, keys and values, in parts of some heads."""
    code = Code(module, "gradient_of_attention", 3)
    address, part, parts = code.arguments
    gradient = _Gradient(code, Frame(address), _added(module))
    for row in code.range(part, gradient.rows, parts):
        gradient.row(row)
    code.give(0)
    return lambda _, frame: size(frame.arguments[0], 0).minimum(PARTS), code


def weights_gradient(module: ir.Module) -> Kernel:
    """`gradient.T @ x`, gradient (rows, outputs), x (rows, inputs), in parts of some outputs."""
    add = _added(module)
    code = Code(module, "gradient_of_weights", 3)
    address, part, parts = code.arguments
    frame = Frame(address)
    gradient, x, made = frame.arguments[0], frame.arguments[1], frame.results[0]
    rows, outputs, inputs = size(x, 0), size(gradient, 1), size(x, 1)
    gradient, x, made = (array(buffer, FLOAT) for buffer in (gradient, x, made))
    first = outputs * part // parts
    count, one = outputs * (part + 1) // parts - first, code.word(1)
    for low in code.range(0, rows, TERMS):
        terms, fresh = (rows - low).minimum(TERMS), one.where(low.equals(0), 0)
        for at in code.range(0, inputs, COLUMNS):
            columns = (inputs - at).minimum(COLUMNS)
            places = (
                gradient.since(low * outputs + first),
                x.since(low * inputs + at),
                made.since(first * inputs + at),
            )
            a, b, c = (place.address for place in places)
            code.call(add, a, b, c, one, outputs, inputs, inputs, count, columns, terms, fresh)
    code.give(0)
    return lambda _, frame: (size(frame.arguments[0], 1) // OUTPUTS).maximum(1), code
