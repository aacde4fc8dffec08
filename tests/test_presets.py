"""Every preset: its values fit together, can be written and read again, and make a model."""

import json
from importlib import import_module
from pkgutil import iter_modules

import jax
import pytest

from perceiver_ar.model import PerceiverAR, to_params
from training import presets
from training.config import TrainConfig

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
