"""What names say of splits."""

import re

ALIASES = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
"""Words in the names of files and folders that mean a split, beside the splits' own names."""


def split_of(name: str) -> str | None:
    """The split that a file's name says it belongs to: by its outermost folder that names one, or by itself."""
    for part in name.lower().split("/"):
        for word in re.split(r"[^a-z]+", part):
            if word in ALIASES or word in {"validation", "test"}:
                return ALIASES.get(word, word)
    return None
