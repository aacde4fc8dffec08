"""Archives of files, and what is made of them once, a few at a time, and kept beside a manifest."""

import hashlib
import json
import os
import re
import tarfile
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from perceiver_ar.config import EOS, SOS
from training.data.domain import Pieces

ALIASES = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
"""Words in the names of files and folders that mean a split, beside the splits' own names."""
AHEAD = 128
"""Files that are worked on, or done and waiting for their turn: what is held in memory."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def names_in(source: Path) -> list[str]:
    """Names of all files of a folder, a zip or a tar, relative to it, in order.

    Raises:
        ValueError: it is none of these.
    """
    if source.is_dir():
        return sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            return sorted(name for name in archive.namelist() if not name.endswith("/"))
    if source.is_file() and tarfile.is_tarfile(source):
        with tarfile.open(source) as archive:
            return sorted(member.name for member in archive if member.isfile())
    raise ValueError(f"{source} is neither a folder nor a zip or tar: give the download, unpacked or not")


def contents(source: Path, names: list[str]) -> Iterator[bytes]:
    """What is in these files of a folder, a zip or a tar, in this order."""
    if source.is_dir():
        yield from ((source / name).read_bytes() for name in names)
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            yield from (archive.read(name) for name in names)
    else:
        with tarfile.open(source) as archive:
            for name in names:
                file = archive.extractfile(name)
                assert file is not None
                yield file.read()


def split_of(name: str) -> str | None:
    """The split that a file's name says it belongs to: by its outermost folder that names one, or by itself."""
    for part in name.lower().split("/"):
        for word in re.split(r"[^a-z]+", part):
            if word in ALIASES or word in {"validation", "test"}:
                return ALIASES.get(word, word)
    return None


def names_of_split(source: Path, split: str, suffixes: tuple[str, ...]) -> list[str]:
    """The files of a split that end in one of `suffixes` (lower case).

    Raises:
        ValueError: there are none, or the source is neither a folder nor an archive.
    """
    names = [name for name in names_in(source) if name.lower().endswith(suffixes) and split_of(name) == split]
    if not names:
        raise ValueError(
            f"{source} has no {' or '.join(suffixes)} files of its {split!r} split: name a folder or the files so"
        )
    return names


def prepared(
    store: Path,
    source: Path,
    split: str,
    facts: dict[str, Any],
    make: Callable[[Path], dict[str, int]],
    suffix: str,
) -> Path:
    """The file that `make` writes for a split of a source: made once, whole or not at all, with its manifest beside it.

    Args:
        facts: all that the file depends on beside the source, such as the codec and the names of its files.
        make: writes the file to a path and gives the counts for the manifest.
    """
    key = json.dumps([str(source.resolve()), source.stat().st_size, *facts.values()])
    stem = f"{source.stem}-{split}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    path = store / f"{stem}{suffix}"
    if not path.exists():
        store.mkdir(parents=True, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(dir=store, suffix=suffix)
        os.close(descriptor)
        try:
            counts = make(Path(unfinished))
            # Before the file that it describes: where that one is, its manifest is too.
            manifest = {"source": source.name, "split": split} | facts | counts
            (store / f"{stem}.json").write_text(json.dumps(manifest, indent=1))
            os.replace(unfinished, path)
        finally:
            Path(unfinished).unlink(missing_ok=True)
    return path


def manifest_of(path: Path) -> dict[str, Any]:
    """The manifest of a file that `prepared` gave: its source and split, the facts, and what `make` counted."""
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


def save_pieces(path: Path, documents: Iterable[np.ndarray], vocab_size: int) -> dict[str, int]:
    """Write documents as `Pieces`, each between SOS and EOS; the number of pieces and of tokens.

    Documents are written as they come, so that one is in memory at a time. The file is an array in NumPy's format, all
    tokens in two bytes each if the vocabulary allows and in four if not, and behind it a second one, the offsets.

    Raises:
        ValueError: there are no documents.
    """
    dtype = np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
    lengths = []
    with path.open("wb") as file:
        _write_header(file, dtype, 0)
        for document in documents:
            file.write(np.concatenate([[SOS], document, [EOS]]).astype(dtype).tobytes())
            lengths.append(len(document) + 2)
        if not lengths:
            raise ValueError("the files of the split are empty: there is nothing to learn from")
        offsets = np.cumsum([0, *lengths])
        np.save(file, offsets)
        _write_header(file, dtype, int(offsets[-1]))
    return {"pieces": len(lengths), "tokens": int(offsets[-1])}


def _write_header(file: BinaryIO, dtype: np.dtype, size: int) -> None:
    """At the file's beginning. NumPy leaves room in it, so that it is as long whatever the size."""
    file.seek(0)
    shape = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (size,)}
    np.lib.format.write_array_header_1_0(file, shape)


def read_pieces(path: Path) -> Pieces:
    """What `save_pieces` wrote; tokens stay on the disk until they are read."""
    tokens = np.lib.format.open_memmap(path, mode="r")
    with path.open("rb") as file:
        file.seek(tokens.offset + tokens.nbytes)
        offsets = np.lib.format.read_array(file)
    return Pieces(tokens.view(np.ndarray), offsets)
