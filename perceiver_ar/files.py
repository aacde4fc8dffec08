"""Files that are written whole or not at all."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path


@contextmanager
def whole(path: str | Path) -> Iterator[BufferedRandom]:
    """A new file to write and read, which takes the place of `path` when it is done; until then nothing there changes.

    A symbolic link stays one: the file that it names is replaced. What is no ordinary file, such as a folder or a
    device, raises OSError.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not an ordinary file", str(path))
    # Opened by a name that nobody has, rather than by `tempfile`, whose files only their owner may read.
    part = path.with_name(f".perceiver-ar-{secrets.token_hex(8)}.part")
    try:
        with part.open("x+b") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
