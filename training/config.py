"""What fixes a training run: one value, written beside the weights it made."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from perceiver_ar.config import ModelConfig
from training.data.domain import Domain, domain_from_dict


@dataclass(frozen=True)
class Stage:
    """A stretch of training on one shape of batch: short contexts first cost a fraction of long ones."""

    until: float
    """Part of the run's steps at which the stage ends, in (0, 1]."""
    context: int
    """Tokens an example shows the model, latents included."""
    batch: int
    """Examples a step."""

    def __post_init__(self) -> None:
        for name in ("context", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"a stage's {name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class OptimConfig:
    """Muon for the matrices of the blocks, Adam for the rest; or Adam for all, as in the paper."""

    name: Literal["adam", "adamw", "muon"] = "adam"
    """`adam` (paper), `adamw`, which is `adam` with `weight_decay`, or `muon` (ours)."""
    rate: float = 3e-4
    """Adam's peak learning rate."""
    muon_rate: float = 0.02
    """Muon's peak learning rate."""
    warmup: int = 200
    """Steps of linear warm-up."""
    decay: int = 0
    """Steps of decay to zero at the end; the rate is constant between."""
    decay_shape: Literal["linear", "cosine"] = "linear"
    """How it decays; the paper's cosine over a whole run is a decay of all steps after the warm-up."""
    b1: float = 0.9
    """Adam's first momentum: 0.9 in the paper's released code, 0.1 in its text."""
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    """Decoupled decay, a part of the rate: by Adam of all weights but the norms', the embedding, the head and tables
    of positions included; by `muon` of the blocks' matrices alone."""
    clip: float = 1.0
    """Largest global norm of a gradient; inf: any."""
    z_loss: float = 1e-4
    """Weight of the squared log-normaliser beside the cross-entropy."""
    label_smoothing: float = 0.0
    """Part of each target that is spread evenly over all tokens."""
    average: float = 0.0
    """Part of the averaged weights that a step keeps, such as 0.999; these are then measured and exported. 0: none."""

    def __post_init__(self) -> None:
        for name in ("eps", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name):g}")
        for name in ("rate", "muon_rate", "warmup", "decay", "weight_decay", "z_loss"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be below 0, as {getattr(self, name):g} is")
        for name in ("b1", "b2", "label_smoothing", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is a part, from 0 to below 1, and cannot be {getattr(self, name):g}"
                )
        if self.name == "adamw" and not self.weight_decay:
            raise ValueError(
                "adamw without a weight decay is adam: give one, such as --optim.weight-decay 0.01"
            )


@dataclass(frozen=True)
class TrainConfig:
    """A whole run."""

    domain: Domain
    """Data, and what may be changed in them."""
    model: ModelConfig
    stages: tuple[Stage, ...]
    steps: int
    """Steps of the whole run, decay included."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    shortest_crop: int | None = None
    """Tokens of a sequence that a crop reaches over at least, from the sequence's first on (the released code's
    minimum_crop_length); None: as many as give all latents something to predict."""
    accumulate: int = 1
    """Parts in which a batch is computed one after the other: less memory for the same step."""
    shard: bool = False
    """Keep a part of the weights and of the optimiser's state on each device rather than all of them."""
    seed: int = 0
    save_every: int = 250
    """Steps between checkpoints."""
    evaluate_every: int = 500
    """Steps between looks at the validation split."""
    evaluate_windows: int = 64
    """Windows of one look, spread evenly over the split."""

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "save_every", "evaluate_every", "evaluate_windows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        ends = [stage.until for stage in self.stages]
        if not ends or ends != sorted(ends) or ends[-1] != 1:
            raise ValueError(f"stages must end in rising order, the last at 1, not {ends}")
        if (longest := max(stage.context for stage in self.stages)) > self.model.context:
            raise ValueError(f"a stage's context ({longest}) exceeds the model's ({self.model.context})")
        if uneven := [stage.batch for stage in self.stages if stage.batch % self.accumulate]:
            raise ValueError(
                f"a batch of {uneven[0]} examples cannot be cut into {self.accumulate} equal parts"
            )
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must lie between 0 and {2**31 - 1}, not {self.seed}")
        if self.shortest_crop is not None and self.shortest_crop < 1:
            raise ValueError(f"shortest_crop must be at least 1, not {self.shortest_crop}")
        if self.model.vocab_size != (tokens := self.domain.codec.vocab_size):
            raise ValueError(
                f"the model has {self.model.vocab_size} tokens and its data {tokens}: "
                f"set --model.vocab-size {tokens}"
            )
        if self.model.axes != (axes := self.domain.codec.positions(0, 1).shape[1]):
            raise ValueError(
                f"--model.position-shape must give a length for each axis of the data's positions, {axes} in all, "
                f"not {self.model.position_shape}"
            )
        if self.optim.warmup + self.optim.decay > self.steps:
            raise ValueError(f"warm-up and decay need more than the run's {self.steps} steps")

    def stage(self, step: int) -> Stage:
        """The stage that `step` belongs to: the last one, of a step behind the run's end."""
        return next((stage for stage in self.stages if step < stage.until * self.steps), self.stages[-1])

    def stages_from(self, first: int) -> list[Stage]:
        """The stages that the steps from `first` to the run's end belong to, in order."""
        begins = [math.ceil(stage.until * self.steps) for stage in self.stages[:-1]]
        return list(
            dict.fromkeys(self.stage(step) for step in [first, *begins] if first <= step < self.steps)
        )

    def to_dict(self) -> dict[str, Any]:
        """A plain dict that JSON can hold."""
        return asdict(self) | {"domain": self.domain.to_dict(), "model": self.model.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """The config that `to_dict` wrote."""
        nested = {
            "domain": domain_from_dict(values["domain"]),
            "model": ModelConfig.from_dict(values["model"]),
            "stages": tuple(Stage(**stage) for stage in values["stages"]),
            "optim": OptimConfig(**values["optim"]),
        }
        return cls(**values | nested)


@dataclass(frozen=True)
class Paths:
    """Where a run reads and writes."""

    workdir: Path
    """Checkpoints, metrics, the resolved config and the prepared tokens."""
    data: tuple[Path, ...] = ()
    """Archives, folders or `hf:NAME`; the first validation split among them is the run's. Empty: data that are made."""
    init: Path | None = None
    """Folder of a model whose weights a new run begins with."""
    wandb: str | None = None
    """Project of Weights & Biases to report to as well, if wandb is installed."""
