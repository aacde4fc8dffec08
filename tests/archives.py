"""Sources of training data: the same files as a folder, a zip and a tar."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest


def folder(path: Path, files: dict[str, bytes]) -> Path:
    """The files in a folder of this name."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    """The files in a zip, all below one folder."""
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        for name, data in files.items():
            archive.writestr(f"all/{name}", data)
    return path.with_suffix(".zip")


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    """The files in a tar."""
    with tarfile.open(path.with_suffix(".tar"), "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path.with_suffix(".tar")


def on_disk(tokens: np.ndarray | None) -> bool:
    """Whether an array is a view of a file, and holds nothing of its own."""
    return tokens is not None and (isinstance(tokens, np.memmap) or on_disk(tokens.base))


ARCHIVES = pytest.mark.parametrize("maker", [folder, zipped, tarred])
