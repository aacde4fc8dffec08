"""Where data come from: folders, zips and tars of files, and Hugging Face's datasets by their names."""

import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.data import hub
from training.data.splits import split_of

TOGETHER = 16
"""Files that are made into pieces in one go, and kept as one part until all are done."""
MOST = 1000
"""Parts of a source: of more files than fit each part has more, since a part opens its archive anew."""


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
    if hub.is_named(source):
        raise ValueError(f"{source}: of Hugging Face's datasets only texts and images are read")
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


def names_of_split(
    source: Path, split: str, suffixes: tuple[str, ...], rows: hub.Rows | None = None
) -> list[str]:
    """The files of a split that end in one of `suffixes` (lower case).

    Args:
        rows: what to read of a dataset that `hf:` names; by default none can be.

    Raises:
        ValueError: there are none, or the source is neither a folder nor an archive.
    """
    if rows and hub.is_named(source):
        return [f"{split}/{rows}"]
    names = [name for name in names_in(source) if name.lower().endswith(suffixes) and split_of(name) == split]
    if not names:
        raise ValueError(
            f"{source} has no {' or '.join(suffixes)} files of its {split!r} split: name a folder or the files so"
        )
    return names


def identity(source: Path) -> list[Any]:
    """What tells a source from another of the same name, as far as can be said without reading it."""
    return [str(source)] if hub.is_named(source) else [str(source.resolve()), source.stat().st_size]


def label(source: Path) -> str:
    """A name for files that are made of the source, and for people."""
    return (
        re.sub(r"[^\w.-]+", "-", source.name.removeprefix(hub.PREFIX))
        if hub.is_named(source)
        else source.stem
    )


def origin(source: Path, names: list[str]) -> dict[str, Any]:
    """What a manifest says of a source."""
    if hub.is_named(source):
        return {"source": str(source), "revision": hub.revision(source, names)}
    return {"source": source.name}


def parts_of(source: Path, names: list[str]) -> list[list[str]]:
    """Names cut into parts, in order, which are made and kept one by one. A dataset's are its shards."""
    if hub.is_named(source):
        return [[shard] for name in names for shard in hub.shards(source, name)]
    size = max(TOGETHER, -(-len(names) // MOST))
    return [names[at : at + size] for at in range(0, len(names), size)]


def read(source: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Each file of a part with its name; the rows of a dataset are files too."""
    if hub.is_named(source):
        for name in names:
            yield from hub.rows(source, name)
    else:
        yield from zip(names, contents(source, names), strict=True)
