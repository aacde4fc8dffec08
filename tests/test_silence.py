"""That a model plays on where a piece has ended, and leaves what it has repeated often enough."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from perceiver_ar.checkpoint import load
from perceiver_ar.codecs.midi import read_midi
from perceiver_ar.codecs.music import MusicCodec
from perceiver_ar.continuation import MOST_ALIKE, MOST_RESTS, Request, continue_music, musical
from perceiver_ar.generate import generate
from perceiver_ar.sampling import Sampling

ROOT = Path(__file__).parents[1]


def test_what_rests_is_time_that_passes() -> None:
    codec = MusicCodec()
    first, behind = musical(codec, Sampling(top_p=0.5)).rest
    assert (first, behind) == (codec.time_shift, codec.time_shift + 100)
    assert musical(codec, Sampling(top_p=0.5)).top_p == 0.5 and MOST_RESTS == 3


def test_what_may_not_be_alike_for_long_are_the_notes() -> None:
    """A primer of one repeated note is followed by others too, though not by them alone."""
    model = load("piano-small")
    assert musical(model.music, Sampling()).event == (model.music.note_on, model.music.note_off)
    note = [
        model.music.note_on + 60,
        model.music.time_shift + 9,
        model.music.note_off + 60,
        model.music.time_shift,
    ]
    primer = np.array(note * 30, np.int32)
    chunks = generate(
        model.model, model.codec, [primer], takes=2, sampling=musical(model.music, Sampling(min_p=0.005))
    )
    new = np.concatenate([chunk.tokens for chunk in islice(chunks, 30)], axis=1)
    for row in new:
        struck = row[(row >= model.music.note_on) & (row < model.music.note_off)].tolist()
        assert len(struck) > 100 and struck[0] != note[0] and note[0] in struck
        for few, most in MOST_ALIKE:
            runs = (struck[at : at + most + 1] for at in range(len(struck) - most))
            assert all(len(set(run)) > few for run in runs), few


@pytest.mark.slow
@pytest.mark.parametrize("name", ["piano", "piano-small"])
def test_a_finished_piece_is_followed_by_music(name: str) -> None:
    """The minuet ends as pieces do, after which the piano fell silent for all of the minute that seed 4 was to give."""
    model = load(name)
    primer = read_midi(ROOT / "assets" / "primers" / "petzold-minuet.mid").primer(model.music)
    *_, last = continue_music(model, primer.tokens, Request(seconds=20, takes=3, seed=4))
    for take in last.takes:
        onsets = np.sort([note.start for note in take.all(limit=20.0)])
        assert len(onsets) >= 10
        assert np.diff(onsets, prepend=0.0).max() < 10
