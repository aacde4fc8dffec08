"""Every preset: its values fit together, can be written and read again, and make a model."""

import json
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules

import jax
import pytest

from perceiver_ar.model import PerceiverAR, to_params
from training import presets
from training.config import Stage, TrainConfig
from training.presets import piano

NAMES = [module.name for module in iter_modules(presets.__path__)]


@pytest.mark.parametrize("value", ["PRESET", "TINY"])
@pytest.mark.parametrize("name", NAMES)
def test_a_preset_makes_a_model(name: str, value: str) -> None:
    """Shapes alone: the largest have hundreds of millions of parameters, which a tiny one may not."""
    config: TrainConfig = getattr(import_module(f"training.presets.{name}"), value)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    params = jax.eval_shape(lambda: to_params(PerceiverAR(config.model, jax.random.key(0))))
    assert params["embedding"].shape == (config.domain.codec.vocab_size, config.model.width)
    size = sum(x.size for x in jax.tree.leaves(params))
    assert size < 2e6 or value == "PRESET"


@pytest.mark.parametrize("steps", [1, 6, 7, 10])
def test_the_stages_to_come_are_those_of_the_steps_to_come(steps: int) -> None:
    """Whole and broken boundaries, and a stage that is over before it has begun."""
    stages = (Stage(0.3, 32, 2), Stage(0.3, 48, 2), Stage(0.65, 64, 2), Stage(1.0, 64, 4))
    optim = replace(piano.PRESET.optim, warmup=0, decay=0)
    config = replace(piano.PRESET, stages=stages, steps=steps, optim=optim)
    for first in range(steps + 1):
        wanted = list(dict.fromkeys(config.stage(step) for step in range(first, steps)))
        assert config.stages_from(first) == wanted
