"""Keys and values in float16: nothing but their rounding comes between a continuation and an uncached forward."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exactness import check_exact, collect, cut_small, forward, primer
from small_models import small_config, small_model

from perceiver_ar import products
from perceiver_ar.cache import Cache
from perceiver_ar.checkpoint import load
from perceiver_ar.codecs.midi import read_midi
from perceiver_ar.config import CacheDType
from perceiver_ar.fills import refilled
from perceiver_ar.generate import generate
from perceiver_ar.model import from_params, to_params
from perceiver_ar.registry import asset


@pytest.mark.parametrize(("lengths", "takes", "count"), [([1, 9], 3, 24), ([25], 2, 36)])
def test_a_float16_cache_keeps_what_is_rounded_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, lengths: list[int], takes: int, count: int
) -> None:
    """Logits, up to 9 here, are off by a thousandth or so; the same with prefixes, rings, refills and parts."""
    config = small_config(layers=3)
    coarse = small_model(replace(config, cache_dtype="float16"))
    primers = [primer(length) for length in lengths]
    cut_small(monkeypatch)
    most = check_exact(small_model(config), primers, takes, count, kept=coarse, atol=5e-3)
    assert most > 1e-4
    halves, floats = (Cache.empty(model.config, 1).latents for model in (coarse, small_model(config)))
    size, whole = (sum(x.nbytes for x in jax.tree.leaves(cache.layers)) for cache in (halves, floats))
    assert 2 * size == whole


@pytest.mark.parametrize(("cache_dtype", "atol"), [(None, 1e-4), ("float16", 3e-2)])
def test_a_shipped_model_is_exact_or_as_near_as_its_card_says(cache_dtype: CacheDType, atol: float) -> None:
    pretrained, count = load("piano-small"), 96
    assert pretrained.config.cache_dtype == "float16"
    exact = from_params(replace(pretrained.config, cache_dtype=None), to_params(pretrained.model))
    pretrained.model.config = replace(pretrained.config, cache_dtype=cache_dtype)
    tokens = read_midi(asset("primers", "bach-prelude.mid")).primer(pretrained.music).tokens
    got = collect(generate(pretrained.model, pretrained.codec, [tokens]), count)
    seen = np.concatenate([tokens, got.tokens[0, :-1]])
    wanted = forward(exact, seen, refilled(exact.config) + count - 1, 0)[-count:]
    most = float(np.abs(jax.nn.log_softmax(got.logits[0]) - jax.nn.log_softmax(wanted)).max())
    assert (cache_dtype is None) == (most < 1e-4) and most < atol


def test_where_there_are_no_kernels_a_float16_cache_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which XLA would read more slowly, and in products of halves."""
    monkeypatch.setattr(products, "kernels", lambda: None)
    config = small_config(cache_dtype="float16")
    assert {x.dtype for x in jax.tree.leaves(Cache.empty(config, 1).latents.layers)} == {jnp.dtype("float32")}
