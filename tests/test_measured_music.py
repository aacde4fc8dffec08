"""What is measured of a model's music: on notes made by hand, and from end to end on a small model."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import examples, long_context, playing
from benchmarks.playing import (
    FEATURES,
    STUCK,
    features,
    heard,
    longest_of,
    repetition,
    shared_area,
    shared_histogram,
    silence,
    silent,
    stuck,
)
from benchmarks.takes import continued, cuts, named, played, setting
from perceiver_ar.checkpoint import load
from perceiver_ar.cli import main as command_line
from perceiver_ar.codecs.midi import read_midi
from perceiver_ar.codecs.music import MusicCodec, Note
from perceiver_ar.config import EOS, SOS
from perceiver_ar.continuation import Request
from training.data.domain import Pieces
from training.data.music import Music
from training.evaluate import windows

CODEC = MusicCodec()


def steady(gap: float, count: int, pitches: tuple[int, ...] = (60,)) -> list[Note]:
    """Notes a `gap` apart, each half as long, the pitches in turn."""
    return [
        Note(pitches[number % len(pitches)], 64, number * gap, (number + 0.5) * gap)
        for number in range(count)
    ]


def piece_of(steps: list[int]) -> np.ndarray:
    """A note-on, a shift by so many steps and the note-off for each number, between SOS and EOS."""
    events = [
        (CODEC.note_on + 60 + number % 7, CODEC.time_shift + step - 1, CODEC.note_off + 60 + number % 7)
        for number, step in enumerate(steps)
    ]
    return np.array([SOS, *np.ravel(events), EOS], np.uint16)


def pieces_of(*tokens: np.ndarray) -> Pieces:
    return Pieces(np.concatenate(tokens), np.concatenate([[0], np.cumsum([len(one) for one in tokens])]))


def test_playing_is_measured_in_plain_numbers() -> None:
    scale = [Note(60 + pitch, 64, pitch * 0.5, pitch * 0.5 + 0.25) for pitch in range(12)]
    found = dict(zip(FEATURES, features(scale, 6.0), strict=True))
    assert found["notes a second"] == 2 and found["notes at once"] == 0.5
    assert np.isclose(found["pitch-class entropy"], np.log(12))
    assert (found["velocity spread"], found["onset gap, median"], found["longest repetition"]) == (0, 0.5, 4)
    assert found["pitch range"] == 11
    nothing = dict(zip(FEATURES, features([], 6.0), strict=True))
    assert nothing["longest silence"] == nothing["onset gap, median"] == 6 and nothing["notes a second"] == 0


def test_silence_and_repetition() -> None:
    held = np.array([0.0, 1.0, 5.0]), np.array([4.0, 1.5, 6.0])  # the first note sounds over the second
    assert silence(*held, 6.0) == 1.0
    assert silence(*held, 9.0) == 3.0
    assert repetition(np.array([1, 2, 3, 1, 2, 3, 1, 2, 9])) == 8
    assert repetition(np.array([5, 5, 5, 1])) == 3


def test_shared_area_is_one_for_the_same_and_none_for_the_distant() -> None:
    sample = np.random.default_rng(0).normal(size=40)
    assert shared_area(sample, sample) == pytest.approx(1)
    assert shared_area(sample, sample + 100) < 0.01
    assert 0.2 < shared_area(sample, sample + 1) < 0.9
    assert shared_area(np.zeros(5), np.zeros(5)) == pytest.approx(1)


def test_gaps_are_compared_over_all_onsets() -> None:
    even, swung = np.full(100, 0.2), np.tile([0.1, 0.3], 50)
    assert shared_histogram(even, even) == pytest.approx(1)
    assert shared_histogram(even, swung) == 0
    assert shared_histogram(np.concatenate([even, swung]), swung) == pytest.approx(0.5)
    assert shared_histogram(even, np.array([])) == 0
    chord = [Note(60, 64, 0.0, 1.0), Note(64, 64, 0.0, 1.0), Note(67, 64, 2.0, 3.0)]
    assert heard([chord, chord], 6.0).gaps.tolist() == [2.0, 2.0]


def test_silence_is_a_collapse() -> None:
    assert not silent(steady(0.5, 120), 60.0)
    assert silent(steady(0.5, 90), 60.0)  # it stops, or time does
    assert silent([], 60.0)
    held = [*steady(0.5, 60), Note(48, 64, 30.0, 60.0)]
    assert silent(held, 60.0), "one chord that never ends"
    assert not silent([*steady(0.5, 80), Note(48, 64, 40.0, 60.0)], 60.0), "a last chord may sound for 20 s"
    counted = heard([steady(0.5, 120), steady(0.5, 112), steady(0.5, 90)], 60.0)
    assert (counted.silences, counted.silent, counted.stuck) == (2, 1, 3)


def test_a_few_pitches_for_too_long_are_a_collapse() -> None:
    rng = np.random.default_rng(0)
    music = rng.integers(70, 110, 1000).tolist()
    assert not stuck(music) and not stuck([])
    for few, most in STUCK.items():
        row = list(range(60, 60 + few)) * (most + 1)
        assert not stuck(music + row[:most] + music)
        assert stuck(music + row[: most + 1] + music)
    assert longest_of([1, 1, 2, 1, 3, 3, 3, 2, 1], 1) == 3
    assert longest_of([1, 1, 2, 1, 3, 3, 3, 2, 1], 2) == 4
    assert longest_of([1, 1, 2, 1, 3, 3, 3, 2, 1], 3) == 9


def test_cuts_leave_enough_on_both_sides() -> None:
    pieces = pieces_of(*(piece_of([50] * count) for count in (40, 8, 60, 25, 30)))
    found = cuts(CODEC, pieces, 3, 20, 5.0)
    assert [(len(cut.tokens) - 1) // 3 for cut in found] == [40, 60, 30]
    for cut in found:
        assert np.array_equal(np.concatenate([cut.primer, cut.rest]), cut.tokens) and cut.at >= 20
        assert CODEC.elapsed(cut.rest)[-1] >= 500
        assert 500 <= CODEC.elapsed(cut.tokens[cut.before : cut.at])[-1] <= 550
        assert len(played(CODEC, cut.primer, cut.rest, 5.0)) >= 9
    with pytest.raises(ValueError, match="only 4 pieces"):
        cuts(CODEC, pieces, 5, 20, 5.0)


def test_takes_that_are_made_together_are_cut_at_their_length(small_model: Path) -> None:
    model = load(small_model)
    primer = np.array([SOS, 63, 300, 191], np.int32)
    found = continued(model, primer, setting("1,1,0"), 2.0, seed=3, takes=2)
    assert len(found) == 2 and found[0].notes != found[1].notes
    for take in found:
        assert take.notes and max(note.end for note in take.notes) <= 2.0
        assert 0.5 * np.log(CODEC.vocab_size) < take.nll < 2 * np.log(CODEC.vocab_size)
    assert named(setting("0.95,1,0.02")) == "0.95,1,0.02"


def test_an_opening_is_repeated_and_scored_at_the_same_tokens() -> None:
    rng = np.random.default_rng(1)
    pieces = pieces_of(*(piece_of(rng.integers(1, 100, 40).tolist()) for _ in range(4)))
    made = long_context.repeated(CODEC, pieces, 31, 4, stride=8)
    assert len(made.once) == len(made.twice) == len(made.elsewhere) == 4
    for number in range(4):
        opening = made.once[number][1:]
        assert np.array_equal(opening, pieces[number][1 : len(opening) + 1]) and 28 < len(opening) <= 31
        assert CODEC.time_shift <= opening[-1] < CODEC.velocity
        assert np.array_equal(made.twice[number], [SOS, *opening, *opening])
        before, again = np.split(made.elsewhere[number][1:], 2)
        assert np.array_equal(again, opening) and not np.array_equal(before, opening)
    assert made.first == windows(Music(), made.once, 8)
    for early, late in zip(made.first, made.second, strict=True):
        once, twice = (
            pieces[one.number][one.end - one.scored : one.end]
            for pieces, one in ((made.once, early), (made.twice, late))
        )
        assert np.array_equal(once, twice)
    with pytest.raises(ValueError, match="shorter openings"):
        long_context.repeated(CODEC, pieces, 200, 4, stride=8)


def test_windows_of_all_contexts_are_the_same_and_long_enough() -> None:
    pieces = pieces_of(*(piece_of([10] * count) for count in (10, 40, 60)))
    chosen = long_context.same_windows(pieces, 16, 100, 5)
    assert len(chosen) == 5 and {one.number for one in chosen} == {1, 2}
    assert all(one.end > 100 and one.scored == 16 for one in chosen)
    with pytest.raises(ValueError, match="shorter contexts"):
        long_context.same_windows(pieces, 16, 1000, 5)
    assert long_context.difference(np.array([2.0, 4.0]), np.array([1.0, 1.0])) == "+2.0000 ± 1.0000"


TWO_TAKES = ["--seconds", "3", "--primer", "40", "--pieces", "2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "more", "rows"),
    [
        (playing, [*TWO_TAKES, "--settings", "1,1,0", "1,0.9,0"], 4),
        (playing, [*TWO_TAKES, "--settings", "1,1,0", "--takes", "2", "--originality"], 3 + 4),
        (
            long_context,
            [
                "--contexts",
                "64",
                "128",
                "--windows",
                "4",
                "--stride",
                "16",
                "--openings",
                "48",
                "--pieces",
                "2",
            ],
            3,
        ),
    ],
    ids=["playing", "originality", "long_context"],
)
def test_a_small_model_is_measured(
    module, more: list[str], rows: int, archive: Path, small_model: Path, monkeypatch, capsys
) -> None:
    options = ["--data", str(archive), "--model", str(small_model), *more]
    monkeypatch.setattr(sys, "argv", [module.__name__, *options])
    module.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    rules = sum(line.startswith("| ---") for line in lines)
    assert len(lines) == rows + 2 * rules
    assert all(line.count("|") > 4 for line in lines)


@pytest.mark.slow
def test_examples_are_what_the_command_line_makes(small_model: Path, tmp_path: Path) -> None:
    model = load(small_model)
    entries = examples.write(model, small_model, tmp_path / "made", 8, 1.0)
    index = json.loads((tmp_path / "made" / "index.json").read_text("utf-8"))
    assert index["examples"] == entries and len({entry["primer"] for entry in entries}) == 7
    weights = (small_model / "weights.safetensors").read_bytes()
    assert index["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert index["sampling"]["min_p"] == Request().min_p
    entry = entries[7]
    assert (entry["seed"], entry["file"]) == (8, "08-greensleeves.mid")
    out = tmp_path / entry["file"]
    words = entry["command"].replace(entry["file"], str(out)).split()[1:]
    words[words.index("--model") + 1] = str(small_model)
    root = Path(__file__).parents[1]
    words = [str(root / word) if word.startswith("assets/") else word for word in words]
    assert command_line(words) == 0
    assert out.read_bytes() == (tmp_path / "made" / entry["file"]).read_bytes()
    assert read_midi(out).seconds >= entry["begins"]
