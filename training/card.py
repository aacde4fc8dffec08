"""The model card of a run: what it is, what it learned from, how far it got, and under which licence."""

import json
from pathlib import Path

import optax

from perceiver_ar.model import Params
from training.config import TrainConfig
from training.data.store import manifests
from training.metrics import read_metrics
from training.state import VALIDATION


def model_card(
    title: str, licence: str, config: TrainConfig, workdir: Path, step: int, params: Params
) -> str:
    """The text of README.md for the weights of a run's step, from what the run wrote itself."""
    model, codec = config.model, config.domain.codec
    predicted = sum(
        config.stage(number).batch * min(model.latents, config.stage(number).context)
        for number in range(step)
    )
    facts = {
        "licence": licence,
        "parameters": f"{optax.tree.size(params):,}",
        "shape": f"width {model.width}, {model.layers} latent layers, {model.heads} heads, {model.latents:,} latents, "
        f"{model.context:,} tokens of context",
        "tokens": f"{codec.vocab_size:,}, of the codec `{codec.name}`",
        "training": f"{step:,} steps, {predicted:,} predicted tokens at most, seed {config.seed}",
        "validation": _validation(config, workdir, step),
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return f"""---
license: {json.dumps(licence)}
---

# {title}

A Perceiver AR (Hawthorne et al., 2022) for the domain `{config.domain.to_dict()["name"]}`.

| | |
| --- | --- |
{rows}

## Data

{_data(workdir)}

## Config of the run

```json
{json.dumps(config.to_dict(), indent=1)}
```
"""


def _validation(config: TrainConfig, workdir: Path, step: int) -> str:
    """The look at the validation split at this step, or the last before."""
    looks = {int(line["step"]): line[VALIDATION] for line in read_metrics(workdir) if VALIDATION in line}
    at = max((number for number in looks if number <= step), default=None)
    if at is None:
        return "not measured"
    unit = config.domain.unit
    return (
        f"{looks[at] * unit.factor:.4f} {unit.name} on a sample of {config.evaluate_windows} windows of "
        f"{config.stage(at - 1).context:,} tokens, at step {at:,}; `python -m training evaluate` scores a whole split"
    )


def _data(workdir: Path) -> str:
    """A line for each token file that the run prepared."""
    found = [
        f"- `{one['source']}`, {one['split']}: "
        + ", ".join(f"{value:,} {name}" for name, value in one.items() if isinstance(value, int))
        for one in manifests(workdir / "data")
    ]
    return "\n".join(found) or "Made as they are needed."
