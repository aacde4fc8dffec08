"""What XLA calls the kernels by, and how threads share a call."""

from llvmlite import ir

from perceiver_ar.kernels.frames import EXECUTE, Frame
from perceiver_ar.kernels.gradients import attention_gradient, weights_gradient
from perceiver_ar.kernels.loops import attend, attend_halves, multiply
from perceiver_ar.kernels.machine_code import BEGIN, BOARD, END, HELP
from perceiver_ar.kernels.vectors import Code, Value, Variable

KERNELS = {
    kernel.__name__: kernel
    for kernel in (multiply, attend, attend_halves, attention_gradient, weights_gradient)
}
WORK, DONE, KERNEL, FRAME, PARTS, BUSY, HELPED = 0, 8, 16, 17, 18, 24, 32
"""Words of the board on which threads share a call; those that several write lie in cache lines of their own."""


class _Board:
    """Words that threads share, one place for all kernels of a process."""

    def __init__(self, code: Code) -> None:
        self.code, self.address = code, code.outside(BOARD)

    def place(self, word: int) -> Value:
        return self.address + 8 * word

    def __getitem__(self, word: int) -> Value:
        return self.code.read(self.place(word))

    def __setitem__(self, word: int, value: Value | int) -> None:
        self.code.write(self.place(word), value if isinstance(value, Value) else self.code.word(value))


def _work(module: ir.Module) -> Code:
    """A function (of a word that it does not need) that computes parts of the call on the board while any are left.

    The word `WORK` holds the number of the call, and in its last 16 bits how many parts nobody has taken: who lowers it
    by one, by compare-and-swap, has taken a part. The call stays on the board until all parts are done.
    """
    code = Code(module, "work", 1)
    board = _Board(code)
    left = Variable(code.word(0))

    def some() -> Value:
        left.value = board[WORK]
        return (left.value & 0xFFFF) > 0

    for _ in code.during(some):
        with code.when(code.exchanged(board.place(WORK), left.value, left.value - 1)):
            code.call_at(board[KERNEL], board[FRAME], (left.value & 0xFFFF) - 1, board[PARTS])
            code.add(board.place(DONE), 1)
    code.give(0)
    return code


def _kernel(module: ir.Module, name: str, share: Code) -> None:
    """What XLA calls for one of the kernels."""
    parts, compute = KERNELS[name](module)
    code = Code(module, name, 1, exported=True)
    frame = Frame(code.arguments[0])
    frame.answer(code)
    with code.when(frame.stage.equals(EXECUTE) & (frame.count > 0)):
        code.call(share, code.address_of(compute), code.arguments[0], parts(code, frame))
    code.give(0)


def _help(module: ir.Module, work: Code) -> None:
    """`kernels.helped` calls this."""
    code = Code(module, "help", 1, exported=True)
    (asked,) = code.arguments
    board = _Board(code)
    for what, change in ((BEGIN, 1), (END, -1)):
        with code.when(asked.equals(what)):
            code.add(board.place(HELPED), change)
    with code.when(asked.equals(HELP)):
        for _ in code.during(lambda: board[HELPED] > 0):
            code.call(work, asked)
    code.give(0)


def _share(module: ir.Module, work: Code) -> Code:
    """A function of a kernel's address, a frame and a number of parts that computes them all.

    Helpers take some where there are such, and else threads of XLA's pool, which may be busy.
    """
    code = Code(module, "share", 3)
    kernel, frame, parts = code.arguments
    board, alone = _Board(code), Variable(parts)
    with code.when(parts > 1), code.when(code.exchanged(board.place(BUSY), 0, 1)):
        alone.value = code.word(0)
        board[KERNEL], board[FRAME], board[PARTS], board[DONE] = kernel, frame, parts, 0
        board[WORK] = (((board[WORK] >> 16) + 1) << 16) | parts
        with code.when(board[HELPED].equals(0)):
            pool = Frame(frame)
            for _ in code.range(1, pool.threads(code).minimum(parts)):
                pool.schedule(code, work)
        code.call(work, frame)
        for _ in code.during(lambda: board[DONE] < parts):  # what others took is soon done
            pass
        board[BUSY] = 0
    for part in code.range(0, alone.value):
        code.call_at(kernel, frame, part, parts)
    code.give(0)
    return code


def written(name: str) -> ir.Module:
    """A function for the outside. XLA calls `multiply` and so on with a frame; 0 says that all is well."""
    module = ir.Module()
    work = _work(module)
    if name == "help":
        _help(module, work)
    else:
        _kernel(module, name, _share(module, work))
    return module
