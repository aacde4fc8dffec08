"""A model config is valid, complete and alive: no field that nothing reads."""

import ast
import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from small_models import small_config

from perceiver_ar.config import ModelConfig

PACKAGE = Path(__file__).parents[1] / "perceiver_ar"

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"context": 0, "latents": 0}, "context must be at least 1"),
    ({"latents": 0}, "latents must be at least 1"),
    ({"width": 0}, "width must be at least 1"),
    ({"layers": 0}, "layers must be at least 1"),
    ({"heads": 0}, "heads must be at least 1"),
    ({"cross_heads": 0}, "cross_heads must be at least 1"),
    ({"widening": 0}, "widening must be at least 1"),
    ({"heads": 5}, "not a multiple of heads"),
    ({"cross_heads": 3}, "not a multiple of cross_heads"),
    ({"dropout": 1.0}, "dropout must be in"),
    ({"dropout": -0.1}, "dropout must be in"),
    ({"cross_attend_dropout": 1.0}, "cross_attend_dropout must be in"),
    ({"vocab_size": 3}, "vocab_size must exceed"),
    ({"latents": 33}, "must not exceed the context"),
    ({"rotary_fraction": 1.5}, "rotary_fraction must be in"),
    ({"longest_wavelength": 4.0}, "longest_wavelength must be at least 8"),
    ({"heads": 16}, "heads 16 leaves heads of 2 channels, too few"),
    ({"cross_heads": 16}, "cross_heads 16 leaves heads of 2 channels, too few"),
    ({"position_shape": (4, 4, 4)}, "each of 3 axes"),
    ({"width": 32.0}, "width must be a whole number, not 32.0"),
    ({"layers": True}, "layers must be a whole number, not True"),
    ({"latents": "8"}, "latents must be a whole number, not '8'"),
    ({"remat": "yes"}, "remat must be true or false, not 'yes'"),
    ({"dropout": None}, "dropout must be a finite number, not None"),
    ({"rotary_fraction": math.nan}, "rotary_fraction must be a finite number"),
    ({"longest_wavelength": math.inf}, "longest_wavelength must be a finite number"),
    ({"longest_wavelength": "9"}, "longest_wavelength must be a finite number"),
    ({"position_shape": 5}, "position_shape must hold whole numbers"),
    ({"position_shape": (16.0,)}, "position_shape must hold whole numbers"),
    ({"position": "rotory"}, "position must be one of"),
    ({"dtype": "float16"}, "dtype must be one of"),
    ({"cache_dtype": "int8"}, "cache_dtype must be one of"),
    ({"position_shape": (16, 0)}, "position_shape must hold lengths"),
    ({"position": "learned", "position_shape": (31,)}, "fewer places than the context"),
    ({"position": "learned", "position_shape": (5, 6)}, "fewer places than the context"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=lambda value: str(value)[:60])
def test_a_config_that_no_model_can_have_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_config(**changes)


@pytest.mark.parametrize(
    "config",
    [
        small_config(),
        small_config(position="learned", position_shape=(16, 8), longest_wavelength=100.0, remat=True),
        small_config(heads=16, rotary_fraction=0.0),
        small_config(position="sinusoidal", heads=16),
        small_config(position="sinusoidal", dtype="bfloat16", dropout=0.1, cross_attend_dropout=0.3),
    ],
)
def test_a_config_survives_json(config: ModelConfig) -> None:
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown fields in the model config: depth"):
        ModelConfig.from_dict(small_config().to_dict() | {"depth": 3})


def test_a_missing_field_is_refused_by_name() -> None:
    values = small_config().to_dict()
    del values["width"]
    with pytest.raises(ValueError, match=r"incomplete model config: .*width"):
        ModelConfig.from_dict(values)


def test_one_axis_as_long_as_the_context_is_the_rule() -> None:
    assert small_config().position_shape == (32,)
    assert small_config(position_shape=(16, 8)).axes == 2


def test_the_longest_wavelength_is_the_context_unless_it_is_given() -> None:
    assert small_config().wavelength == 32
    assert small_config(context=4, latents=2).wavelength == 8
    assert replace(small_config(), longest_wavelength=50.0).wavelength == 50


def test_every_field_is_read_by_the_model() -> None:
    read = set()
    for name in ("model", "positions", "products", "cache", "generate", "attention"):
        for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                owner = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
                read |= {node.attr} if owner == "config" else set()
    for name, through in (("longest_wavelength", "wavelength"), ("rotary_fraction", "rotated")):
        read |= {name} if through in read else set()
    assert {field.name for field in fields(ModelConfig)} <= read
