"""The shape of a model, as one validated value."""

from dataclasses import asdict, dataclass, fields
from math import isfinite, prod
from typing import Any, Literal, get_args

Position = Literal["rotary", "sinusoidal", "learned"]
DType = Literal["float32", "bfloat16"]
CacheDType = Literal["float32", "float16", "bfloat16", None]

PAD, EOS, SOS = 0, 1, 2
"""Reserved tokens of every domain; data starts at `FIRST_DATA` (Perceiver AR, released code)."""
FIRST_DATA = 3

KINDS = {
    int: ("a whole number", (int,)),
    bool: ("true or false", (bool,)),
    float: ("a finite number", (int, float)),
    float | None: ("a finite number", (int, float, type(None))),
}
"""What a field of some type may hold, in words and types: a bool is no number here, though it is an int."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes a Perceiver AR's parameters and its computation.

    Raises:
        ValueError: a field, or a combination of fields, that no model can have.
    """

    vocab_size: int
    """Tokens, the reserved ones included."""
    context: int
    """Most tokens one prediction may depend on."""
    latents: int
    """Most latents in one call: the last inputs, which alone are processed deeply (paper, section 3.1)."""
    width: int
    """Channels of embeddings, latents and attention."""
    layers: int
    """Self-attention layers over the latents; the cross-attend is one more."""
    heads: int
    """Heads of the latent self-attention."""
    cross_heads: int
    """Heads of the cross-attend."""
    widening: int = 4
    """Hidden channels of an MLP over `width`."""
    position: Position = "rotary"
    """How positions enter: rotated queries and keys, or a vector added to the embeddings."""
    position_shape: tuple[int, ...] = ()
    """Positions along each axis, one learned table an axis; empty: one axis as long as the context."""
    rotary_fraction: float = 0.5
    """Part of each head's channels that is rotated; the rest sees content alone."""
    longest_wavelength: float | None = None
    """Longest rotary or sinusoidal wavelength in positions; None: the context."""
    dropout: float = 0.0
    """Dropout on the outputs of attention and MLP, in training."""
    cross_attend_dropout: float = 0.0
    """Part of the prefix (inputs before the latents) that one training example drops (paper, appendix)."""
    dtype: DType = "float32"
    """Type of the factors of products of more than a few rows; all else but the cache is float32 always."""
    cache_dtype: CacheDType = None
    """Type of the keys and values that are kept between calls; None: `dtype`. float16 is for a CPU's kernels, and half
    of what they read: where there are none, float32 is kept in its place."""
    remat: bool = False
    """Recompute each latent layer in the backward pass rather than keep its activations."""

    def __post_init__(self) -> None:
        self._check_types()
        object.__setattr__(self, "position_shape", tuple(self.position_shape) or (self.context,))
        for name in ("context", "latents", "width", "layers", "heads", "cross_heads", "widening"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("heads", "cross_heads"):
            if self.width % getattr(self, name):
                raise ValueError(f"width {self.width} is not a multiple of {name} {getattr(self, name)}")
        for name in ("dropout", "cross_attend_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        if self.vocab_size <= FIRST_DATA:
            raise ValueError(
                f"vocab_size must exceed the {FIRST_DATA} reserved tokens, not {self.vocab_size}"
            )
        if self.latents > self.context:
            raise ValueError(f"latents ({self.latents}) must not exceed the context ({self.context})")
        if not 0 <= self.rotary_fraction <= 1:
            raise ValueError(f"rotary_fraction must be in [0, 1], not {self.rotary_fraction}")
        if self.longest_wavelength is not None and self.longest_wavelength < 8:
            raise ValueError(
                f"longest_wavelength must be at least 8 positions, not {self.longest_wavelength}"
            )
        for name, kind in (("position", Position), ("dtype", DType), ("cache_dtype", CacheDType)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {get_args(kind)}, not {getattr(self, name)!r}")
        self._check_shape()
        self._check_rotation()

    def _check_types(self) -> None:
        """Fields hold what they are declared to, and numbers are finite: JSON may have anything."""
        shape = self.position_shape
        if not isinstance(shape, tuple | list) or not all(type(length) is int for length in shape):
            raise ValueError(f"position_shape must hold whole numbers, not {shape!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            kind, types = KINDS.get(field.type, ("", (type(value),)))
            if type(value) not in types or (type(value) is float and not isfinite(value)):
                raise ValueError(f"{field.name} must be {kind}, not {value!r}")

    def _check_rotation(self) -> None:
        """Every head rotates at least one pair of channels for each axis, or none of them is meant to."""
        for name in ("heads", "cross_heads"):
            channels = self.width // getattr(self, name)
            if self.position == "rotary" and self.rotary_fraction and not self.rotated(channels):
                raise ValueError(
                    f"{name} {getattr(self, name)} leaves heads of {channels} channels, too few to rotate a pair of "
                    f"them for each of {self.axes} axes at rotary_fraction {self.rotary_fraction:g}"
                )

    def rotated(self, channels: int) -> int:
        """How many pairs of a head's `channels` are rotated for each axis."""
        return int(channels * self.rotary_fraction) // 2 // self.axes

    def _check_shape(self) -> None:
        """Every axis has a place, and learned tables have one for every token of the context."""
        if min(self.position_shape) < 1:
            raise ValueError(f"position_shape must hold lengths of at least 1, not {self.position_shape}")
        if self.position == "learned" and prod(self.position_shape) < self.context:
            raise ValueError(
                f"position_shape {self.position_shape} has fewer places than the context ({self.context})"
            )

    @property
    def axes(self) -> int:
        """Number of position axes."""
        return len(self.position_shape)

    @property
    def wavelength(self) -> float:
        """Longest wavelength in positions."""
        return self.longest_wavelength or float(max(self.context, 8))

    def to_dict(self) -> dict[str, Any]:
        """A plain dict that JSON can hold."""
        return asdict(self) | {"position_shape": list(self.position_shape)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The config a plain dict describes; an unknown or missing field raises ValueError."""
        names = {field.name for field in fields(cls)}
        if unknown := set(values) - names:
            raise ValueError(f"unknown fields in the model config: {', '.join(sorted(unknown))}")
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"incomplete model config: {error}") from error
