"""Machine code of the loops: compiled once, kept in the user's cache folder, and loaded from there without LLVM.

LLVM takes seconds for them, and memory that a process never gives back. Code that may lie anywhere in memory leaves
one thing open, 64 bit addresses of its own parts, so loading it takes a page; elsewhere, and where it asks for more,
LLVM compiles at each start.
"""

import ctypes
import hashlib
import mmap
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_ar.files import whole
from perceiver_ar.registry import user_cache

HELP, BEGIN, END = 1, 2, 3
"""What `help` is asked for: to help, from when, and until when."""
Function = Callable[[int], int]
BOARD = "perceiver_ar_board"
"""The name of a page that all functions know, and threads share."""
# Private memory, so that a process that is forked has a board of its own.
_PAGES = np.zeros(2 * mmap.PAGESIZE, np.uint8)
OUTSIDE = {BOARD: -(-_PAGES.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE}
SOURCES = (
    "calls.py",
    "compiler.py",
    "frames.py",
    "gradients.py",
    "loops.py",
    "machine_code.py",
    "vectors.py",
)
SYMTAB, RELA = 2, 4
"""Types of sections of an ELF object (System V ABI, AMD64 supplement) ..."""
NOBITS = 8
"""... of one that is nought, and not in the file ..."""
WRITE, ALLOC = 1, 2
"""... and their flags: data that changes, and what has a place in memory at all."""
X86_64_64 = 1
"""The kind of a relocation that asks for a symbol's address, 64 bits of it."""
SECTION = np.dtype(
    [(name, "u4") for name in ("name", "type")]
    + [(name, "u8") for name in ("flags", "address", "offset", "size")]
    + [(name, "u4") for name in ("link", "info")]
    + [(name, "u8") for name in ("align", "each")]
)
SYMBOL = np.dtype(
    [("name", "u4"), ("info", "u1"), ("other", "u1"), ("section", "u2"), ("value", "u8"), ("size", "u8")]
)
RELOCATION = np.dtype([("offset", "u8"), ("kind", "u4"), ("symbol", "u4"), ("addend", "i8")])


def function(name: str) -> Function:
    """The compiled function of a word that has this name in `calls`.

    Raises:
        ImportError: there is no LLVM for this machine, or the CPU lacks what the loops need.
    """
    if sys.platform == "linux" and platform.machine() == "x86_64":
        with suppress(ImportError):  # another LLVM may ask for what only it can give
            return _placed(_object(name), name)
    from perceiver_ar.kernels import calls, compiler

    return compiler.compiled(calls.written(name), name, OUTSIDE)


def _object(name: str) -> bytes:
    """The ELF object of the function of that name, from the user's cache folder if it is there."""
    path = user_cache("kernels", _key(name))
    if (code := _kept(path)) is None:
        from perceiver_ar.kernels import calls, compiler

        code = compiler.object_code(calls.written(name))
        with suppress(OSError):  # no home to write to: it compiles every time
            _keep(path, code)
    return code


def _key(name: str) -> str:
    """What the code depends on: what it is for, its source, the compiler, and the CPU.

    Raises:
        ImportError: the system does not say which CPU it is.
    """
    digest = hashlib.sha256(f"{name} {version('llvmlite')}".encode())
    for source in SOURCES:
        digest.update(Path(__file__).with_name(source).read_bytes())
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ImportError("without /proc nothing says which CPU this is") from error
    for what in ("model name", "flags"):
        digest.update(next((line for line in lines if line.startswith(what)), "").encode())
    return digest.hexdigest()[:32]


def _kept(path: Path) -> bytes | None:
    """What `_keep` has kept; None where there is nothing, or where it is damaged."""
    try:
        digest, code = (content := path.read_bytes())[:32], content[32:]
    except OSError:
        return None
    return code if hashlib.sha256(code).digest() == digest else None


def _keep(path: Path, code: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as file:
        file.write(hashlib.sha256(code).digest() + code)


def _placed(code: bytes, wanted: str) -> Function:
    """The function of that name in an ELF object, which gets a place in memory."""
    begin, count = int(np.frombuffer(code, "u8", 1, 0x28)[0]), int(np.frombuffer(code, "u2", 1, 0x3C)[0])
    sections = np.frombuffer(code, SECTION, count, begin)

    def table(section: Any, kind: np.dtype) -> np.ndarray:
        return np.frombuffer(code, kind, int(section["size"]) // kind.itemsize, int(section["offset"]))

    places, fixed, size = _layout(sections)
    memory = mmap.mmap(-1, size)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for n, place in places.items():
        if sections[n]["type"] != NOBITS:
            at, length = int(sections[n]["offset"]), int(sections[n]["size"])
            memory[place : place + length] = code[at : at + length]

    named = next(one for one in sections if one["type"] == SYMTAB)
    symbols, names = table(named, SYMBOL), code[int(sections[int(named["link"])]["offset"]) :]

    def called(symbol: Any) -> str:
        return names[symbol["name"] :].split(b"\0", 1)[0].decode()

    def address(symbol: Any) -> int:
        if not symbol["section"]:
            if (name := called(symbol)) not in OUTSIDE:
                raise ImportError(f"the kernels ask for {name or 'something'}, which is nowhere")
            return OUTSIDE[name]
        return base + places[int(symbol["section"])] + int(symbol["value"])

    for section in sections:
        if section["type"] != RELA or int(section["info"]) not in places:
            continue
        for entry in table(section, RELOCATION):
            if entry["kind"] != X86_64_64:
                raise ImportError(f"the kernels ask for a relocation of kind {entry['kind']}")
            at = places[int(section["info"])] + int(entry["offset"])
            found = address(symbols[entry["symbol"]]) + int(entry["addend"])
            memory[at : at + 8] = found.to_bytes(8, "little")

    protect, may_run = ctypes.CDLL(None).mprotect, mmap.PROT_READ | mmap.PROT_EXEC
    if protect(ctypes.c_void_p(base), ctypes.c_size_t(fixed), may_run):
        raise ImportError("this system does not let a program run what it compiled")
    symbol = next(one for one in symbols if called(one) == wanted)
    found = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address(symbol))
    found.memory = memory  # type: ignore[attr-defined]  # which goes when the function goes
    return found


def _layout(sections: np.ndarray) -> tuple[dict[int, int], int, int]:
    """Where each section lies that has a place in memory, how long those are that nobody writes to, and all of them."""
    places, size, fixed = {}, 0, 0
    for changes in (0, WRITE):
        fixed = size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        for n, section in enumerate(sections):
            if section["flags"] & ALLOC and section["flags"] & WRITE == changes:
                align = max(int(section["align"]), 1)
                places[n] = -(-size // align) * align
                size = places[n] + int(section["size"])
    return places, fixed, size
