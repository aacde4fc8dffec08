"""Code of the loops that is kept and placed in memory by ourselves, beside what LLVM makes of them at each start."""

import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jax import ffi

from perceiver_ar import kernels
from perceiver_ar.kernels import calls, compiler, machine_code

here = pytest.mark.skipif(
    sys.platform != "linux" or machine_code.platform.machine() != "x86_64",
    reason="LLVM places it itself here",
)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count on a compiler that is not there."""

    def compile_again(*_: object) -> bytes:
        raise AssertionError("it was compiled again")

    monkeypatch.setattr(compiler, "object_code", compile_again)


@here
def test_code_is_compiled_once_and_a_damaged_file_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = compiler.object_code(calls.written("help"))
    monkeypatch.setattr(machine_code, "user_cache", tmp_path.joinpath)
    monkeypatch.setattr(compiler, "object_code", lambda _: code)
    machine_code.function("help")
    (kept,) = (tmp_path / "kernels").iterdir()
    forget(monkeypatch)
    machine_code.function("help")
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    with pytest.raises(AssertionError, match="compiled again"):
        machine_code.function("help")


@here
def test_where_nothing_can_be_kept_it_is_compiled_each_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(machine_code, "user_cache", lambda *parts: tmp_path.joinpath("file", *parts))
    code = machine_code.function("help")
    assert [code(what) for what in (machine_code.BEGIN, machine_code.END)] == [0, 0]


@here
@pytest.mark.parametrize(
    ("name", "value", "said"), [("X86_64_64", 2, "relocation"), ("OUTSIDE", {}, "perceiver_ar_board")]
)
def test_code_that_asks_for_more_than_an_address_is_refused(
    name: str, value: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relocation that is not known, or something that is nowhere."""
    code = compiler.object_code(calls.written("help"))
    monkeypatch.setattr(machine_code, name, value)
    with pytest.raises(ImportError, match=said):
        machine_code._placed(code, "help")


@here
def test_what_cannot_be_placed_is_left_to_llvm(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ImportError("it asks for something, which is nowhere")

    assert hasattr(machine_code.function("help"), "memory")
    monkeypatch.setattr(machine_code, "_placed", refuse)
    code = machine_code.function("help")
    assert not hasattr(code, "memory")
    assert [code(what) for what in (machine_code.BEGIN, machine_code.END)] == [0, 0]


def test_llvm_itself_places_the_same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does on other systems."""
    assert kernels.usable()
    monkeypatch.setattr(machine_code.platform, "machine", lambda: "another")
    other = machine_code.function("multiply")
    assert not hasattr(other, "memory")
    ffi.register_ffi_target("placed_by_llvm_multiply", ffi.pycapsule(other), platform="cpu")
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((3, 70)), jnp.float32)
    weight = jnp.asarray(rng.standard_normal((9, 70)), jnp.float16)
    ours = np.asarray(kernels.multiply(x, weight))
    monkeypatch.setattr(kernels, "PREFIX", "placed_by_llvm_")
    np.testing.assert_array_equal(kernels.multiply(x, weight), ours)


NARROW = """
import platform, sys
from llvmlite import binding
features = binding.FeatureMap()
features["f16c"] = True
binding.get_host_cpu_features, binding.get_host_cpu_name = lambda: features, lambda: "x86-64-v3"
platform.machine = lambda: sys.argv[1]

import jax, jax.numpy as jnp, numpy as np
from perceiver_ar import kernels
from perceiver_ar.kernels import vectors
from perceiver_ar.attention import attend_reference
from perceiver_ar.cache import Entries

assert kernels.usable()
rng = np.random.default_rng(0)
random = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
for rows in (1, 3, 9):
    x, weight = random(rows, 75), random(21, 75).astype(jnp.float16)
    wanted = np.asarray(x, np.float64) @ np.asarray(weight, np.float64).T
    np.testing.assert_allclose(kernels.multiply(x, weight), wanted, rtol=1e-5, atol=1e-4)
store = Entries(random(2, 45, 530), random(2, 530, 45), jnp.arange(530)[None])
queries, index = random(2, 70, 45) / 7, jnp.arange(460, 530)  # more than a block of the derivative's
wanted = attend_reference(queries, store, index)
np.testing.assert_allclose(kernels.attend(queries, [store], index, 0), wanted, atol=2e-6)
halves = Entries(store.keys.astype("float16"), store.values.astype("float16"), store.index)
wanted = attend_reference(queries, halves, index)
np.testing.assert_allclose(kernels.attend(queries, [halves], index, 0), wanted, atol=2e-6)

def reference(queries, keys, values):
    return attend_reference(queries, Entries(keys, values, store.index), index)

average, back = jax.vjp(reference, queries, *store[:2])
along, normaliser = random(2, 70, 45), kernels.attend_whole(queries, store, index, 0)[1]
offset = (along * average).sum(-1, keepdims=True)
found = kernels.attention_gradient(queries, store, index, 0, along, normaliser, offset)
for mine, wanted in zip(found, back(along), strict=True):
    np.testing.assert_allclose(mine, wanted, atol=1e-5)
x, along = random(150, 75), random(150, 21)
np.testing.assert_allclose(kernels.weights_gradient(along, x), along.T @ x, rtol=1e-5, atol=1e-4)
print(vectors.LANES)
"""


@here
@pytest.mark.parametrize(("machine", "lanes"), [("x86_64", 8), ("aarch64", 4)])
def test_cpus_with_shorter_vectors_compute_the_same(machine: str, lanes: int, tmp_path: Path) -> None:
    """Instructions are this CPU's, vectors as long as AVX2's, and NEON's."""
    done = subprocess.run(
        [sys.executable, "-c", NARROW, machine],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == lanes
