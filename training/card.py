"""The model card of a run: what it is, what it learned from, how far it got, and under which licence."""

import json
from pathlib import Path

import optax

from perceiver_ar.model import Params
from training.data.store import manifests
from training.metrics import read_metrics
from training.state import VALIDATION, Start, read_starts


def model_card(title: str, licence: str, workdir: Path, step: int, params: Params) -> str:
    """The text of README.md for the weights of a run's step, from what the run wrote itself."""
    starts = read_starts(workdir, step)
    config, init = starts[-1].config, starts[-1].init
    model, codec = config.model, config.domain.codec
    facts = {
        "licence": licence,
        "parameters": f"{optax.tree.size(params):,}",
        "shape": f"width {model.width}, {model.layers} latent layers, {model.heads} heads, {model.latents:,} latents, "
        f"{model.context:,} tokens of context",
        "tokens": f"{codec.vocab_size:,}, of the codec `{codec.name}`",
        "training": f"{step:,} steps, {_predicted(starts, step):,} predicted tokens at most, seed {config.seed}",
        "validation": _validation(workdir, step),
    }
    if init:
        facts["initial weights"] = f"those of `{init}`, whose licence may bind these too"
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    configs = "\n\n".join(
        f"From step {one.step:,} on:\n\n```json\n{json.dumps(one.config.to_dict(), indent=1)}\n```"
        for one in starts
    )
    return f"""---
license: {json.dumps(licence)}
---

# {title}

A Perceiver AR (Hawthorne et al., 2022) for the domain `{config.domain.to_dict()["name"]}`.

| | |
| --- | --- |
{rows}

## Data

{_data(workdir, starts)}

## Config of the run

{configs}
"""


def _predicted(starts: list[Start], step: int) -> int:
    """Tokens that so many steps predicted, padding included."""
    ends = [*(one.step for one in starts[1:]), step]
    return sum(
        one.config.stage(number).batch * min(one.config.model.latents, one.config.stage(number).context)
        for one, end in zip(starts, ends, strict=True)
        for number in range(one.step, end)
    )


def _validation(workdir: Path, step: int) -> str:
    """The look at the validation split at this step, or the last before."""
    looks = {int(line["step"]): line[VALIDATION] for line in read_metrics(workdir) if VALIDATION in line}
    at = max((number for number in looks if number <= step), default=None)
    if at is None:
        return "not measured"
    config = read_starts(workdir, at)[-1].config
    unit = config.domain.unit
    return (
        f"{looks[at] * unit.factor:.4f} {unit.name} on a sample of {config.evaluate_windows} windows of "
        f"{config.stage(at - 1).context:,} tokens, at step {at:,}; `python -m training evaluate` scores a whole split"
    )


def _data(workdir: Path, starts: list[Start]) -> str:
    """A line for each token file that the run read; of one that did not note its data for each that is there."""
    given = [one.data for one in starts]
    names = {name for data in given for path in data or () for name in (path, Path(path).name)}
    found = [
        f"- `{one['source']}`, {one['split']}: "
        + ", ".join(f"{value:,} {name}" for name, value in one.items() if isinstance(value, int))
        for one in manifests(workdir / "data")
        if one["split"] in ("train", "validation") and (None in given or one["source"] in names)
    ]
    return "\n".join(found) or "Made as they are needed."
