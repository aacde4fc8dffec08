"""Archives of files, and what is made of them once and kept beside a manifest."""

import hashlib
import json
import os
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
            os.replace(unfinished, path)
        finally:
            Path(unfinished).unlink(missing_ok=True)
        manifest = {"source": source.name, "split": split} | facts | counts
        (store / f"{stem}.json").write_text(json.dumps(manifest, indent=1))
    return path


def save_pieces(path: Path, documents: Iterator[np.ndarray]) -> dict[str, int]:
    """Write documents as `Pieces`, each between SOS and EOS; the number of pieces and of tokens."""
    tokens = [_narrow(np.concatenate([[SOS], document, [EOS]])) for document in documents]
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in tokens])])
    np.savez(path, tokens=np.concatenate(tokens), offsets=offsets)
    return {"pieces": len(tokens), "tokens": int(offsets[-1])}


def _narrow(tokens: np.ndarray) -> np.ndarray:
    """Tokens in the fewest bytes that hold them; joined with wider ones they become as wide."""
    return tokens.astype(np.uint16 if tokens.max() <= np.iinfo(np.uint16).max else np.int32)


def read_pieces(path: Path) -> Pieces:
    """What `save_pieces` wrote."""
    with np.load(path) as arrays:
        return Pieces(arrays["tokens"], arrays["offsets"])
