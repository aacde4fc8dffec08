"""Images as subpixels, row by row (Perceiver AR, section 5.2)."""

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal, get_args

import numpy as np

from perceiver_ar.codecs.base import every_token
from perceiver_ar.config import FIRST_DATA

Order = Literal["raster", "planes"]
LEVELS = 256


@dataclass(frozen=True)
class ImageCodec:
    """A token for each channel of each pixel. A step's position is that of the subpixel it predicts.

    Raises:
        ValueError: a size below 1, or an unknown order.
    """

    height: int = 64
    width: int = 64
    order: Order = "raster"
    """`raster`: the three channels of a pixel together; `planes`: all red, then all green, then all blue."""

    name = "images"

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ValueError(f"an image has at least one pixel, not {self.height} x {self.width}")
        if self.order not in get_args(Order):
            raise ValueError(f"order must be one of {get_args(Order)}, not {self.order!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels: also the places of each axis of positions."""
        return self.height, self.width, 3

    @property
    def length(self) -> int:
        """Tokens of an image."""
        return self.height * self.width * 3

    @property
    def vocab_size(self) -> int:
        return FIRST_DATA + LEVELS

    @property
    def legal(self) -> np.ndarray:
        """Boolean (1, vocab_size): any level may stand anywhere."""
        return every_token(self.vocab_size)

    def encode(self, source: Any) -> np.ndarray:
        """Tokens (length,) of an image (height, width, 3) of bytes.

        Raises:
            ValueError: an image of another shape.
        """
        image = np.asarray(source)
        if image.shape != self.shape:
            raise ValueError(f"an image must have the shape {self.shape}, not {image.shape}")
        return image[_places(self.shape, self.order)].astype(np.int32) + FIRST_DATA

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """The image, bytes of shape (height, width, 3); subpixels that are not there yet are black."""
        tokens = np.asarray(tokens)
        levels = tokens[tokens >= FIRST_DATA][: self.length] - FIRST_DATA
        image = np.zeros(self.shape, np.uint8)
        image[tuple(axis[: len(levels)] for axis in _places(self.shape, self.order))] = levels
        return image

    def positions(self, start: int, count: int) -> np.ndarray:
        """Row, column and channel, int32 of shape (count, 3); a step behind the image begins it again."""
        wanted = np.arange(start, start + count) % self.length
        return np.stack([axis[wanted] for axis in _places(self.shape, self.order)], axis=-1).astype(np.int32)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name} | asdict(self)


@cache
def _places(shape: tuple[int, int, int], order: Order) -> tuple[np.ndarray, ...]:
    """Row, column and channel of every subpixel, in the order of the tokens."""
    places = np.indices(shape)
    if order == "planes":
        places = places.transpose(0, 3, 1, 2)
    return tuple(axis.reshape(-1) for axis in places)


CODEC = ImageCodec
