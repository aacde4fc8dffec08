"""What a latent may see, what dropout does, and what the cache must not change."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import VOCAB, logits_of, places, small_config, small_model, uncached

from perceiver_ar.cache import Cache
from perceiver_ar.config import FIRST_DATA, PAD, ModelConfig
from perceiver_ar.model import PerceiverAR, drop_prefix, from_params, to_params
from perceiver_ar.products import FEW

KINDS = [
    pytest.param({"position": "rotary"}, id="rotary"),
    pytest.param({"position": "rotary", "position_shape": (16, 8)}, id="rotary, two axes"),
    pytest.param({"position": "sinusoidal"}, id="sinusoidal"),
    pytest.param({"position": "sinusoidal", "position_shape": (16, 8)}, id="sinusoidal, two axes"),
    pytest.param({"position": "learned"}, id="learned"),
    pytest.param({"position": "learned", "position_shape": (16, 8)}, id="learned, two axes"),
]


def tokens(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(FIRST_DATA, VOCAB, shape).astype(np.int32)


def where(config: ModelConfig, count: int, batch: int = 1) -> jax.Array:
    return jnp.asarray(np.repeat(places(count, config.position_shape)[None], batch, axis=0))


def sensitivity(config: ModelConfig, pads: int = 0) -> np.ndarray:
    """|d logits of each latent / d embedding of each of 24 inputs|, (latents, inputs); each input its own token."""
    config = replace(config, vocab_size=FIRST_DATA + 24)
    inputs = np.arange(FIRST_DATA, FIRST_DATA + 24)[None]
    inputs[:, :pads] = PAD
    params = to_params(small_model(config))
    weights = jax.random.normal(jax.random.key(7), (config.vocab_size,))

    def logits(embedding: jax.Array) -> jax.Array:
        model = from_params(config, params | {"embedding": embedding})
        return model(jnp.asarray(inputs), where(config, 24), config.latents)[0][0] @ weights

    gradients = jax.jit(jax.jacrev(logits))(params["embedding"])
    return np.asarray(jnp.abs(gradients).sum(axis=-1))[:, inputs[0]]


@pytest.mark.parametrize("kind", KINDS)
def test_no_latent_sees_a_later_token_and_every_latent_sees_the_first(kind: dict) -> None:
    config = small_config(**kind)
    seen = sensitivity(config)
    latest = 24 - config.latents + np.arange(config.latents)
    later = np.arange(24) > latest[:, None]
    assert (seen[later] == 0).all()
    assert (seen[~later] > 1e-4).all()


def test_no_latent_sees_padding() -> None:
    seen = sensitivity(small_config(), pads=18)  # two of the eight latents are padding themselves
    assert (seen[2:, :18] == 0).all()
    assert (seen[2:, 18] > 1e-4).all()


@pytest.mark.parametrize("kind", KINDS)
def test_examples_of_unequal_length_are_as_each_alone(kind: dict) -> None:
    model = small_model(small_config(**kind))
    lengths = [1, 7, 9, 32]
    batch = np.full((len(lengths), 32), PAD, np.int32)
    positions = np.zeros((len(lengths), 32, model.config.axes), np.int32)
    examples = [tokens(length, seed=length) for length in lengths]
    for row, place, example in zip(batch, positions, examples, strict=True):
        row[32 - len(example) :] = example
        place[32 - len(example) :] = places(len(example), model.config.position_shape)
    together = np.asarray(uncached(model, jnp.asarray(batch), jnp.asarray(positions), 8))
    for row, example in zip(together, examples, strict=True):
        latents = min(8, len(example))
        np.testing.assert_allclose(row[-latents:], logits_of(model, example[None], latents)[0], atol=2e-5)


def test_rotary_logits_stay_when_all_positions_shift() -> None:
    model = small_model(small_config())
    inputs, positions = jnp.asarray(tokens(1, 20)), where(model.config, 20)
    near = uncached(model, inputs, positions, 8)
    np.testing.assert_allclose(near, uncached(model, inputs, positions + 1_000_000, 8), atol=1e-4)
    assert np.abs(near - uncached(model, inputs, positions * 3, 8)).max() > 0.01


def test_every_parameter_has_a_gradient() -> None:
    config = small_config(position="learned", position_shape=(16, 8))

    def loss(params: dict) -> jax.Array:
        logits = from_params(config, params)(jnp.asarray(tokens(1, 24)), where(config, 24), 8)[0]
        return jax.nn.log_softmax(logits)[..., 5].sum()

    gradients = jax.jit(jax.grad(loss))(to_params(small_model(config)))
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.abs(gradient).max() > 0, path


def run(model: PerceiverAR, key: int | None = None, latents: int = 8) -> np.ndarray:
    """Logits of 24 tokens, with dropout if there is a key."""
    keyed = None if key is None else jax.random.key(key)
    inputs = jnp.asarray(tokens(2, 24))
    return np.asarray(uncached(model, inputs, where(model.config, 24, 2), latents, keyed))


@pytest.mark.parametrize("rates", [{"dropout": 0.3}, {"cross_attend_dropout": 0.5}], ids=str)
def test_dropout_needs_a_key_and_follows_it(rates: dict[str, float]) -> None:
    plain, model = small_model(small_config()), small_model(small_config(**rates))
    np.testing.assert_array_equal(run(model), run(plain))
    np.testing.assert_array_equal(run(model, 1), run(model, 1))
    assert np.abs(run(model, 1) - run(plain)).max() > 0.01
    assert np.abs(run(model, 1) - run(model, 2)).max() > 0.01
    np.testing.assert_array_equal(run(plain, 1), run(plain))


def test_dropout_keeps_the_mean() -> None:
    from perceiver_ar.model import _drop

    x = np.asarray(_drop(jnp.ones((100, 100)), 0.3, jax.random.key(0)))
    assert set(np.unique(x)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs(x.mean() - 1) < 0.02


def test_cross_attend_dropout_keeps_a_part_of_the_prefix_in_order() -> None:
    inputs = jnp.broadcast_to(jnp.arange(30), (64, 30))
    places_too = jnp.stack([inputs, 100 + inputs], axis=-1)
    kept, positions = drop_prefix(inputs, places_too, 10, 0.25, jax.random.key(0))
    assert kept.shape == (64, 15 + 10)
    assert (kept[:, 15:] == jnp.arange(20, 30)).all()
    assert (jnp.diff(kept, axis=1) > 0).all()
    assert (positions[..., 0] == kept).all() and (positions[..., 1] == 100 + kept).all()
    times = np.bincount(np.asarray(kept[:, :15]).ravel(), minlength=20)
    assert len(times) == 20 and times.min() > 30 and times.max() < 64  # 48 of 64 on average, each row its own


def test_cross_attend_dropout_hides_what_it_drops() -> None:
    config = small_config(cross_attend_dropout=0.5, vocab_size=FIRST_DATA + 24)
    inputs, params = jnp.arange(FIRST_DATA, FIRST_DATA + 24)[None], to_params(small_model(config))

    def loss(embedding: jax.Array) -> jax.Array:
        model = from_params(config, params | {"embedding": embedding})
        return jnp.square(model(inputs, where(config, 24), 8, key=jax.random.key(3))[0]).sum()

    used = np.abs(jax.jit(jax.grad(loss))(params["embedding"])).max(axis=1)[FIRST_DATA:] > 0
    assert used[:16].sum() == 8 and used[16:].all()


def test_a_later_token_changes_no_earlier_logit() -> None:
    """Forward, beside the gradients above, whose derivative is written by hand."""
    config = small_config()
    model, place = small_model(config), where(config, 24)
    inputs = np.asarray(tokens(1, 24)).copy()
    before = np.asarray(uncached(model, jnp.asarray(inputs), place, 8))
    inputs[0, -3] = (inputs[0, -3] + 1) % config.vocab_size
    after = np.asarray(uncached(model, jnp.asarray(inputs), place, 8))
    np.testing.assert_array_equal(before[0, :-3], after[0, :-3])
    assert (before[0, -3:] != after[0, -3:]).any(axis=-1).all()


def test_remat_changes_no_gradient_and_takes_less_memory() -> None:
    def gradients(config: ModelConfig) -> tuple[dict, int]:
        def loss(params: dict) -> jax.Array:
            model = from_params(config, params)
            key = jax.random.key(1)
            return jnp.square(model(jnp.asarray(tokens(1, 96)), where(config, 96), 64, key=key)[0]).mean()

        params = to_params(small_model(config))
        program = jax.jit(jax.grad(loss)).lower(params).compile()
        memory = program.memory_analysis()
        assert memory is not None
        return program(params), memory.temp_size_in_bytes

    config = small_config(dropout=0.2, context=96, latents=64, layers=4)
    plain, kept = gradients(config)
    again, fewer = gradients(replace(config, remat=True))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5 * np.abs(x).max()), plain, again)
    assert fewer < 0.8 * kept


def test_bfloat16_gives_float32_logits_near_those_of_float32() -> None:
    inputs = tokens(9, 24)  # more rows than products whose factors are left as they are
    exact = logits_of(small_model(small_config()), inputs, 8)
    coarse = logits_of(small_model(small_config(dtype="bfloat16")), inputs, 8)
    assert coarse.shape[0] * coarse.shape[1] > FEW
    assert coarse.dtype == np.float32
    error = np.abs(coarse - exact)
    assert 0 < error.mean() < 0.02 * np.abs(exact).mean() + 0.01
    assert np.abs(exact).mean() > 0.3


@pytest.mark.parametrize("primer", [1, 17])
def test_steps_and_longer_calls_on_a_cache_equal_one_call(primer: int) -> None:
    """Prefill, a step, three tokens at once, a step: together they are at most the latents."""
    model, batch = small_model(small_config()), 2
    inputs = tokens(batch, primer + 5)
    positions = where(model.config, primer + 5, batch)
    first = min(primer, 3)
    logits, cache = model(
        jnp.asarray(inputs[:, :primer]), positions[:, :primer], first, Cache.empty(model.config, batch)
    )
    assert cache is not None
    cache, got = cache.fork(model.config, 1, 32), [logits]
    at = primer
    for count in (1, 3, 1):
        part = slice(at, at + count)
        logits, cache = model(jnp.asarray(inputs[:, part]), positions[:, part], count, cache)
        got.append(logits)
        at += count
    np.testing.assert_allclose(np.concatenate(got, 1), logits_of(model, inputs, first + 5), atol=2e-5)


@pytest.mark.parametrize("primer", [15, 17])
@pytest.mark.parametrize("kind", [KINDS[0], KINDS[3]])
def test_a_prefill_in_parts_is_a_prefill(kind: dict, primer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = small_model(small_config(**kind)), tokens(2, primer)
    inputs[0, :7] = PAD
    positions = where(model.config, primer, 2)

    def prefill() -> tuple:
        return model(jnp.asarray(inputs), positions, 3, Cache.empty(model.config, 2))

    whole = prefill()
    monkeypatch.setattr("perceiver_ar.model.PART", 5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), whole, prefill())


def test_weights_of_another_config_are_refused() -> None:
    params = to_params(small_model(small_config()))
    message = "do not fit the model's config"
    for changed in ({"width": 64}, {"layers": 3}, {"vocab_size": 25}, {"widening": 4}):
        with pytest.raises(ValueError, match=message):
            from_params(small_config(**changed), params)
    with pytest.raises(ValueError, match=message):
        from_params(small_config(position="learned"), params)
    with pytest.raises(ValueError, match=message):
        from_params(small_config(), params | {"more": jnp.zeros(1)})
    with pytest.raises(ValueError, match=message):
        from_params(small_config(), {name: value for name, value in params.items() if name != "head"})


def test_weights_survive_the_plain_dict() -> None:
    model = small_model(small_config(position="learned"))
    again = from_params(model.config, to_params(model))
    np.testing.assert_array_equal(run(model), run(again))


@pytest.mark.parametrize("latents", [0, 9, 25])
def test_latents_that_do_not_fit_are_refused(latents: int) -> None:
    with pytest.raises(ValueError, match=f"{latents} latents do not fit 24 tokens and 8 latents"):
        run(small_model(small_config()), latents=latents)
