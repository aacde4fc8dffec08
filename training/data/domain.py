"""What a run may know of its data, whatever the data are."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from perceiver_ar.codecs.base import Codec

if TYPE_CHECKING:
    from training.data.store import Recipe


class Sequences(Protocol):
    """Token sequences by number, each with a length that is known without reading it."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> np.ndarray: ...

    def length(self, number: int) -> int:
        """Tokens of a sequence."""
        ...

    def draw(self, rng: np.random.Generator) -> int:
        """Number of a sequence, one as likely as it is long."""
        ...


@dataclass(frozen=True)
class Joined:
    """Arrays one behind the other, each left where it is, such as on the disk."""

    arrays: "list[np.ndarray | Joined]"

    def __len__(self) -> int:
        return sum(map(len, self.arrays))

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Consecutive rows; they are copied if they lie in more than one of the arrays."""
        begin, end, _ = rows.indices(len(self))
        found = []
        for array in self.arrays:
            if begin < len(array) and end > 0:
                found.append(array[max(begin, 0) : end])
            begin, end = begin - len(array), end - len(array)
        return found[0] if len(found) == 1 else np.concatenate(found)


@dataclass(frozen=True, eq=False)
class Pieces:
    """Token sequences end to end: piece i is `tokens[offsets[i]:offsets[i + 1]]`, from SOS on."""

    tokens: np.ndarray | Joined
    offsets: np.ndarray
    counts: Mapping[str, int] = field(default_factory=dict)
    """What else the domain counted in all of them, such as words."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> np.ndarray:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]

    def length(self, number: int) -> int:
        return int(self.offsets[number + 1] - self.offsets[number])

    def draw(self, rng: np.random.Generator) -> int:
        """Number of a piece, one as likely as it is long: that of a token drawn evenly."""
        token = rng.integers(self.offsets[0], self.offsets[-1])
        return int(np.searchsorted(self.offsets, token, side="right")) - 1

    @classmethod
    def join(cls, parts: list["Pieces"]) -> "Pieces":
        """All pieces of several sets, in order; their tokens stay where they are."""
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        counts = {name: sum(part.counts[name] for part in parts) for name in parts[0].counts}
        tokens = Joined([part.tokens for part in parts])
        return cls(tokens, np.concatenate([[0], lengths.cumsum()]), counts)


class Sample(NamedTuple):
    """Tokens from a sequence's beginning, and those with which a model went on."""

    primer: np.ndarray
    made: np.ndarray


class Unit(NamedTuple):
    """What a domain's losses are shown in, and how much of it one nat a token is."""

    name: str = "nats/token"
    factor: float = 1.0


@dataclass(frozen=True)
class Domain(ABC):
    """A kind of data: its sequences, and how their likelihood is stated. The fields are what a run may choose.

    The module `training.data.NAME` defines the domain of the codec `perceiver_ar.codecs.NAME` as `DOMAIN`.
    """

    @property
    @abstractmethod
    def codec(self) -> Codec:
        """What makes the tokens."""

    @abstractmethod
    def load(self, sources: tuple[Path, ...], split: str, store: Path) -> Sequences:
        """The sequences of one split of all sources, prepared into the folder `store` if they are not there yet.

        Raises:
            ValueError: a source that is missing, of another layout, or none that has the split (`NoSplit`).
        """

    def recipe(self, source: Path, split: str) -> "Recipe":
        """How `load` prepares a split of a source, so that it can be prepared elsewhere.

        Raises:
            ValueError: as `load`, or these data need no files.
        """
        raise ValueError("these data are made as they are needed: there is nothing to prepare")

    @classmethod
    def of(cls, codec: Codec, context: int) -> "Domain":
        """The domain with which a model of this codec and context is measured."""
        return cls()

    def augment(self, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A training example changed at random into another that is as good."""
        return tokens

    @property
    def placed(self) -> bool:
        """Whether a crop keeps the positions it has in its sequence; if not, they are counted from its first token.

        By default where there are several axes: the middle of an image is no other image's corner.
        """
        return self.codec.positions(0, 1).shape[1] > 1

    def first_scored(self, length: int) -> int:
        """Index of the first token to learn and to score, of a sequence of so many: all but SOS."""
        return min(1, length)

    @property
    def unit(self) -> Unit:
        """What a loss is shown in while a run goes on."""
        return Unit()

    def figures(self, nll: float, tokens: int, sequences: Sequences) -> dict[str, float]:
        """The domain's own units, from nats a token and the number of tokens scored, which are all of `sequences`."""
        return {}

    def show(self, samples: list[Sample], folder: Path) -> list[Path]:
        """Write samples as files to look at, each with what came before it; the paths.

        By default a page of text, or two arrays where the codec's data are no text.
        """
        paths = []
        for number, sample in enumerate(samples, 1):
            before, after = (self.codec.decode(tokens) for tokens in sample)
            if isinstance(before, str):
                paths.append(folder / f"{number}.txt")
                paths[-1].write_text(f"{before}\n\n--- the model goes on ---\n\n{after}\n", encoding="utf-8")
                continue
            for name, data in (("primer", before), ("continuation", after)):
                paths.append(folder / f"{number}-{name}.npy")
                np.save(paths[-1], data)
        return paths

    def to_dict(self) -> dict[str, Any]:
        """A plain dict that JSON can hold."""
        return {"name": type(self).__module__.rpartition(".")[2]} | asdict(self)


def domain_class(name: str) -> type[Domain]:
    """The domain of a codec's name.

    Raises:
        ValueError: there is none.
    """
    try:
        return import_module(f"{__package__}.{name}").DOMAIN
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"no domain {name!r}: there is no training/data/{name}.py that defines one"
        ) from error


def domain_from_dict(values: dict[str, Any]) -> Domain:
    """The domain that `Domain.to_dict` described."""
    fields = dict(values)
    return domain_class(fields.pop("name"))(**fields)
