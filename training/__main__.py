"""`python -m training PRESET | evaluate | export | curves`: train, measure, make a model to ship, draw a run."""

import importlib
import json
import pkgutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from perceiver_ar.checkpoint import CARD, load, save
from perceiver_ar.config import DType
from perceiver_ar.model import from_params, to_params
from perceiver_ar.registry import user_cache
from training import presets
from training.config import Paths, TrainConfig
from training.curves import draw
from training.data.domain import Pieces, domain_class
from training.evaluate import baselines, evaluate
from training.loop import Diverged, train
from training.state import Checkpoints, read_config

UNNAMED = tyro.conf.arg(name="")
TINY = "--tiny"
"""Chooses a preset's value that trains on a CPU in minutes."""


@dataclass(frozen=True)
class Evaluate:
    """NLL in nats a token of a model on one split of its data; every token is scored once."""

    model: Annotated[str, tyro.conf.Positional]
    """A shipped model's name, or the folder of one."""
    data: tuple[Path, ...] = ()
    """Archives or folders; none for data that are made as they are needed."""
    split: str = "validation"
    context: int | None = None
    """Tokens a window shows; default: the model's."""
    latents: int | None = None
    """Latents of a window; default: the model's."""
    stride: int | None = None
    """Tokens a window scores; default: half of its latents."""
    dtype: DType | None = None
    """Type of the factors of matrix products; default: the model's."""
    baselines: bool = False
    """Score a uniform model on the same tokens too, and a unigram and a bigram counted on the train split."""
    json: bool = False
    """Print one JSON object on stdout."""
    store: Path | None = None
    """Where prepared tokens are kept; default: in the user's cache folder."""


@dataclass(frozen=True)
class Export:
    """The newest checkpoint of a run as a model's folder. A card (README.md) that is there is kept."""

    workdir: Annotated[Path, tyro.conf.Positional]
    """Of the run."""
    output: Path
    """The folder to write."""


@dataclass(frozen=True)
class Curves:
    """Training loss and validation NLL of a run over its steps, as a PNG."""

    workdir: Annotated[Path, tyro.conf.Positional]
    """Of the run."""
    output: Annotated[Path, tyro.conf.Positional]
    """The file to write."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 2 not possible as asked."""
    arguments = sys.argv[1:] if arguments is None else arguments
    first, rest = "".join(arguments[:1]), arguments[1:]
    names = [module.name for module in pkgutil.iter_modules(presets.__path__)]
    prog = f"python -m training {first}"
    try:
        if first in names:
            values = importlib.import_module(f"training.presets.{first}")
            preset: TrainConfig = values.TINY if TINY in rest else values.PRESET
            rest = [argument for argument in rest if argument != TINY]

            def run(
                paths: Annotated[Paths, UNNAMED], config: Annotated[TrainConfig, UNNAMED] = preset
            ) -> None:
                train(config, paths)

            tyro.cli(run, args=rest, prog=prog)
        elif first == "evaluate":
            _evaluate(tyro.cli(Evaluate, args=rest, prog=prog))
        elif first == "export":
            _export(tyro.cli(Export, args=rest, prog=prog))
        elif first == "curves":
            drawn = tyro.cli(Curves, args=rest, prog=prog)
            draw(drawn.workdir, drawn.output)
        else:
            commands = ",".join([*names, "evaluate", "export", "curves"])
            print(f"usage: python -m training {{{commands}}} [{TINY}] [--help]", file=sys.stderr)
            return 2
    except (ValueError, OSError, Diverged) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def _evaluate(options: Evaluate) -> None:
    pretrained = load(options.model)
    model = pretrained.model
    if options.dtype:
        model = from_params(replace(model.config, dtype=options.dtype), to_params(model))
    store = options.store or user_cache("tokens")
    domain = domain_class(pretrained.codec.name).of(pretrained.codec, pretrained.config.context)
    sequences = domain.load(options.data, options.split, store)
    found = {"checkpoint": options.model, "split": options.split} | evaluate(
        model,
        domain,
        sequences,
        context=options.context,
        latents=options.latents,
        stride=options.stride,
    )
    if options.baselines:
        counted = domain.load(options.data, "train", store)
        if not isinstance(counted, Pieces) or not isinstance(sequences, Pieces):
            raise ValueError(
                "--baselines counts the tokens of a corpus, and these data are made as they are needed"
            )
        found |= baselines(counted, sequences, pretrained.config.vocab_size)
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:<12}{value:.4f}" if isinstance(value, float) else f"{name:<12}{value}")


def _export(options: Export) -> None:
    config = read_config(options.workdir)
    state = Checkpoints(options.workdir).latest(config)
    card = options.output / CARD
    text = f"# {options.output.name}\n\nStep {int(state.step):,} of a run with this config:\n\n"
    text += f"```json\n{json.dumps(config.to_dict(), indent=1)}\n```\n"
    text = card.read_text(encoding="utf-8") if card.is_file() else text
    # Coarse factors and recomputed layers are for training; a single token is faster without.
    shipped = replace(config.model, dtype="float32", remat=False)
    save(options.output, from_params(shipped, state.params), config.domain.codec, text)
    print(f"wrote {options.output}, step {int(state.step):,}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
