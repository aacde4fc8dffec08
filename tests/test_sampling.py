"""Drawing a token: greedy, temperature, top-k, top-p and min-p against plain numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_ar.attention import MASKED
from perceiver_ar.sampling import Sampling, allowed, gumbel, sample

LOGITS = np.array([3.0, 1.0, 2.5, 2.0, -1.0, 0.0], np.float32)
LEGAL = np.array([True, True, False, True, True, True])


def support(sampling: Sampling, logits: np.ndarray = LOGITS, legal: np.ndarray = LEGAL) -> list[int]:
    """The tokens that may be drawn."""
    got = np.asarray(allowed(jnp.asarray(logits)[None], jnp.asarray(legal)[None], sampling.values()))[0]
    return np.flatnonzero(got > MASKED).tolist()


def drawn(sampling: Sampling, count: int, legal: np.ndarray = LEGAL, seed: int = 0) -> np.ndarray:
    """`count` tokens, each with its own key."""
    keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.key(seed), row))(jnp.arange(count))
    logits, table = np.tile(LOGITS, (count, 1)), np.tile(legal, (count, 1))
    noise = gumbel(keys, jnp.zeros((count, 1), jnp.int32), len(LOGITS))[:, 0]
    return np.asarray(sample(jnp.asarray(logits), jnp.asarray(table), sampling.values(), noise))


def chances(temperature: float, kept: list[int]) -> np.ndarray:
    """Probability of each token when only `kept` may be drawn."""
    weights = np.zeros(len(LOGITS))
    weights[kept] = np.exp(LOGITS[kept] / temperature)
    return weights / weights.sum()


def test_temperature_zero_takes_the_likeliest_legal_token() -> None:
    assert set(drawn(Sampling(temperature=0.0), 50)) == {0}
    without = LEGAL & (np.arange(6) != 0)
    assert set(drawn(Sampling(temperature=0.0), 50, without)) == {3}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_divides_the_logits_of_legal_tokens(temperature: float) -> None:
    values = Sampling(temperature=temperature).values()
    got = allowed(jnp.asarray(LOGITS)[None], jnp.asarray(LEGAL)[None], values)
    np.testing.assert_allclose(got[0], np.where(LEGAL, LOGITS / temperature, MASKED), rtol=1e-6)


def test_top_k_keeps_the_likeliest_legal_ones_and_ties() -> None:
    assert support(Sampling(top_k=1)) == [0]
    assert support(Sampling(top_k=3)) == [0, 1, 3]
    assert support(Sampling(top_k=99)) == [0, 1, 3, 4, 5]
    tied = np.array([2.0, 1.0, 9.0, 1.0, 1.0, 0.0], np.float32)
    assert support(Sampling(top_k=2), tied) == [0, 1, 3, 4]


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.7, 0.9, 0.97, 0.999])
def test_top_p_keeps_the_fewest_tokens_that_reach_it(top_p: float, temperature: float) -> None:
    legal = np.flatnonzero(LEGAL)
    probability = chances(temperature, legal.tolist())
    order = sorted(legal, key=lambda token: -probability[token])
    fewest = next(n for n in range(1, 6) if probability[order[:n]].sum() >= top_p)
    assert support(Sampling(temperature, top_p=top_p)) == sorted(order[:fewest])


@pytest.mark.parametrize("min_p", [0.01, 0.1, 0.3, 0.9])
def test_min_p_is_relative_to_the_likeliest_legal_token(min_p: float) -> None:
    probability = chances(1.0, np.flatnonzero(LEGAL).tolist())
    wanted = np.flatnonzero(LEGAL & (probability >= min_p * probability.max()))
    assert support(Sampling(min_p=min_p)) == wanted.tolist()


def test_filters_hold_together() -> None:
    assert support(Sampling(top_k=3, min_p=0.3)) == [0, 3]
    assert support(Sampling(top_k=2, top_p=0.99)) == [0, 3]


def test_top_p_of_one_keeps_the_unlikeliest_token() -> None:
    steep = np.array([30.0, 0.0, 0.0, -1.0, -2.0, -3.0], np.float32)
    assert support(Sampling(), steep) == [0, 1, 3, 4, 5]


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=10.0), Sampling(top_p=0.9), Sampling(top_k=9)]
)
def test_illegal_tokens_are_never_drawn(sampling: Sampling) -> None:
    last = np.arange(6) == 4  # the least likely of all, and the only legal one
    assert set(drawn(sampling, 2000)) <= {0, 1, 3, 4, 5}
    assert set(drawn(sampling, 50, last)) == {4}


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(), [0, 1, 3, 4, 5]),
        (Sampling(temperature=2.0), [0, 1, 3, 4, 5]),
        (Sampling(top_k=3), [0, 1, 3]),
        (Sampling(temperature=0.7, min_p=0.1), [0, 3]),
    ],
)
def test_frequencies_are_the_probabilities(sampling: Sampling, kept: list[int]) -> None:
    count = 20_000
    got = np.bincount(drawn(sampling, count), minlength=6)
    wanted = count * chances(sampling.temperature, kept)
    assert got[wanted == 0].sum() == 0
    used = wanted > 0
    chi_square = ((got[used] - wanted[used]) ** 2 / wanted[used]).sum()
    assert chi_square < 18.5  # one in a thousand with four degrees of freedom; the seed is fixed


def test_a_row_is_drawn_by_its_own_key_alone() -> None:
    np.testing.assert_array_equal(drawn(Sampling(), 7), drawn(Sampling(), 64)[:7])
    assert (drawn(Sampling(), 64) != drawn(Sampling(), 64, seed=1)).any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 11.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top-p"),
        ({"top_p": 1.1}, "top-p"),
        ({"top_k": -1}, "top-k"),
        ({"min_p": -0.1}, "min-p"),
        ({"min_p": 1.0}, "min-p"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**values)
