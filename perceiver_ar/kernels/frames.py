"""What XLA calls a kernel with: a frame of pointers, read as words of 8 bytes.

It is XLA's foreign function interface, `xla/ffi/api/c_api.h` in jaxlib, which is versioned: XLA refuses a version that
it does not know.
"""

from llvmlite import ir

from perceiver_ar.kernels.vectors import INT32, WORD, Array, Code, Value

VERSION = 0, 3
"""Of the interface that is written here."""
METADATA, EXECUTE = 1, 3
"""The kind of a frame's extension that asks for the version, and the stage at which there is something to compute."""
DESTROY, SCHEDULE, THREADS = 8, 17, 18
"""Words of XLA's table of functions: end an error, have a thread of its pool run something, how many threads it has."""


def words(address: Value) -> Array:
    """What lies there."""
    return Array(address, WORD)


def array(buffer: Value, kind: ir.Type) -> Array:
    """The numbers of an `XLA_FFI_Buffer`, whose fourth word points to them."""
    return Array(words(buffer)[3], kind)


def size(buffer: Value, axis: int) -> Value:
    """How long an axis of an `XLA_FFI_Buffer` is: its sixth word points to such numbers."""
    return words(words(buffer)[5])[axis]


class Frame:
    """An `XLA_FFI_CallFrame`.

    Its second word points to an extension, the third to XLA's functions, the fourth to what these want to know; half
    of the fifth is the stage. The eighth is the number of its arguments, which are buffers; the tenth points to their
    list, and the fifteenth to that of its results.
    """

    def __init__(self, address: Value) -> None:
        self.words = words(address)
        self.stage, self.count = self.words[4] & 0xFFFFFFFF, self.words[7]
        self.arguments, self.results = words(self.words[9]), words(self.words[14])

    def answer(self, code: Code) -> None:
        """Tell the version where XLA asks for it."""
        extension = words(self.words[1])
        with code.when(extension.address.differs(0)), code.when((extension[1] & 0xFFFFFFFF).equals(METADATA)):
            for at, number in enumerate(VERSION):
                Array(extension[3] + 24, INT32)[at] = code.word(number)

    def threads(self, code: Code) -> Value:
        """How many threads XLA's pool has; 0 where there is none."""
        found = code.scratch(1, WORD)
        found[0] = code.word(0)
        self._ask(code, THREADS, found.address)
        return found[0]

    def schedule(self, code: Code, task: Code) -> None:
        """Have a thread of XLA's pool call a function of a word, before long."""
        self._ask(code, SCHEDULE, code.address_of(task), code.word(0))

    def _ask(self, code: Code, function: int, *what: Value) -> None:
        """Call a function of XLA's with a struct: its size, no extension, the context, and what else it takes."""
        api = words(self.words[2])

        def call(function: int, *rest: Value) -> Value:
            struct = code.scratch(2 + len(rest), WORD)
            for n, value in enumerate((code.word(8 * (2 + len(rest))), code.word(0), *rest)):
                struct[n] = value
            return code.call_at(api[function], struct.address)

        with code.when(api[0] > 8 * max(DESTROY, SCHEDULE, THREADS)):
            error = call(function, self.words[3], *what)
            with code.when(error.differs(0)):
                call(DESTROY, error)
