"""Pretrained models by name, and the files that ship with the package."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOTS = (Path(__file__).parent / "assets", Path(__file__).parent.parent / "assets")
"""Where shipped files lie: in the wheel, or beside the package in a checkout."""


@dataclass(frozen=True)
class Shipped:
    """A model that ships with the package."""

    name: str
    description: str
    licence: str
    context: int
    """Tokens of context."""
    sha256: str
    """Of its weights' file."""
    default: bool = False


MODELS = (
    Shipped(
        "piano",
        "expressive piano performances, trained on MAESTRO and ASAP",
        "CC BY-NC-SA 4.0",
        16_384,
        "78fdd54b1cd788011643c98a2394e9c0c4ed9e9074233cc5a7853e9144a8e431",
        default=True,
    ),
    Shipped(
        "piano-small",
        "the same music from a small model, for slow machines and tests",
        "CC BY-NC-SA 4.0",
        4096,
        "76db3f5e59b258daeac71b72a6f77fcccf8680af50e4b0d624e51b85d892fbc7",
    ),
)
DEFAULT = next(model.name for model in MODELS if model.default)


def shipped(name_or_path: str | Path) -> Shipped | None:
    """The shipped model of this name; None of anything else, a longer path of its folder too."""
    return next((model for model in MODELS if model.name == str(name_or_path)), None)


def asset(*parts: str) -> Path:
    """A shipped file or folder.

    Raises:
        FileNotFoundError: this installation does not have it.
    """
    for root in ROOTS:
        if (path := root.joinpath(*parts)).exists():
            return path
    raise FileNotFoundError(f"{'/'.join(parts)} is not part of this installation: install perceiver-ar again")


def user_cache(*parts: str) -> Path:
    """A place in the user's cache folder, which need not exist yet."""
    base = {"win32": os.environ.get("LOCALAPPDATA", ""), "darwin": "~/Library/Caches"}.get(
        sys.platform, os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    )
    return Path(base).expanduser().joinpath("perceiver-ar", *parts)


def resolve(name_or_path: str | Path) -> Path:
    """The folder of a model, given by its shipped name or by a path.

    Raises:
        FileNotFoundError: neither a shipped model nor a folder with a model in it.
    """
    if shipped(name_or_path):
        return asset(str(name_or_path))
    if (Path(name_or_path) / "config.json").is_file():
        return Path(name_or_path)
    names = ", ".join(model.name for model in MODELS)
    raise FileNotFoundError(
        f"no model {str(name_or_path)!r}: give {names}, or a folder that holds a config.json"
    )
