"""Long contexts and long runs: bounded memory, and a bounded number of programs to compile."""

import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import pytest
from small_models import VOCAB, ToyCodec, small_config, small_model

from perceiver_ar import ahead
from perceiver_ar import generate as generation
from perceiver_ar.ahead import Ahead
from perceiver_ar.config import FIRST_DATA
from perceiver_ar.generate import generate
from perceiver_ar.sampling import Sampling

LONG = r"""
import re, pathlib
import jax, numpy as np
from small_models import ToyCodec, small_config
from perceiver_ar.fills import primer_limit
from perceiver_ar.generate import generate
from perceiver_ar.model import PerceiverAR

def peak():  # not getrusage: what it says begins with the parent's peak
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1])

config = small_config(context=131072, latents=1024)
model = PerceiverAR(config, jax.random.key(0)).unrolled()
primer = np.random.default_rng(0).integers(3, 24, primer_limit(config)).astype(np.int32)
before = peak()
chunks = generate(model, ToyCodec(), [primer])
tokens = [next(chunks).tokens.shape[1] for _ in range(18)]  # 16 chunks fill the latents: past the window's end
print(len(primer), sum(tokens), (peak() - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_a_primer_of_131072_tokens_is_continued_in_bounded_memory() -> None:
    """1,024 latents. The scores of one fill alone would be 512 MiB, and the inputs' keys and values are 32 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", LONG], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    primer, tokens, mebibytes = map(int, done.stdout.split())
    assert (primer, tokens) == (131_072 - 512, 18 * 32)
    assert mebibytes < 350


def test_a_run_compiles_few_programs_and_the_next_one_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """One prefill; a step and a refill for each size of the ring, of which there are few."""
    monkeypatch.setattr(generation, "RING", 8)
    programs: list[Any] = [generation._prefill, generation._steps, generation._refill]
    model, primer = small_model(small_config(width=16)), np.full(20, FIRST_DATA, np.int32)

    def compiled(seed: int, primer: np.ndarray, sampling: Sampling) -> list[int]:
        before = [program._cache_size() for program in programs]
        chunks = generate(model, ToyCodec(), [primer], seed=seed, sampling=sampling)
        assert sum(chunk.tokens.shape[1] for chunk in islice(chunks, 40)) > 3 * model.config.context
        return [program._cache_size() - count for program, count in zip(programs, before, strict=True)]

    prefills, steps, refills = compiled(0, primer, Sampling())
    assert prefills == 1
    sizes = 3  # the ring has 8, 16 and 32 slots, and the prefix leaves the window once
    assert steps <= sizes + 1 and refills <= 1 + sizes + 1
    other = np.full(18, VOCAB - 1, np.int32)  # another length in the same bucket
    assert compiled(1, other, Sampling(temperature=0.5, top_p=0.9)) == [0, 0, 0]


def test_while_the_window_stands_still_one_program_refills_behind_a_ring_of_any_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It begins with what the cross-attend gave, and does not look at its keys and values."""
    monkeypatch.setattr(generation, "RING", 8)
    programs: list[Any] = [generation._steps, generation._refill]
    before = [program._cache_size() for program in programs]
    model = small_model(small_config(width=16, heads=2, context=64, rotary_fraction=0.25))
    chunks = generate(model, ToyCodec(), [np.full(20, FIRST_DATA, np.int32)], chunk=4)
    assert sum(chunk.tokens.shape[1] for chunk in islice(chunks, 8)) == 32
    steps, refills = (program._cache_size() - count for program, count in zip(programs, before, strict=True))
    assert steps == 3 and refills == 1  # with 8, 16 and 32 slots


@pytest.mark.parametrize("position", ["rotary", "sinusoidal"])
def test_only_the_first_steps_are_compiled_while_somebody_waits(
    position: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Refills, and steps with a longer ring or without a prefix, are compiled in a thread beside, and none in vain."""
    monkeypatch.setattr(generation, "RING", 8)
    waited_for, compile_now = [], Ahead.compile_now

    def counted(self: Ahead, name: Any, program: Any) -> None:
        waited_for.append(name)
        compile_now(self, name, program)

    monkeypatch.setattr(Ahead, "compile_now", counted)
    _wait_for_compilers()
    config = small_config(width=24, heads=3, position=position)
    model, primer = small_model(config), np.full(20, FIRST_DATA, np.int32)
    before = cast(Any, generation._refill)._cache_size()
    jax.config.update("jax_log_compiles", True)
    try:
        chunks = generate(model, ToyCodec(), [primer])
        assert sum(chunk.tokens.shape[1] for chunk in islice(chunks, 40)) > 3 * config.context
        used = cast(Any, generation._refill)._cache_size() - before
        _wait_for_compilers()
    finally:
        jax.config.update("jax_log_compiles", False)
    threads = {
        name: [
            record.threadName
            for record in caplog.records
            if f"Finished XLA compilation of jit({name})" in record.message
        ]
        for name in ("_steps", "_refill")
    }
    assert threads["_steps"][0] == "MainThread" and set(threads["_refill"]) == {"compile"}
    assert len(threads["_refill"]) == used >= 1
    if position == "rotary":  # with absolute positions the window starts again, and has other shapes at once
        assert waited_for == ["prefill", ("steps", 8, True)] and set(threads["_steps"][1:]) == {"compile"}
        assert used >= 3


def test_what_one_run_compiled_ahead_the_next_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "RING", 8)
    model, primer = small_model(small_config(width=40, heads=2)), np.full(20, FIRST_DATA, np.int32)

    def run(seed: int) -> None:
        for _ in islice(generate(model, ToyCodec(), [primer], seed=seed), 12):
            _wait_for_compilers()

    run(0)

    def again(**_: Any) -> None:
        raise AssertionError("it was compiled again")

    monkeypatch.setattr(ahead, "Thread", again)
    run(1)


def test_a_refill_is_spread_over_the_second_half_of_the_tokens_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No chunk of 2 tokens waits for more than 4 of the 16, none for any of it in the first half."""
    monkeypatch.setattr(generation, "piece_of", lambda config, rows: max(2 // rows, 1))
    sizes: list[int] = []
    refill = generation._refill

    def counted(*given: Any) -> Any:
        sizes.append(given[3].shape[1])
        return refill(*given)

    monkeypatch.setattr(counted, "lower", refill.lower, raising=False)
    model, primer = small_model(small_config(latents=32)), np.full(20, FIRST_DATA, np.int32)
    chunks = generate(model, ToyCodec(), [primer], chunk=2)
    next(chunks)
    _wait_for_compilers()
    monkeypatch.setattr(generation, "_refill", counted)
    spread = []
    for _ in range(15):
        next(chunks)
        spread.append(sum(sizes))
        sizes.clear()
    assert spread == [0, 0, 0, 2, 4, 4, 4, 2, 0, 0, 0, 2, 4, 4, 4]


def _wait_for_compilers() -> None:
    for thread in threading.enumerate():
        if thread.name == "compile":
            thread.join()
