"""Images: archives of JPEG or PNG files as one array of bytes."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from perceiver_ar.codecs.base import Codec
from perceiver_ar.codecs.images import ImageCodec, Order
from perceiver_ar.config import SOS
from training.data.domain import Domain, Sample, Sequences, Unit
from training.data.store import contents, names_of_split, prepared

SUFFIXES = (".jpeg", ".jpg", ".png")
TOGETHER = 1024
"""Images decoded before the next ones are read: what is held in memory."""


class Pictures(NamedTuple):
    """SOS and the subpixels of each image; arrays (images, height, width, 3) stay on the disk until they are read."""

    codec: ImageCodec
    arrays: list[np.ndarray]

    def __len__(self) -> int:
        return sum(map(len, self.arrays))

    def __getitem__(self, number: int) -> np.ndarray:
        if not 0 <= number < len(self):
            raise IndexError(number)
        for array in self.arrays:
            if number < len(array):
                break
            number -= len(array)
        return np.concatenate([np.array([SOS], np.int32), self.codec.encode(array[number])])

    def length(self, number: int) -> int:
        return 1 + self.codec.length

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(0, len(self)))


@dataclass(frozen=True)
class Images(Domain):
    """Colour images of one size, in folders or files named after their split."""

    height: int = 64
    width: int = 64
    order: Order = "raster"
    """`raster`: the three channels of a pixel together; `planes`: all red, then all green, then all blue."""

    @property
    def codec(self) -> ImageCodec:
        return ImageCodec(self.height, self.width, self.order)

    @classmethod
    def of(cls, codec: Codec, context: int) -> "Images":
        assert isinstance(codec, ImageCodec)
        return cls(codec.height, codec.width, codec.order)

    def load(self, sources: tuple[Path, ...], split: str, store: Path) -> Pictures:
        if not sources:
            raise ValueError(
                "say where the images are: --data and a folder, a zip or a tar of JPEG or PNG files"
            )
        return Pictures(self.codec, [self._load_source(source, split, store) for source in sources])

    def _load_source(self, source: Path, split: str, store: Path) -> np.ndarray:
        names = names_of_split(source, split, SUFFIXES)

        def make(path: Path) -> dict[str, int]:
            out = np.lib.format.open_memmap(path, "w+", np.uint8, (len(names), *self.codec.shape))
            starts = range(0, len(names), TOGETHER)
            files = contents(source, names)
            with ThreadPoolExecutor() as pool:
                for start in track(starts, f"{source.stem} {split}", console=Console(stderr=True)):
                    images = pool.map(pixels, islice(files, TOGETHER))
                    for number, image in enumerate(images, start):
                        self._check(names[number], image)
                        out[number] = image
            out.flush()
            return {"images": len(names)}

        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        facts = {"files": len(names), "names_sha256": digest, "shape": self.codec.shape}
        return np.load(prepared(store, source, split, facts, make, ".npy"), mmap_mode="r")

    def _check(self, name: str, image: np.ndarray) -> None:
        if image.shape != self.codec.shape:
            height, width, _ = image.shape
            raise ValueError(
                f"{name} has {height} x {width} pixels, and this domain {self.height} x {self.width}: "
                "resize the images, or set --domain.height and --domain.width"
            )

    @property
    def unit(self) -> Unit:
        return Unit("bits/dim", 1 / float(np.log(2)))

    def figures(self, nll: float, tokens: int, sequences: Sequences) -> dict[str, float]:
        """Bits a subpixel."""
        return {"bits_per_dim": nll * self.unit.factor}

    def show(self, samples: list[Sample], folder: Path) -> list[Path]:
        """One grid: pairs of a picture's beginning and what the model made of it, side by side."""
        from PIL import Image

        pairs = [
            np.hstack([self.codec.decode(primer), self.codec.decode(np.concatenate([primer, made]))])
            for primer, made in samples
        ]
        across = int(np.ceil(np.sqrt(len(pairs) / 2)))
        pairs += [np.zeros_like(pairs[0])] * (-len(pairs) % across)
        grid = np.vstack([np.hstack(pairs[at : at + across]) for at in range(0, len(pairs), across)])
        path = folder / "samples.png"
        Image.fromarray(grid).save(path)
        return [path]


def pixels(file: bytes) -> np.ndarray:
    """Bytes (height, width, 3) of an image file."""
    from PIL import Image

    with Image.open(BytesIO(file)) as image:
        return np.asarray(image.convert("RGB"))


DOMAIN = Images
