"""Rotary depends on distance alone, anywhere; vectors of several axes add up."""

import jax.numpy as jnp
import numpy as np
import pytest
from small_models import small_config

from perceiver_ar.positions import cosine, learned, phases, rotate, rotation, sine, sinusoidal, wavelengths

RNG = np.random.default_rng(0)
FAR = 1_000_000


def at(*rows: list[int]) -> jnp.ndarray:
    """One example's positions, (1, seq, axes), from one list an axis."""
    return jnp.asarray(np.stack(rows, axis=-1)[None], jnp.int32)


def scores(config, places: jnp.ndarray, x: jnp.ndarray) -> np.ndarray:
    turned = rotate(x, rotation(config, 2, places))
    return np.asarray(jnp.einsum("bqhd,bkhd->bhqk", turned, turned))


@pytest.mark.parametrize("shift", [1, 17, 4096, FAR])
@pytest.mark.parametrize("shape", [(), (16, 8)])
def test_rotary_scores_depend_on_distance_alone(shift: int, shape: tuple[int, ...]) -> None:
    config = small_config(position_shape=shape)
    places = at(*[[0, 1, 5, 30]] * config.axes)
    x = jnp.asarray(RNG.normal(size=(1, 4, 2, 16)), jnp.float32)
    near, far = scores(config, places, x), scores(config, places + shift, x)
    np.testing.assert_allclose(near, far, atol=2e-5)
    assert np.abs(near - scores(config, places * 2, x)).max() > 0.1


def test_each_axis_turns_scores_by_itself() -> None:
    config = small_config(position_shape=(16, 8))
    x = jnp.asarray(RNG.normal(size=(1, 2, 2, 16)), jnp.float32)
    still = scores(config, at([3, 3], [3, 3]), x)
    first, second = scores(config, at([3, 4], [3, 3]), x), scores(config, at([3, 3], [3, 4]), x)
    assert np.abs(first - still).max() > 0.01
    assert np.abs(second - still).max() > 0.01
    assert np.abs(first - second).max() > 0.01


def test_phases_are_as_exact_at_a_million_as_at_zero() -> None:
    lengths = wavelengths(8, 16_384.0)
    turns = np.round(2.0**32 / lengths) / 2.0**32
    for position in (0, 1, 999, FAR, FAR + 1):
        exact = (position * turns + 0.5) % 1 - 0.5
        got = np.asarray(phases(jnp.array([position]), lengths))[0] / 2.0**32
        np.testing.assert_allclose(np.exp(2j * np.pi * got), np.exp(2j * np.pi * exact), atol=1e-8)
    np.testing.assert_allclose(1 / turns, lengths, rtol=1e-5)


def test_sines_are_sines() -> None:
    ends = np.array([-(2**31), -(2**30) - 1, -(2**30), -1, 0, 1, 2**30, 2**30 + 1, 2**31 - 1], np.int32)
    phase = np.concatenate([ends, RNG.integers(-(2**31), 2**31, 10_000).astype(np.int32)])
    angle = phase.astype(np.float64) * (2 * np.pi / 2**32)
    np.testing.assert_allclose(sine(jnp.asarray(phase)), np.sin(angle), atol=3e-7)
    np.testing.assert_allclose(cosine(jnp.asarray(phase)), np.cos(angle), atol=3e-7)


@pytest.mark.parametrize(("fraction", "turned"), [(0.0, 0), (0.25, 4), (0.5, 8), (1.0, 16)])
def test_channels_past_the_rotary_fraction_see_content_alone(fraction: float, turned: int) -> None:
    x = jnp.asarray(RNG.normal(size=(1, 1, 2, 16)), jnp.float32)
    y = rotate(x, rotation(small_config(rotary_fraction=fraction), 2, at([7])))
    changed = np.asarray(x != y).any(axis=(0, 1, 2))
    assert changed.tolist() == [True] * turned + [False] * (16 - turned)
    np.testing.assert_allclose(jnp.linalg.norm(x, axis=-1), jnp.linalg.norm(y, axis=-1), rtol=1e-5)


def test_wavelengths_run_from_two_pi_to_the_longest() -> None:
    np.testing.assert_allclose(wavelengths(3, 200 * np.pi), [2 * np.pi, 20 * np.pi, 200 * np.pi])
    np.testing.assert_allclose(wavelengths(1, 100.0), [2 * np.pi])


def test_the_longest_wavelength_sets_the_slowest_rotation() -> None:
    config = small_config(longest_wavelength=80.0)
    turn = rotation(config, 2, at([20]))
    assert turn is not None
    cos, sin = turn
    np.testing.assert_allclose((cos[0, 0, -1], sin[0, 0, -1]), (0, 1), atol=1e-5)


def test_models_with_added_positions_rotate_nothing() -> None:
    assert rotation(small_config(position="sinusoidal"), 2, at([1])) is None
    assert rotation(small_config(position="learned"), 2, at([1])) is None


def test_sinusoidal_is_sines_then_cosines_of_the_position() -> None:
    config = small_config(position="sinusoidal", width=8, heads=2)
    lengths = np.geomspace(2 * np.pi, 32, 4)
    theta = 2 * np.pi * 5 / lengths
    np.testing.assert_allclose(
        sinusoidal(config, at([5]))[0, 0], np.concatenate([np.sin(theta), np.cos(theta)]), atol=1e-5
    )


def test_sinusoidal_axes_stand_side_by_side_with_zeros_behind() -> None:
    config = small_config(position="sinusoidal", width=14, heads=2, position_shape=(16, 8))
    one = small_config(position="sinusoidal", width=6, heads=2)
    vector = np.asarray(sinusoidal(config, at([5], [3]))[0, 0])
    np.testing.assert_allclose(vector[:6], sinusoidal(one, at([5]))[0, 0], atol=1e-6)
    np.testing.assert_allclose(vector[6:12], sinusoidal(one, at([3]))[0, 0], atol=1e-6)
    assert vector[12:].tolist() == [0, 0]


def test_learned_rows_of_several_axes_add_up() -> None:
    tables = [jnp.asarray(RNG.normal(size=(count, 4)), jnp.float32) for count in (16, 8)]
    got = learned(tables, at([5, 0], [3, 7]))
    np.testing.assert_allclose(got[0, 0], tables[0][5] + tables[1][3])
    np.testing.assert_allclose(got[0, 1], tables[0][0] + tables[1][7])
