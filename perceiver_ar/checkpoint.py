"""A trained model as a folder: config.json, codec.json, weights.safetensors and README.md, its model card."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as serialised

from perceiver_ar import codecs
from perceiver_ar.codecs.base import Codec
from perceiver_ar.codecs.music import MusicCodec
from perceiver_ar.config import ModelConfig
from perceiver_ar.model import Params, PerceiverAR, from_params, to_params
from perceiver_ar.registry import DEFAULT, resolve, shipped

CONFIG, CODEC, WEIGHTS, CARD = "config.json", "codec.json", "weights.safetensors", "README.md"

INFINITE, NEGATIVE_INFINITE = 0x7C00, 0xFC00
"""Bits of float16 infinities: those of NaN come behind them, those of numbers of the same sign before."""


class CheckpointError(ValueError):
    """A folder that holds no whole model; the message is for the user."""


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A model ready for use, and the codec that made its tokens."""

    name: str
    config: ModelConfig
    codec: Codec
    model: PerceiverAR
    card: str

    @property
    def music(self) -> MusicCodec:
        """The codec of a model that makes music; CheckpointError of any other."""
        return music(self.codec)


def save(folder: Path, model: PerceiverAR, codec: Codec, card: str) -> None:
    """Write a model's folder.

    Weights are stored as float16: half the size, and too fine a grid (1 in 2,000) to move the NLL.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: np.asarray(x, np.float16) for name, x in _flat(to_params(model)).items()}
    (folder / WEIGHTS).write_bytes(serialised(weights))
    for name, values in ((CONFIG, model.config.to_dict()), (CODEC, codec.to_dict())):
        (folder / name).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    (folder / CARD).write_text(card, encoding="utf-8")


def load(name_or_path: str | Path = DEFAULT) -> Pretrained:
    """The model of a shipped name or of a folder, its weights as float32.

    Raises:
        FileNotFoundError: no such model.
        CheckpointError: a file of the folder is missing or damaged, or the files do not fit each other; the weights of
            a model that is asked for by its name are not those it was shipped with.
    """
    folder = resolve(name_or_path)
    codec = read_codec(folder)
    config = read_config(folder)
    if codec.vocab_size != config.vocab_size:
        raise CheckpointError(
            f"{folder}: the codec has {codec.vocab_size} tokens, the model {config.vocab_size}"
        )
    if (axes := codec.positions(0, 1).shape[1]) != config.axes:
        raise CheckpointError(f"{folder}: the codec has {axes} axes of positions, the model {config.axes}")
    with _whole(folder / WEIGHTS) as path:
        if (known := shipped(name_or_path)) and weights_sha256(folder) != known.sha256:
            raise ValueError("its SHA-256 is not the shipped one")
        model = from_params(config, _nested(_finite(load_file(path))), unrolled=True)
    with _whole(folder / CARD) as path:
        card = path.read_text(encoding="utf-8") if path.is_file() else ""
    return Pretrained(folder.name, config, codec, model, card)


def weights_sha256(folder: Path) -> str:
    """SHA-256 of a model's weights, in hexadecimal."""
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_config(folder: Path) -> ModelConfig:
    """The model's config alone; CheckpointError if there is none."""
    return _read(folder / CONFIG, ModelConfig.from_dict)


def read_codec(folder: Path) -> Codec:
    """The codec that made the model's tokens; CheckpointError if there is none, or it is of no known domain."""

    def known(values: dict[str, Any]) -> Codec:
        fields = dict(values)
        name = str(fields.pop("name", ""))
        if name not in {module.name for module in iter_modules(codecs.__path__)}:
            raise ValueError(f"no codec {name!r}")
        return import_module(f"{codecs.__name__}.{name}").CODEC(**fields)

    return _read(folder / CODEC, known)


def music(codec: Codec) -> MusicCodec:
    """The codec, which must be that of music; CheckpointError otherwise."""
    if not isinstance(codec, MusicCodec):
        raise CheckpointError(f"the model makes {codec.name.replace('_', ' ')}, not music: name another one")
    return codec


def _read(path: Path, make: Any) -> Any:
    with _whole(path):
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not an object")
        return make(values)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """For reading a file of a model: whatever is wrong with it is a CheckpointError that names it."""
    try:
        yield path
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({error}); get the model again") from error


def _finite(flat: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays; ValueError if a number in them is none."""
    for name, x in flat.items():
        if x.dtype == np.float16:  # by its bits, as numpy would take eight times as long to widen it
            positive, negative = x.view(np.int16).max(initial=0), x.view(np.uint16).max(initial=0)
            finite = positive < INFINITE and negative < NEGATIVE_INFINITE
        else:
            finite = np.isfinite(x).all()
        if not finite:
            raise ValueError(f"{name} holds what is no finite number")
    return flat


def _flat(params: Params) -> dict[str, jax.Array]:
    """Nested names joined by dots."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {".".join(key.key for key in path): x for path, x in leaves}


def _nested(flat: dict[str, np.ndarray]) -> Params:
    nested: Params = {}
    for name, x in flat.items():
        *parents, last = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ValueError(f"{name} lies in an array")
        place[last] = x
    return nested
