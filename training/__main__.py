"""`python -m training PRESET | evaluate | export | vocabulary | curves | prepare`: train, measure, ship, draw."""

import ast
import importlib.util
import json
import logging
import os
import pkgutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from jax.errors import JaxRuntimeError

from perceiver_ar.checkpoint import CARD, save
from perceiver_ar.config import FIRST_DATA, DType
from perceiver_ar.interrupts import insistent
from perceiver_ar.model import from_params, to_params
from perceiver_ar.registry import user_cache
from perceiver_ar.report import sentence
from training import cost, presets
from training.card import model_card
from training.config import Paths, TrainConfig
from training.curves import draw
from training.data.beam import LOCAL, by_beam
from training.data.domain import Domain
from training.data.splits import first_with_split
from training.data.store import prepare_all
from training.data.text import learn_subwords, train_lines
from training.devices import Cluster, mesh
from training.evaluate import baselines, check_counted, evaluate, reach
from training.loop import Diverged, Stopped, train
from training.opened import opened, write_domain
from training.samples import complete
from training.state import Checkpoints, read_config, read_starts

UNNAMED = tyro.conf.arg(name="")
ALONE = Cluster()
TUNABLES = "GLIBC_TUNABLES"
PREPARE = "prepare"
PRESETS = [module.name for module in pkgutil.iter_modules(presets.__path__)]
TINY = "--tiny"
"""Chooses a preset's value that trains on a CPU in minutes."""


@dataclass(frozen=True)
class Evaluate:
    """NLL in nats a token of a model on one split of its data; every token is scored once."""

    model: Annotated[str, tyro.conf.Positional]
    """A shipped model's name, the folder of one, or the workdir of a run."""
    data: tuple[Path, ...] = ()
    """Archives, folders or `hf:NAME`; none for data that are made as they are needed."""
    split: str = "validation"
    context: int | None = None
    """Tokens a window shows; default: the model's."""
    latents: int | None = None
    """Latents of a window; default: the model's."""
    stride: int | None = None
    """Tokens a window scores; default: half of its latents."""
    dtype: DType = "bfloat16"
    """Type of the factors of matrix products: with float32 the piano has the same NLL to four digits, in 1.3 times
    the time."""
    baselines: bool = False
    """Score a uniform model on the same tokens too, and a unigram and a bigram counted on the train split."""
    best: bool = False
    """Of a run the checkpoint with the lowest validation NLL, rather than the newest."""
    json: bool = False
    """Print one JSON object on stdout."""
    samples: Path | None = None
    """Folder for sequences that the model completes: MIDI and WAV, a grid of images, text, or arrays."""
    sample_count: int = 4
    """How many."""
    sample_tokens: int = 1024
    """Most new tokens of each."""
    store: Path | None = None
    """Where prepared tokens are kept; default: in the user's cache folder."""


@dataclass(frozen=True)
class Export:
    """The newest checkpoint of a run as a model's folder. A card (README.md) that is there is kept."""

    workdir: Annotated[Path, tyro.conf.Positional]
    """Of the run."""
    output: Annotated[Path, tyro.conf.Positional]
    """The folder to write."""
    licence: str | None = None
    """Of the weights, as the data allow it, such as "CC BY-NC-SA 4.0"; needed unless there is a card already."""
    best: bool = False
    """The checkpoint with the lowest validation NLL instead."""


@dataclass(frozen=True)
class Vocabulary:
    """Learn subwords from the train split of texts, for `--domain.subwords`."""

    data: tuple[Path, ...]
    """Archives or folders of text files. Of very many lines some are drawn, the same each time."""
    output: Path
    """The file to write."""
    size: int = 8192
    """Pieces; the model's vocabulary has three tokens more."""


@dataclass(frozen=True)
class Curves:
    """Training loss and validation NLL of a run over its steps, as a PNG."""

    workdir: Annotated[Path, tyro.conf.Positional]
    """Of the run."""
    output: Annotated[Path, tyro.conf.Positional]
    """The file to write."""


@dataclass(frozen=True)
class Prepare:
    """The token files of a run, made ahead of it by Apache Beam; what stands behind `--` goes to Beam."""

    workdir: Path
    """Of the run, which finds them there."""
    data: tuple[Path, ...]
    """As of the run."""
    split: tuple[str, ...] = ("train", "validation")
    """Which to make: `train` of all sources, any other of the first one that has it, as a run reads them."""
    runner: str = LOCAL
    """One of Beam's by its name, such as FlinkRunner; by default a process for each core of this machine."""


@insistent()
def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 2 not possible as asked."""
    # By absl orbax would show the stack of what is said below.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    arguments = sys.argv[1:] if arguments is None else arguments
    first, rest = "".join(arguments[:1]), arguments[1:]
    prog = f"python -m training {first}"
    try:
        if first in PRESETS:
            _train(first, rest, prog)
        elif first in COMMANDS:
            kind, command = COMMANDS[first]
            command(tyro.cli(kind, args=rest, prog=prog))
        elif first == PREPARE:
            _prepare("".join(rest[:1]), rest[1:], prog)
        else:
            commands = ",".join([*PRESETS, *COMMANDS, PREPARE])
            print(f"usage: python -m training {{{commands}}} [{TINY}] [--help]\n", file=sys.stderr)
            for name in PRESETS:
                print(f"{name:<18}{_about(name).splitlines()[0]}", file=sys.stderr)
            return 0 if first in ("-h", "--help") else 2
    except (ValueError, OSError, Diverged) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 2
    except (MemoryError, JaxRuntimeError) as error:
        if isinstance(error, JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(
            "error: there is not enough memory: --dry-run says what a run needs; smaller batches, --accumulate and "
            "--model.remat need less",
            file=sys.stderr,
        )
        return 2
    except (Stopped, KeyboardInterrupt) as stopped:
        print(str(stopped) or "stopped", file=sys.stderr)
        return 130
    return 0


def _train(name: str, arguments: list[str], prog: str) -> None:
    preset, rest = _preset(name, arguments)
    usual = Paths(Path("runs", name))

    def run(
        paths: Annotated[Paths, UNNAMED] = usual,
        config: Annotated[TrainConfig, UNNAMED] = preset,
        cluster: Cluster = ALONE,
        dry_run: bool = False,
    ) -> None:
        """Train.

        Args:
            dry_run: print parameters, memory, FLOPs a step and the resolved config, and train nothing.
        """
        cluster.join()
        if dry_run:
            print(json.dumps(cost.dry_run(config), indent=1))
        else:
            train(config, paths)

    tyro.cli(run, args=rest, prog=prog, description=_about(name))


def _about(preset: str) -> str:
    """What a preset's file says of it, its source too."""
    spec = importlib.util.find_spec(f"training.presets.{preset}")
    assert spec and spec.origin
    module = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    texts = [
        one.value.value
        for one in module.body
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
    ]
    return "\n\n".join(map(str, texts))


def _prepare(name: str, arguments: list[str], prog: str) -> None:
    if name not in PRESETS:
        raise ValueError(f"say what to prepare data for: {prog} PRESET, one of {', '.join(PRESETS)}")
    end = arguments.index("--") if "--" in arguments else len(arguments)
    preset, rest = _preset(name, arguments[:end])

    def run(options: Annotated[Prepare, UNNAMED], domain: Domain = preset.domain) -> None:
        by = by_beam(options.runner, arguments[end + 1 :])
        for split in options.split:

            def make(sources: tuple[Path, ...], split: str = split) -> list[Path]:
                return prepare_all(domain.recipe, sources, split, options.workdir / "data", by)

            for path in make(options.data) if split == "train" else first_with_split(options.data, make):
                print(f"wrote {path}", file=sys.stderr)

    tyro.cli(run, args=rest, prog=f"{prog} {name}", description=Prepare.__doc__)


def _preset(name: str, arguments: list[str]) -> tuple[TrainConfig, list[str]]:
    """A preset's value, and the arguments without the one that chooses it."""
    values = importlib.import_module(f"training.presets.{name}")
    rest = [argument for argument in arguments if argument != TINY]
    return values.TINY if len(rest) < len(arguments) else values.PRESET, rest


def _evaluate(options: Evaluate) -> None:
    model, domain = opened(options.model, options.best)
    reach(model.config, options.context, options.latents, options.stride)
    if options.baselines:  # rather now than when all is scored
        if not options.data:
            raise ValueError(
                "--baselines counts the tokens of a corpus, and these data are made as they are needed"
            )
        check_counted(model.config.vocab_size)
    if options.sample_count < 1 or options.sample_tokens < 1:
        raise ValueError("--sample-count and --sample-tokens must be at least 1")
    if options.samples:
        options.samples.mkdir(parents=True, exist_ok=True)
    measured = from_params(replace(model.config, dtype=options.dtype), to_params(model))
    store = options.store or user_cache("tokens")
    sequences = domain.load(options.data, options.split, store)
    found = {"checkpoint": options.model, "split": options.split} | evaluate(
        measured,
        domain,
        sequences,
        context=options.context,
        latents=options.latents,
        stride=options.stride,
    )
    if options.baselines:
        counted = domain.load(options.data, "train", store)
        found |= baselines(counted, sequences, model.config.vocab_size)
    if options.samples:
        completed = complete(model, domain, sequences, options.sample_count, options.sample_tokens)
        written = domain.show(completed, options.samples)
        print(f"wrote {len(written)} files to {options.samples}", file=sys.stderr)
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:<12}{value:.4f}" if isinstance(value, float) else f"{name:<12}{value}")


def _export(options: Export) -> None:
    state = Checkpoints(options.workdir).read(
        read_config(options.workdir), mesh(), best=options.best, fresh=False
    )
    step = int(state.step)
    card = options.output / CARD
    if card.is_file():
        if options.licence:
            raise ValueError(
                f"{card} is kept, with the licence it has: leave --licence out, or delete the card for a new one"
            )
        text = card.read_text(encoding="utf-8")
    elif options.licence:
        title = options.output.resolve().name
        text = model_card(title, options.licence, options.workdir, step, state.weights)
    else:
        raise ValueError(
            "say under which licence the weights are, as their data allow it: --licence 'CC BY 4.0', for example"
        )
    config = read_starts(options.workdir, step)[-1].config
    # Coarse factors and recomputed layers are for training; a single token is faster without, and with a small cache.
    shipped = replace(config.model, dtype="float32", cache_dtype="float16", remat=False)
    save(options.output, from_params(shipped, state.weights), config.domain.codec, text)
    write_domain(config.domain, options.output)
    print(f"wrote {options.output}, step {step:,}", file=sys.stderr)


def _vocabulary(options: Vocabulary) -> None:
    model = learn_subwords(train_lines(options.data), options.size)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_bytes(model)
    print(
        f"wrote {options.output}: train with --domain.subwords {options.output} "
        f"--model.vocab-size {options.size + FIRST_DATA}",
        file=sys.stderr,
    )


def _curves(options: Curves) -> None:
    draw(options.workdir, options.output)


COMMANDS = {
    "evaluate": (Evaluate, _evaluate),
    "export": (Export, _export),
    "vocabulary": (Vocabulary, _vocabulary),
    "curves": (Curves, _curves),
}
"""What a command reads, and what does it."""


def _with_huge_pages() -> None:
    """Begin again with an allocator that asks Linux for huge pages, unless the user has tuned it.

    The temporary arrays of a step are fresh memory each time, which costs a fault a page: in pages of 2 MiB a step of
    the piano model takes 0.77 of the time. glibc reads its tunables once, when a process begins.
    """
    if sys.platform == "linux" and TUNABLES not in os.environ:
        os.environ[TUNABLES] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, sys.orig_argv)


if __name__ == "__main__":
    _with_huge_pages()
    sys.exit(main())
