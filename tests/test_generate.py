"""Generated logits equal those of one uncached forward, whatever the cache did in between."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exactness import check_exact, collect, cut_small, primer
from small_models import VOCAB, ToyCodec, small_config, small_model

from perceiver_ar import generate as generation
from perceiver_ar.config import FIRST_DATA, SOS, CacheDType
from perceiver_ar.fills import bucket, heard, primer_limit, refilled
from perceiver_ar.generate import Chunk, generate
from perceiver_ar.model import PerceiverAR, from_params, to_params
from perceiver_ar.sampling import Sampling

CODEC = ToyCodec()


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Primers are padded to a few short lengths, and most refills come in two pieces, of one token and of three."""
    cut_small(monkeypatch)


EXACT = [
    pytest.param({}, [1, 5, 9], 2, 36, id="unequal primers, two takes each, past the prefix"),
    pytest.param({}, [60, 3], 1, 24, id="a primer longer than the context"),
    pytest.param({}, [17], 1, 24, id="padding leaves the window before the primer does"),
    pytest.param({"position_shape": (16, 8)}, [9], 2, 24, id="rotary, two axes"),
    pytest.param({"latents": 7}, [9], 1, 28, id="odd latents"),
    pytest.param({"latents": 2}, [2], 1, 12, id="two latents"),
    pytest.param({"latents": 3}, [3, 8], 1, 12, id="three latents"),
    pytest.param({"context": 8}, [20], 1, 20, id="no prefix"),
    pytest.param({"position": "sinusoidal"}, [1, 17], 2, 40, id="sinusoidal past the context"),
    pytest.param(
        {"position": "sinusoidal", "position_shape": (16, 8)}, [5], 1, 12, id="sinusoidal, two axes"
    ),
    pytest.param({"position": "learned"}, [5], 1, 12, id="learned"),
    pytest.param({"position": "learned", "position_shape": (16, 8)}, [9], 2, 32, id="learned, two axes"),
    pytest.param({"position": "learned", "context": 8}, [20], 1, 16, id="learned, no prefix"),
    pytest.param({"position": "learned"}, [26, 3], 2, 20, id="learned, up to the context and past it"),
    pytest.param({"position": "learned", "latents": 3}, [32], 1, 8, id="learned, all of the context"),
]


@pytest.mark.parametrize(("changes", "lengths", "takes", "count"), EXACT)
def test_logits_equal_an_uncached_forward(changes: dict, lengths: list[int], takes: int, count: int) -> None:
    model = small_model(small_config(layers=3, **changes))
    check_exact(model, [primer(length) for length in lengths], takes, count)


@pytest.mark.parametrize(("lengths", "takes", "count"), [([9], 1, 36), ([1, 9], 3, 24)])
def test_logits_of_float16_weights_are_those_of_float32(lengths: list[int], takes: int, count: int) -> None:
    """The same numbers, which are read at half the size."""
    config = small_config(layers=3)
    halves = jax.tree.map(lambda x: np.asarray(x, np.float16), to_params(small_model(config)))
    model = from_params(config, jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), halves))
    kept = from_params(config, halves, unrolled=True)
    assert kept.head[...].dtype == jnp.float16
    check_exact(model, [primer(length) for length in lengths], takes, count, kept=kept)


@pytest.mark.parametrize(
    ("ring", "changes", "count"),
    [
        pytest.param(4, {}, 44, id="a ring that doubles up to the context, and wraps"),
        pytest.param(4, {"latents": 24}, 48, id="more room than the first ring has slots"),
    ],
)
def test_logits_survive_the_rings_growth(
    ring: int, changes: dict, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "RING", ring)
    check_exact(small_model(small_config(layers=3, **changes)), [primer(1)], 1, count)


def test_logits_survive_a_refill_that_is_ahead_of_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """One token a chunk, so that pieces are computed between them, the ring grown and wrapped meanwhile."""
    monkeypatch.setattr(generation, "RING", 4)
    between: list[int] = []
    refill = generation._Run._refill

    def counted(run: Any) -> None:
        run.ahead.wait()
        before = run.ready
        refill(run)
        between.append((run.ready - before) * (run.room > 0))

    monkeypatch.setattr(generation._Run, "_refill", counted)
    model = small_model(small_config(layers=3, latents=16))
    check_exact(model, [primer(1), primer(5), primer(9)], 2, 56, chunk=1)
    assert sum(between) > 3 * refilled(model.config)


def test_tokens_do_not_wait_for_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the refill's program is compiled its pieces are put off, to where they are needed, and are the same."""
    model = small_model(small_config(latents=16, width=48))
    ready, release = threading.Event(), threading.Event()
    refill = generation._refill

    class Slow:
        def __call__(self, *given: Any) -> Any:
            assert release.is_set()
            return refill(*given)

        def lower(self, *given: Any) -> Any:
            ready.set()
            release.wait(60)
            return refill.lower(*given)

    monkeypatch.setattr(generation, "_refill", Slow())
    chunks = generate(model, CODEC, [primer(9)], chunk=4)
    before = [next(chunks).tokens for _ in range(2)]  # as many as there is room for
    assert ready.wait(60)
    release.set()
    tokens = np.concatenate([*before, *(next(chunks).tokens for _ in range(4))], axis=1)
    monkeypatch.setattr(generation, "_refill", refill)
    np.testing.assert_array_equal(tokens, run(model, [primer(9)], tokens.shape[1]).tokens)


def test_nothing_is_compiled_while_threads_wait_to_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """They do so busily, and take a core from the compiler."""
    inside, compiled = [False], []

    @contextmanager
    def helped() -> Iterator[None]:
        inside[0] = True
        yield
        inside[0] = False

    def heard_of(event: str, duration_secs: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(inside[0] and threading.current_thread() is threading.main_thread())

    monkeypatch.setattr(generation, "helped", helped)
    jax.monitoring.register_event_duration_secs_listener(heard_of)
    try:
        run(small_model(small_config(width=40)), [primer(9)], 12)
    finally:
        jax.monitoring.unregister_event_duration_listener(heard_of)
    assert compiled and not any(compiled)


@pytest.fixture(scope="module")
def model() -> PerceiverAR:
    return small_model(small_config())


def run(model: PerceiverAR, primers: list[np.ndarray], count: int = 12, **options: Any) -> Chunk:
    """`count` new tokens of each row."""
    got = collect(generate(model, options.pop("codec", CODEC), primers, **options), count)
    return Chunk(got.tokens[:, :count], got.logits[:, :count])


def test_chunk_size_changes_nothing(model: PerceiverAR) -> None:
    one, many = (run(model, [primer(9)], takes=2, chunk=chunk) for chunk in (1, 32))
    np.testing.assert_array_equal(one.tokens, many.tokens)
    np.testing.assert_allclose(one.logits, many.logits, atol=1e-5)


def test_a_chunk_ends_where_the_latents_are_full(model: PerceiverAR) -> None:
    sizes = [part.tokens.shape[1] for part in islice(generate(model, CODEC, [primer(9)], chunk=3), 4)]
    assert sizes == [3, 1, 3, 1]


def test_the_seed_alone_decides(model: PerceiverAR) -> None:
    first = run(model, [primer(9)], takes=2, seed=5)
    np.testing.assert_array_equal(first.tokens, run(model, [primer(9)], takes=2, seed=5).tokens)
    assert (first.tokens != run(model, [primer(9)], takes=2, seed=6).tokens).any()
    assert (first.tokens[0] != first.tokens[1]).any()


@pytest.mark.parametrize("cache_dtype", [None, "float16"])
def test_takes_equal_separate_primers_and_fewer_takes(cache_dtype: CacheDType) -> None:
    """Rows of the same number have the same keys: two takes are two primers, and one take is the first."""
    model = small_model(small_config(cache_dtype=cache_dtype))
    takes = run(model, [primer(9)], takes=2)
    copies, alone = run(model, [primer(9)] * 2), run(model, [primer(9)])
    np.testing.assert_array_equal(takes.tokens, copies.tokens)
    np.testing.assert_allclose(takes.logits, copies.logits, atol=1e-5)
    np.testing.assert_array_equal(takes.tokens[:1], alone.tokens)


class Watched:
    """A program whose calls are told, with what they give."""

    def __init__(self, program: Any, tell: Callable[..., None]) -> None:
        self.lower, self._program, self._tell = program.lower, program, tell

    def __call__(self, *given: Any) -> Any:
        made = self._program(*given)
        self._tell(given, made)
        return made


def test_takes_share_one_prefill(model: PerceiverAR, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[int, int]] = []

    def counted(given: tuple, made: tuple) -> None:
        rows.append((len(given[1]), made[1].prefix.keys.shape[0] // model.config.cross_heads))

    monkeypatch.setattr(generation, "_prefill", Watched(generation._prefill, counted))
    assert run(model, [primer(9), primer(5)], 16, takes=3).tokens.shape == (6, 16)
    assert rows == [(2, 2)]


def test_a_longer_primer_is_heard_from_its_end(model: PerceiverAR) -> None:
    long, limit = primer(60), primer_limit(model.config)
    whole = run(model, [long], sampling=Sampling(temperature=0.0))
    np.testing.assert_array_equal(
        whole.logits, run(model, [long[-limit:]], sampling=Sampling(temperature=0.0)).logits
    )


def test_absolute_positions_keep_a_primer_that_fits_the_context() -> None:
    rotary, absolute = small_config(), small_config(position="learned")
    limit = primer_limit(rotary)
    assert limit < 32 == rotary.context
    for config, length, kept in ((rotary, 32, limit), (absolute, 32, 32), (absolute, 33, limit)):
        np.testing.assert_array_equal(heard(config, primer(length)), primer(length)[-kept:])


def test_greedy_tokens_are_the_likeliest_legal_ones(model: PerceiverAR) -> None:
    got = run(model, [primer(9)], sampling=Sampling(temperature=0.0))
    best = np.where(CODEC.legal, got.logits, -np.inf).argmax(axis=-1)
    np.testing.assert_array_equal(got.tokens, best)


def test_legal_tokens_follow_their_period(model: PerceiverAR) -> None:
    """Period 3; specials take no step, so that the phase counts data tokens, cut primers included."""
    data = np.arange(VOCAB) >= FIRST_DATA
    table = np.stack([data & (np.arange(VOCAB) % 3 == phase) for phase in range(3)])
    primers = [np.concatenate([[SOS], primer(4)]).astype(np.int32), primer(60)]
    got = run(model, primers, 16, codec=ToyCodec(legal=table), takes=2, sampling=Sampling(temperature=5.0))
    for row, start in zip(got.tokens, [4, 4, 60, 60], strict=True):
        assert (row % 3).tolist() == [(start + step) % 3 for step in range(16)]


@pytest.mark.parametrize("chunk", [1, 5, 32])
def test_no_more_rests_follow_one_another_than_are_asked_for(model: PerceiverAR, chunk: int) -> None:
    """Those that a primer ends with count too, and a chunk's border changes nothing."""
    rests = range(FIRST_DATA, VOCAB - 1)
    sampling = Sampling(temperature=5.0, rest=(rests.start, rests.stop), rests=3)
    primers = [np.array([SOS, VOCAB - 1, *rests[:2]], np.int32), np.array([SOS, *[rests[0]] * 7], np.int32)]
    got = run(model, primers, 40, takes=2, sampling=sampling, chunk=chunk).tokens
    same = run(model, primers, 40, takes=2, sampling=sampling, chunk=40).tokens
    np.testing.assert_array_equal(got, same)
    for row, before in zip(got.tolist(), [2, 2, 7, 7], strict=True):
        for token in row:
            before = before + 1 if token in rests else 0
            assert before <= 3 or token not in rests
        assert before <= 3 and len(set(row)) > 2


def longest(tokens: list[int], kinds: int) -> int:
    """Most of the tokens in a row that are of at most `kinds` kinds."""
    spans = ((begin, end) for begin in range(len(tokens)) for end in range(begin + 1, len(tokens) + 1))
    return max(end - begin for begin, end in spans if len(set(tokens[begin:end])) <= kinds)


@pytest.mark.parametrize("chunk", [1, 5, 32])
def test_no_longer_row_of_few_kinds_than_is_asked_for(model: PerceiverAR, chunk: int) -> None:
    """What a primer ends with counts too, what comes between does not, and a chunk's border changes nothing."""
    events, limits = range(FIRST_DATA, VOCAB - 2), ((1, 2), (2, 5), (3, 9))
    free = Sampling(temperature=0.05, event=(events.start, events.stop))
    bound = replace(free, alike=limits)
    primers = [np.array([SOS, 5, VOCAB - 1, 5], np.int32), np.array([SOS, *[4, 7] * 3], np.int32)]
    got = run(model, primers, 40, takes=2, sampling=bound, chunk=chunk).tokens
    np.testing.assert_array_equal(got, run(model, primers, 40, takes=2, sampling=bound, chunk=40).tokens)
    loose = run(model, primers, 40, takes=2, sampling=free).tokens

    def rows(tokens: np.ndarray, kinds: int, primed: int) -> list[int]:
        whole = [
            [*primers[row // 2][len(primers[row // 2]) - primed :], *new] for row, new in enumerate(tokens)
        ]
        return [longest([token for token in row if token in events], kinds) for row in whole]

    for kinds, most in limits:
        assert max(rows(got, kinds, 0)) <= most
        assert max(rows(got[:2], kinds, 3)) <= most
        assert max(rows(loose, kinds, 0)) > most
    assert not {4, 7} & set(got[2:, 0].tolist())


def test_closing_the_generator_stops_it(model: PerceiverAR, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(generation, "_steps", Watched(generation._steps, lambda *_: calls.append(1)))
    chunks = generate(model, CODEC, [primer(9)])
    next(chunks)
    chunks.close()
    assert list(chunks) == []
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("primers", "options", "message"),
    [
        ([], {}, "at least one primer"),
        ([primer(3)], {"takes": 0}, "at least one primer, one take"),
        ([primer(3)], {"chunk": 0}, "one token a chunk"),
        ([primer(3), primer(0)], {}, "at least one token"),
        ([np.array([3, VOCAB])], {}, "between 0 and 23"),
        ([np.array([3, -1])], {}, "between 0 and 23"),
    ],
)
def test_what_cannot_be_continued_is_refused(
    model: PerceiverAR, primers: list[np.ndarray], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        next(generate(model, CODEC, primers, **options))


def test_a_model_with_one_latent_is_refused() -> None:
    with pytest.raises(ValueError, match="needs two or more"):
        next(generate(small_model(small_config(latents=1)), CODEC, [primer(3)]))


def test_buckets_grow_by_halves_of_a_doubling() -> None:
    assert [bucket(count, 64, 4096) for count in (1, 64, 65, 97, 129, 193, 5000)] == [
        64,
        64,
        96,
        128,
        192,
        256,
        4096,
    ]
    for smallest in range(1, 9):
        sizes = [bucket(count, smallest, 50) for count in range(1, 51)]
        assert sizes == sorted(sizes)
        assert all(size >= count for count, size in enumerate(sizes, 1))
        assert len(set(sizes)) <= 14
