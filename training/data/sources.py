"""Where data come from: folders, zips and tars of files, and Hugging Face's datasets by their names."""

import gzip
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.data import hub
from training.data.splits import NoSplit, split_of

TOGETHER = 16
"""Files that are made into pieces in one go, and kept as one part until all are done."""
MOST = 1000
"""Parts of a source: of more files than fit each part has more, since a part opens its archive anew."""
MOST_OF_TAR = 32
"""Parts of a tar, which has no table of contents: each part passes by all that lies before it. Of a compressed tar it
also unpacks that, so there a part a core is the most."""
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)
"""What reading an archive raises that was cut short or changed on its way."""


def names_in(source: Path) -> list[str]:
    """Names of all files of a folder, a zip or a tar, relative to it, in order.

    Raises:
        ValueError: it is none of these, or damaged.
    """
    if source.is_dir():
        return sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
    with _told(source):
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                return sorted(name for name in archive.namelist() if not name.endswith("/"))
        if source.is_file() and tarfile.is_tarfile(source):
            with tarfile.open(source) as archive:
                return sorted(member.name for member in _members(archive))
    if hub.is_named(source):
        raise ValueError(f"{source}: of Hugging Face's datasets only texts and images are read")
    if not source.exists():
        raise ValueError(f"there is no file or folder {source}")
    raise ValueError(
        f"{source} is neither a folder nor a whole zip or tar: give the download, unpacked or not, and get it again if "
        "it was cut short"
    )


@contextmanager
def _told(source: Path) -> Iterator[None]:
    """Damage of an archive, in a sentence."""
    try:
        yield
    except DAMAGE as error:
        raise ValueError(f"{source} is damaged ({error}): get it again") from error


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The files of a tar in one pass. What the archive notes of each is dropped: of a million files it takes a GB."""
    while member := archive.next():
        archive.members.clear()  # type: ignore[attr-defined]
        if member.isfile():
            yield member


def _in_tar(source: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Files of a tar with their names, in the archive's order, and nothing read behind the last of them."""
    wanted = set(names)
    with tarfile.open(source) as archive:
        for member in _members(archive):
            if member.name in wanted:
                file = archive.extractfile(member)
                assert file is not None
                yield member.name, file.read()
                wanted.remove(member.name)
                if not wanted:
                    return


def names_of_split(
    source: Path, split: str, suffixes: tuple[str, ...], rows: hub.Rows | None = None
) -> list[str]:
    """The files of a split that end in one of `suffixes` (lower case).

    Args:
        rows: what to read of a dataset that `hf:` names; by default none can be.

    Raises:
        NoSplit: there are none.
        ValueError: the source is neither a folder nor an archive, or damaged.
    """
    if rows and hub.is_named(source):
        return [f"{split}/{rows}"]
    names = [name for name in names_in(source) if name.lower().endswith(suffixes) and split_of(name) == split]
    if not names:
        raise NoSplit(
            f"{source} has no {' or '.join(suffixes)} files of its {split!r} split: name a folder or the files so"
        )
    return names


def identity(source: Path, names: list[str]) -> list[Any]:
    """What tells these files of a source from others of the same names, as far as can be said without reading them.

    They are told by their number, their bytes and when the newest was written; an archive is one file.
    """
    if hub.is_named(source):
        return [str(source)]
    found = [(source / name).stat() for name in names] if source.is_dir() else [source.stat()]
    newest = max((one.st_mtime_ns for one in found), default=0)
    return [str(source.resolve()), len(found), sum(one.st_size for one in found), newest]


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
    """Names cut into parts, in order, which are made and kept one by one. A dataset's are its shards.

    A tar's are in the order of the archive, so that a part lies in one stretch.
    """
    if hub.is_named(source):
        return [[shard] for name in names for shard in hub.shards(source, name)]
    most = MOST
    if _is_tar(source):
        with _told(source), tarfile.open(source) as archive:
            places = {member.name: place for place, member in enumerate(_members(archive))}
        names, most = sorted(names, key=places.__getitem__), _most_of_tar(source)
    size = max(TOGETHER, -(-len(names) // most))
    return [names[at : at + size] for at in range(0, len(names), size)]


def read(source: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Each file of a part with its name, a tar's in the order of the archive; the rows of a dataset are files too.

    Raises:
        ValueError: the archive is damaged.
    """
    if hub.is_named(source):
        for name in names:
            yield from hub.rows(source, name)
    elif source.is_dir():
        yield from ((name, (source / name).read_bytes()) for name in names)
    else:
        with _told(source):
            if _is_tar(source):
                yield from _in_tar(source, names)
            else:
                with zipfile.ZipFile(source) as archive:
                    yield from ((name, archive.read(name)) for name in names)


def _is_tar(source: Path) -> bool:
    """Of a folder or an archive: that it is neither a folder nor a zip."""
    return not source.is_dir() and not zipfile.is_zipfile(source)


def _most_of_tar(source: Path) -> int:
    try:
        tarfile.open(source, "r:").close()
    except tarfile.ReadError:  # it is compressed
        return os.cpu_count() or 1
    return MOST_OF_TAR
