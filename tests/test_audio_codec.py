"""Audio as residual-VQ codes: the codec, whose turn it is when tokens are drawn, and the data."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from archives import ARCHIVES, folder
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from small_models import small_config, small_model

from perceiver_ar.codecs.audio import AudioCodec
from perceiver_ar.config import EOS, FIRST_DATA, SOS
from perceiver_ar.generate import generate
from perceiver_ar.sampling import Sampling
from training.__main__ import main
from training.config import OptimConfig, Paths, Stage
from training.data.audio import Audio
from training.data.crops import training_batch
from training.data.domain import Pieces, domain_from_dict
from training.data.store import framed, read_pieces, save_pieces
from training.loop import train
from training.metrics import read_metrics
from training.presets import maestro_audio

SMALL = AudioCodec(codebooks=3, codes=8)
CODES = arrays.arrays(np.int16, st.tuples(st.integers(0, 9), st.just(3)), elements=st.integers(0, 7))


@given(CODES)
def test_codes_come_back(codes: np.ndarray) -> None:
    tokens = SMALL.encode(codes)
    assert tokens.shape == (codes.size,) and tokens.dtype == np.int32
    assert np.array_equal(SMALL.decode(tokens), codes)
    assert SMALL.legal[np.arange(len(tokens)) % 3, tokens].all()


@given(CODES, st.integers(0, 30), st.integers(0, 30))
def test_a_part_of_the_tokens_gives_its_whole_frames(codes: np.ndarray, begin: int, end: int) -> None:
    found = SMALL.decode(SMALL.encode(codes)[begin:end])
    assert np.array_equal(found, codes[-(-begin // 3) : end // 3])


@given(st.lists(st.integers(0, SMALL.vocab_size + 5), max_size=100))
def test_any_tokens_are_some_frames(tokens: list[int]) -> None:
    found = SMALL.decode(np.array(tokens))
    assert found.shape[1:] == (3,) and len(found) <= len(tokens) // 3
    assert np.array_equal(SMALL.decode(SMALL.encode(found)), found)


def test_every_codebook_has_its_own_tokens() -> None:
    assert SMALL.vocab_size == FIRST_DATA + 24 and SMALL.legal.shape == (3, 27)
    assert SMALL.legal.sum(axis=0).tolist() == [0] * FIRST_DATA + [1] * 24
    assert SMALL.legal.sum(axis=1).tolist() == [8, 8, 8]
    assert SMALL.encode([[0, 0, 0], [1, 2, 7]]).tolist() == [3, 11, 19, 4, 13, 26]
    assert SMALL.positions(4, 2).tolist() == [[4], [5]]


@pytest.mark.parametrize(("codebooks", "kbps"), [(24, 12), (36, 18), (44, 22)])
def test_the_papers_rates(codebooks: int, kbps: int) -> None:
    codec = AudioCodec(codebooks)
    assert codec.kbps == pytest.approx(kbps) and codec.vocab_size == FIRST_DATA + codebooks * 1024
    uniform = Audio(codebooks).figures(np.log(1024), 1, Pieces(np.zeros(0), np.zeros(1)))
    assert uniform["kbps"] == pytest.approx(kbps)
    assert uniform["nats_per_frame"] == pytest.approx(codebooks * np.log(1024))


def test_what_is_no_code_is_refused() -> None:
    for wrong in ([[0, 1, 8]], [[0, -1, 0]], [[0.5, 0, 0]]):
        with pytest.raises(ValueError, match="whole numbers between 0 and 7"):
            SMALL.encode(wrong)
    for shape in ((3,), (2, 4), (3, 2)):
        with pytest.raises(ValueError, match=r"\(frames, 3\)"):
            SMALL.encode(np.zeros(shape, int))
    for fields in ((0, 8, 50), (3, 1, 50), (3, 8, 0)):
        with pytest.raises(ValueError, match="audio needs"):
            AudioCodec(*fields)


def test_drawn_tokens_keep_the_turns_of_the_codebooks() -> None:
    """Behind a primer that ends within a frame, over several refills, however wild the draw."""
    model = small_model(small_config(vocab_size=SMALL.vocab_size))
    primer = np.concatenate([[SOS], SMALL.encode([[1, 2, 3], [4, 5, 6]])[:5]]).astype(np.int32)
    chunks = islice(generate(model, SMALL, [primer], takes=2, sampling=Sampling(temperature=5.0)), 6)
    drawn = np.concatenate([chunk.tokens for chunk in chunks], axis=1)
    assert drawn.shape[1] > 16
    turns = (5 + np.arange(drawn.shape[1])) % 3
    assert np.array_equal((drawn - FIRST_DATA) // SMALL.codes, np.broadcast_to(turns, drawn.shape))
    heard = SMALL.decode(np.concatenate([primer, drawn[0]]))
    assert len(heard) == (5 + drawn.shape[1]) // 3


def npy(codes: np.ndarray) -> bytes:
    np.save(file := io.BytesIO(), codes)
    return file.getvalue()


def recording(seed: int, frames: int = 6, codebooks: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 8, (frames, codebooks), np.int16)


@ARCHIVES
def test_recordings_of_an_archive(maker: Callable, tmp_path: Path) -> None:
    files = {f"train/{n}.npy": npy(recording(n)) for n in range(2)} | {"valid/2.npy": npy(recording(2))}
    source, domain = maker(tmp_path / "codes", files), Audio(2, 8)
    found = domain.load((source, source), "train", tmp_path / "store")
    assert len(found) == 4
    for number in range(4):
        assert found[number][0] == SOS and found[number][-1] == EOS
        assert np.array_equal(domain.codec.decode(found[number]), recording(number % 2)[:, :2])
    assert len(domain.load((source,), "validation", tmp_path / "store")) == 1
    assert json.loads(next((tmp_path / "store").glob("*train*.json")).read_text())["tokens"] == 2 * 14
    with pytest.raises(ValueError, match="'test' split"):
        domain.load((source,), "test", tmp_path / "store")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (npy(recording(0, codebooks=1)), "it has 1 codebooks, and this domain 2"),
        (npy(recording(0, codebooks=60)), "transpose it"),
        (npy(recording(0)[0]), r"\(frames, 2\)"),
        (npy(recording(0) + 5), "between 0 and 7"),
        (npy(recording(0))[:100], "cannot be used"),
        (b"RIFF", "cannot be used"),
    ],
)
def test_a_recording_that_does_not_fit_is_named(file: bytes, message: str, tmp_path: Path) -> None:
    source = folder(tmp_path / "codes", {"train/odd.npy": file})
    with pytest.raises(ValueError, match=message) as caught:
        Audio(2, 8).load((source,), "train", tmp_path / "store")
    assert "train/odd.npy" in str(caught.value)
    assert not list((tmp_path / "store").iterdir())


def test_more_tokens_than_two_bytes_hold(tmp_path: Path) -> None:
    """44 codebooks fit, which is all that the paper has; more are kept in four bytes."""
    for codebooks, dtype in ((44, np.uint16), (65, np.uint32)):
        codec = AudioCodec(codebooks)
        codes = [np.full((1, codebooks), code) for code in (0, 1023)]
        with (tmp_path / "pieces.npy").open("wb") as file:
            save_pieces(file, (framed(codec.encode(one), codec.vocab_size) for one in codes))
        found = read_pieces(tmp_path / "pieces.npy")
        assert found.tokens[:].dtype == dtype
        assert [codec.decode(found[n]).tolist() for n in range(2)] == [one.tolist() for one in codes]


def test_without_data_codes_are_made_up(capsys: pytest.CaptureFixture[str]) -> None:
    domain = Audio(4, 1024, frames=50)
    found, held_out = (domain.load((), split, Path()) for split in ("train", "validation"))
    assert "train split is made up" in capsys.readouterr().err
    assert len(held_out) == 64 and not np.array_equal(found[0], held_out[0])
    assert np.array_equal(found[7], domain.load((), "train", Path())[7])
    assert len(found[7]) == found.length(7) == 1 + 4 * 50
    codes = np.concatenate([domain.codec.decode(found[n]) for n in range(40)])
    for book in codes.T:
        assert len(np.unique(book)) == 8
        pairs = np.unique(np.stack([book[:-1], book[1:]]), axis=1, return_counts=True)[1]
        assert 0.85 < np.sort(pairs)[-8:].sum() / (len(book) - 1) < 0.95


def test_the_domain_of_a_model_is_that_of_its_codec() -> None:
    domain = Audio(3, 8, 75.0)
    assert domain_from_dict(json.loads(json.dumps(domain.to_dict()))) == domain
    assert Audio.of(domain.codec, 100) == Audio(3, 8, 75.0, frames=33)
    for wrong in ({"codebooks": 0}, {"codes": 1}, {"frames": 0}):
        with pytest.raises(ValueError, match=r"at least one frame|audio needs"):
            Audio(**wrong)


def test_a_crop_may_begin_within_a_frame() -> None:
    config = replace(maestro_audio.TINY, stages=(Stage(1.0, 64, 8),))
    batch = training_batch(config.domain.load((), "train", Path()), config, 0)
    first = batch.tokens[:, 0]
    assert len(np.unique((first[first >= FIRST_DATA] - FIRST_DATA) // 1024)) > 1


@pytest.mark.slow
def test_the_preset_trains_exports_and_evaluates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On made-up codes in a smaller shape: it learns the turns and the eight codes that there are."""
    domain = Audio(2, 16, frames=30)
    model = replace(
        maestro_audio.TINY.model,
        vocab_size=domain.codec.vocab_size,
        context=60,
        latents=30,
        width=32,
        layers=1,
    )
    config = replace(
        maestro_audio.TINY,
        domain=domain,
        model=model,
        stages=(Stage(1.0, 60, 16),),
        steps=60,
        optim=OptimConfig(rate=1e-2, warmup=5),
        evaluate_every=60,
    )
    train(config, Paths(tmp_path / "run"))
    assert read_metrics(tmp_path / "run")[-1]["validation_nll"] < np.log(16)
    exported = str(tmp_path / "model")
    assert main(["export", str(tmp_path / "run"), exported, "--licence", "ours"]) == 0
    capsys.readouterr()
    assert main(["evaluate", exported, "--json", "--dtype", "float32"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kbps"] < domain.codec.kbps and found["nats_per_frame"] == pytest.approx(2 * found["nll"])
