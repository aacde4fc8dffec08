"""What names say of splits."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

ALIASES = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
"""Words in the names of files and folders that mean a split, beside the splits' own names."""


class NoSplit(ValueError):
    """A source that can be read, and has nothing of a split."""


Made = TypeVar("Made")


def first_with_split(sources: Sequence[Path], make: Callable[[tuple[Path, ...]], Made]) -> Made:
    """What `make` makes of the first source that has the split; of none where none was given.

    Raises:
        NoSplit: no source has it.
    """
    for source in sources[:-1]:
        try:
            return make((source,))
        except NoSplit:
            continue
    return make(tuple(sources[-1:]))


def split_of(name: str) -> str | None:
    """The split that a file's name says it belongs to: by its outermost folder that names one, or by itself."""
    for part in name.lower().split("/"):
        for word in re.split(r"[^a-z]+", part):
            if word in ALIASES or word in {"validation", "test"}:
                return ALIASES.get(word, word)
    return None
