"""The longest run of notes that a continuation shares with the training set is exact."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.originality import intervals, longest_runs, same_notes, struck
from benchmarks.takes import Cut
from perceiver_ar.codecs.music import MusicCodec
from perceiver_ar.config import EOS, SOS

CODEC = MusicCodec()

LINE = st.lists(st.integers(0, 2), max_size=12)


@given(st.lists(LINE, min_size=1, max_size=4), st.lists(LINE, min_size=1, max_size=4))
def test_longest_runs_are_those_of_a_search_by_hand(corpus: list[list[int]], asked: list[list[int]]) -> None:
    def by_hand(line: list[int]) -> int:
        runs = [line[i:j] for i in range(len(line)) for j in range(i + 1, len(line) + 1)]
        within = (
            len(run)
            for run in runs
            if any(run == text[at : at + len(run)] for text in corpus for at in range(len(text)))
        )
        return max(within, default=0)

    found = longest_runs([np.array(line, int) for line in corpus], [np.array(line, int) for line in asked])
    assert found.tolist() == [by_hand(line) for line in asked]


def test_notes_come_in_the_order_of_onset_and_then_of_pitch() -> None:
    on, off, shift = CODEC.note_on, CODEC.note_off, CODEC.time_shift
    tokens = np.array([SOS, on + 67, on + 60, shift + 9, off + 67, on + 50, off + 60, EOS], np.uint16)
    assert struck(CODEC, tokens).tolist() == [60, 67, 50]
    assert np.array_equal(intervals(np.array([60, 67, 50])), intervals(np.array([55, 62, 45])))


def test_as_many_of_the_pianists_notes_are_looked_for() -> None:
    events = [(CODEC.note_on + pitch, CODEC.time_shift, CODEC.note_off + pitch) for pitch in range(20)]
    cut = Cut(np.array([SOS, *np.ravel(events)], np.int32), 4, 31)
    assert same_notes(CODEC, cut, 4).tolist() == [10, 11, 12, 13]
    assert len(same_notes(CODEC, cut, 15)) == 15 and len(same_notes(CODEC, cut, 99)) == 20
