"""Images: archives of JPEG or PNG files as one array of bytes."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perceiver_ar.codecs.base import Codec
from perceiver_ar.codecs.images import ImageCodec, Order
from perceiver_ar.config import SOS
from training.data.domain import Domain, Joined, Sample, Sequences, Unit
from training.data.sources import names_of_split
from training.data.store import Notes, Recipe, in_order, prepare_all, read_pieces

SUFFIXES = (".jpeg", ".jpg", ".png")


class Pictures(NamedTuple):
    """SOS and the subpixels of each image; bytes (images, height, width, 3) stay on the disk until they are read."""

    codec: ImageCodec
    images: Joined

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> np.ndarray:
        if not 0 <= number < len(self):
            raise IndexError(number)
        [image] = self.images[number : number + 1]
        return np.concatenate([np.array([SOS], np.int32), self.codec.encode(image)])

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
        paths = prepare_all(self.recipe, sources, split, store)
        return Pictures(self.codec, Joined([read_pieces(path).tokens for path in paths]))

    def recipe(self, source: Path, split: str) -> Recipe:
        names = names_of_split(source, split, SUFFIXES, "image")
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        facts = {"files": len(names), "names_sha256": digest, "shape": self.codec.shape}
        codec = self.codec.to_dict()
        del codec["order"]  # the same pixels serve both
        return Recipe(source, split, names, facts, self._decode, "images", {"codec": codec})

    def _decode(self, files: Iterator[tuple[str, bytes]], notes: Notes) -> Iterator[np.ndarray]:
        """Bytes (1, height, width, 3) of each."""
        with ThreadPoolExecutor() as pool:  # Pillow lets go of Python's lock
            yield from in_order(pool, self._pixels, files)

    def _pixels(self, file: tuple[str, bytes]) -> np.ndarray:
        name, content = file
        try:
            image = pixels(content)
        except Exception as error:  # Pillow raises OSError, SyntaxError, zlib's and struct's errors and more
            raise ValueError(f"{name} is damaged, or no image: get it again, or leave it out") from error
        if image.shape != self.codec.shape:
            height, width, _ = image.shape
            raise ValueError(
                f"{name} has {height} x {width} pixels, and this domain {self.height} x {self.width}: "
                "resize the images, or set --domain.height and --domain.width"
            )
        return image[None]

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
