"""Hugging Face's datasets by their names, `hf:NAME[:CONFIG][@REVISION]`: streamed, one of their own files at a time."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from training.data.splits import ALIASES, NoSplit

if TYPE_CHECKING:
    from datasets import DatasetBuilder, IterableDataset

PREFIX = "hf:"
NAME = re.compile(r"hf:(?P<name>[^:@]+)(:(?P<config>[^:@]+))?(@(?P<revision>.+))?")
Rows = Literal["text", "lines", "image"]
"""What to read: a text a row, rows that are the lines of one text, or an image's file a row."""


def is_named(source: Path) -> bool:
    """Whether a source is the name of a dataset, not the path of an archive."""
    return source.as_posix().startswith(PREFIX)


def shards(source: Path, name: str) -> list[str]:
    """Cut `SPLIT/ROWS` into names for `rows`: a shard of the dataset each, or all of them where they are one text.

    Raises:
        NoSplit: the dataset has others.
        ValueError: there is no such dataset, or nothing in it that can be read so.
    """
    split, kind = name.split("/")
    count = 1 if kind == "lines" else _stream(source, split, kind)[0].num_shards
    return [f"{name}/{number}-of-{count}" for number in range(count)]


def rows(source: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """What a name of `shards` stands for, as files: a name to show, and the text in UTF-8 or the image's file."""
    split, kind, shard = name.split("/")
    index, count = map(int, shard.split("-of-"))
    stream, column = _stream(source, split, kind)
    with _told(source):
        if kind == "lines":
            yield name, b"".join(_line(row[column]) for row in stream)
            return
        for number, row in enumerate(stream.shard(count, index) if count > 1 else stream):
            yield f"{name}/{number}", row[column].encode("utf-8") if kind == "text" else _file(row[column])


def revision(source: Path, names: list[str]) -> str:
    """The commit that was read, if the Hub tells, or else the hash that `datasets` gives to what it reads."""
    builder = _builder(source)
    files = (builder.config.data_files or {}).get(names[0].split("/")[0])
    commits = {one[1] for one in getattr(files, "origin_metadata", []) if len(one) == 2}
    return commits.pop() if len(commits) == 1 else str(builder.hash)


def _line(text: str) -> bytes:
    """A row that is a line, with its end, which some datasets leave out."""
    return (text if text.endswith("\n") else f"{text}\n").encode("utf-8")


def _file(image: dict[str, Any]) -> bytes:
    if image["bytes"] is not None:
        return image["bytes"]
    import fsspec

    with fsspec.open(image["path"], "rb") as file:
        return file.read()  # type: ignore[union-attr]


def _stream(source: Path, split: str, kind: str) -> "tuple[IterableDataset, str]":
    """A split, and the column to read of it."""
    builder = _builder(source)
    from datasets import Image

    with _told(source):
        stream: Any = builder.as_streaming_dataset()
    named = {ALIASES.get(str(name), str(name)): name for name in stream}
    if split not in named:
        raise NoSplit(f"{source} has no {split!r} split, but {', '.join(map(str, stream))}")
    stream = stream[named[split]]
    with _told(source):
        features = stream.features or dict.fromkeys(next(iter(stream), {}))
    if kind == "image":
        columns = [name for name, feature in features.items() if isinstance(feature, Image)]
    else:
        columns = [name for name in features if name == "text"]
    if not columns:
        raise ValueError(
            f"{source} has no column {'of images' if kind == 'image' else 'text'}, but {', '.join(features)}"
        )
    if kind == "image":
        stream = stream.cast_column(columns[0], Image(decode=False))
    return stream, columns[0]


def _builder(source: Path) -> "DatasetBuilder":
    try:
        from datasets import load_dataset_builder
    except ImportError:
        raise ValueError(
            f"{source} is read with the package datasets: install perceiver-ar[hub], or give the files themselves"
        ) from None
    if not (found := NAME.fullmatch(source.as_posix())):
        raise ValueError(
            f"{source} is no name of a dataset: write hf:NAME, hf:NAME:CONFIG or hf:NAME@REVISION"
        )
    with _told(source):
        return load_dataset_builder(found["name"], found["config"], revision=found["revision"])


@contextmanager
def _told(source: Path) -> Iterator[None]:
    """What `datasets` raises, which may be anything from the network's errors on, in a sentence."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{source} cannot be read: {reason}") from error
