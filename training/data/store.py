"""What is made of sources once, in parts, by all cores or by Beam, and kept beside a manifest."""

import hashlib
import json
import multiprocessing
import shutil
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from perceiver_ar.config import EOS, SOS
from perceiver_ar.files import whole
from training.data import sources
from training.data.domain import Pieces
from training.data.splits import NoSplit

AHEAD = 128
"""Items that are worked on, or done and waiting for their turn: what is held in memory."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Part(NamedTuple):
    """Some files of a source, and the file that they become."""

    path: Path
    names: list[str]


@dataclass
class Notes:
    """What is said of a part, and of all parts together."""

    counts: Counter[str] = field(default_factory=Counter)
    left_out: list[str] = field(default_factory=list)
    """A file that could not be used, and why, in a line each."""


Encode = Callable[[Iterator[tuple[str, bytes]], Notes], Iterable[np.ndarray]]
"""The pieces of some files, given by name and content, each an array as it is kept (`framed` for tokens); notes down
what else is to be known of them."""
Make = Callable[[Part], None]
Runner = Callable[[Make, list[Part], str], None]
"""Makes parts, in any order and wherever it likes; the last argument names them for people."""


@dataclass(frozen=True)
class Recipe:
    """How a split of a source becomes one file of pieces."""

    source: Path
    split: str
    names: list[str]
    """Its files."""
    facts: dict[str, Any]
    """All that the pieces depend on beside the source, such as the codec and the names of the files."""
    encode: Encode
    """Can be pickled, since it is sent to other processes."""
    unit: str = "tokens"
    """What the first axis of a piece counts."""
    told: dict[str, Any] = field(default_factory=dict)
    """What else the manifest says, such as the codec. Unlike `facts` it has no part in the name of the file."""


def prepare(recipe: Recipe, store: Path, run: Runner | None = None) -> Path:
    """The file of a recipe in the folder `store`: made once, whole or not at all, with its manifest beside it.

    It is made in parts, which are kept until all are there: after an interruption the same call makes the others.

    Args:
        run: makes the parts; by default the processes of this machine do.

    Raises:
        NoSplit: the source is a dataset without the split.
        ValueError: none of the files can be used, or the source is damaged.
        OSError: the system killed one of the processes, or the folder cannot be made.
    """
    source, split = recipe.source, recipe.split
    key = json.dumps([*sources.identity(source, recipe.names), *recipe.facts.values()])
    stem = f"{sources.label(source)}-{split}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    path, folder = store / f"{stem}.npy", store / f"{stem}.parts"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"nothing can be prepared in {store} ({error.strerror}): choose another --workdir, or --store of evaluate"
        ) from error
    try:
        groups = sources.parts_of(source, recipe.names)
        parts = [Part(folder / f"{n:05}-of-{len(groups):05}.npy", names) for n, names in enumerate(groups)]
        todo = [part for part in parts if not part.path.exists()]
        (run or by_processes)(
            partial(make_part, source, recipe.encode), todo, f"{sources.label(source)} {split}"
        )
        _join(recipe, [part.path for part in parts], path)
        shutil.rmtree(folder, ignore_errors=True)
    except FileNotFoundError:
        if not path.exists():  # or else another process was quicker, and has cleared the parts away
            raise
    finally:
        with suppress(OSError):  # there are parts, to go on with
            folder.rmdir()
    return path


def prepare_all(
    recipe: Callable[[Path, str], Recipe],
    given: Iterable[Path],
    split: str,
    store: Path,
    run: Runner | None = None,
) -> list[Path]:
    """As `prepare` the files of all sources that have the split; a line on stderr for each that lacks it.

    So archives that hold a split each can be given together, as ImageNet's are.

    Args:
        recipe: a domain's.

    Raises:
        NoSplit: none has it.
        ValueError, OSError: as `prepare`.
    """
    paths, lacking = [], {}
    for source in given:
        try:
            paths.append(prepare(recipe(source, split), store, run))
        except NoSplit as error:
            lacking[source] = error
    if lacking and not paths:
        first = next(iter(lacking.values()))
        raise first if len(lacking) == 1 else NoSplit(f"no source has a {split!r} split: {first}")
    for source in lacking:
        print(f"{source} has no {split!r} split, so it adds nothing to it", file=sys.stderr)
    return paths


def by_processes(make: Make, parts: list[Part], title: str) -> None:
    """Make parts with all cores, and a bar that counts them; a single one in this process, which begins at once.

    An interruption is this process's business alone: it ends the others, with what they have not finished.
    """
    bar = partial(track, description=f"Preparing {title}", total=len(parts), console=Console(stderr=True))
    if len(parts) < 2:
        deque(bar(map(make, parts)), maxlen=0)
        return
    others, deaf = set(multiprocessing.active_children()), (signal.SIGINT, signal.SIG_IGN)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=spawn, initializer=signal.signal, initargs=deaf) as pool:
        try:
            deque(bar(in_order(pool, make, parts)), maxlen=0)
        except BrokenProcessPool as error:
            raise OSError(
                f"a process that prepared {title} was killed, most likely for want of memory: run the same again to go "
                "on, or first `python -m training prepare` with `-- --direct_num_workers=2`, for fewer at a time"
            ) from error
        except KeyboardInterrupt:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def make_part(source: Path, encode: Encode, part: Part) -> None:
    """Write the pieces of a part's files, unless they are there, and its notes before them."""
    if part.path.exists():
        return
    notes = Notes()
    with whole(part.path) as file:
        counts = save_pieces(file, encode(sources.read(source, part.names), notes))
        found = {"pieces": counts["pieces"], "counts": notes.counts, "left_out": notes.left_out}
        part.path.with_suffix(".json").write_text(json.dumps(found))


def _join(recipe: Recipe, paths: list[Path], path: Path) -> None:
    """Write the file of all parts, one behind the other, and the manifest."""
    notes = [json.loads(part.with_suffix(".json").read_text()) for part in paths]
    full = [part for part, found in zip(paths, notes, strict=True) if found["pieces"]]
    left_out = [line for found in notes for line in found["left_out"]]
    if not full:
        shutil.rmtree(path.with_suffix(".parts"))  # lest files that were mended are thought to be done
        raise ValueError(
            f"none of the files of {recipe.source} can be used, as {left_out[0]}"
            if left_out
            else f"the files of the {recipe.split!r} split of {recipe.source} are empty: there is nothing to learn from"
        )
    counts: Counter[str] = Counter()
    for found in notes:
        counts.update(found["counts"])
    with whole(path) as file:
        saved = save_pieces(file, (piece for part in full for piece in _pieces_of(part)))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        manifest = sources.origin(recipe.source, recipe.names) | {"split": recipe.split}
        manifest |= recipe.told | recipe.facts
        manifest |= {
            "pieces": saved["pieces"],
            recipe.unit: saved["size"],
            **counts,
            "skipped": len(left_out),
        }
        # Before the file that it describes: where that one is, its manifest is too.
        path.with_suffix(".json").write_text(json.dumps(manifest | {"sha256": digest}, indent=1))
    if left_out:
        print(f"{len(left_out)} of {len(recipe.names)} files left out, as {left_out[0]}", file=sys.stderr)


def manifest_of(path: Path) -> dict[str, Any]:
    """The manifest of a file that `prepare` gave: its source and split, the facts, the counts, and its hash."""
    return json.loads(path.with_suffix(".json").read_text())


def manifests(store: Path) -> list[dict[str, Any]]:
    """The manifests of all that was prepared in the folder `store`, by name."""
    return [json.loads(path.read_text()) for path in sorted(store.glob("*.json"))]


def in_order(pool: Executor, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """What `work` makes of each item, in the order of the items, by all workers, at most `AHEAD` of them at a time."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) == AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def framed(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """A piece: tokens between SOS and EOS, in two bytes each if the vocabulary allows and in four if not."""
    dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    return np.concatenate([[SOS], tokens, [EOS]]).astype(dtype)


def save_pieces(file: BinaryIO, pieces: Iterable[np.ndarray]) -> dict[str, int]:
    """Write pieces end to end; their number, and their size along the first axis, which is all that they differ in.

    They are written as they come, so that one is in memory at a time. The file is an array in NumPy's format, and
    behind it a second one, the offsets.
    """
    lengths, dtype, rest = [], np.dtype(np.uint16), ()
    _write_header(file, dtype, (0,))
    for piece in pieces:
        if not lengths:
            dtype, rest = piece.dtype, piece.shape[1:]
            _write_header(file, dtype, (0, *rest))
        file.write(piece.tobytes())
        lengths.append(len(piece))
    offsets = np.cumsum([0, *lengths])
    np.save(file, offsets)
    _write_header(file, dtype, (int(offsets[-1]), *rest))
    return {"pieces": len(lengths), "size": int(offsets[-1])}


def _write_header(file: BinaryIO, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """At the file's beginning. NumPy leaves room in it, so that it is as long whatever the size."""
    file.seek(0)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def read_pieces(path: Path) -> Pieces:
    """What `save_pieces` wrote; tokens stay on the disk until they are read.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        tokens = np.lib.format.open_memmap(path, mode="r")
        with path.open("rb") as file:
            file.seek(tokens.offset + tokens.nbytes)
            offsets = np.lib.format.read_array(file)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and it is prepared again") from error
    return Pieces(tokens.view(np.ndarray), offsets)


def _pieces_of(path: Path) -> Iterator[np.ndarray]:
    pieces = read_pieces(path)
    return (pieces[number] for number in range(len(pieces)))
