"""The music codec against note-seq's own, and what decoding may never do."""

from itertools import pairwise

import midi_builder as mb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiver_ar.codecs.music import MAX_SILENCE_SECONDS, MusicCodec, Note, NoteStream, import_note_seq
from perceiver_ar.config import FIRST_DATA

CODEC = MusicCodec()


def sequence(*notes: Note, drums: tuple[Note, ...] = (), instrument: int = 0):
    import_note_seq()
    from note_seq import NoteSequence

    result = NoteSequence()
    for note in notes + drums:
        result.notes.add(
            pitch=note.pitch,
            velocity=note.velocity,
            start_time=note.start,
            end_time=note.end,
            instrument=instrument,
            is_drum=note in drums,
        )
    result.total_time = max(note.end for note in notes + drums)
    return result


def events(tokens: np.ndarray) -> list[str]:
    """Tokens in words: on60, off60, +50 (steps), v20 (bin)."""
    starts = (CODEC.velocity, "v"), (CODEC.time_shift, "+"), (CODEC.note_off, "off"), (CODEC.note_on, "on")
    words = []
    for token in tokens:
        first, word = next((first, word) for first, word in starts if token >= first)
        words.append(f"{word}{token - first + (word in '+v')}")
    return words


def note_seq_tokens(source) -> np.ndarray:
    """note-seq's tokens of a NoteSequence by its own means alone."""
    from note_seq import performance_lib, sequences_lib
    from note_seq.performance_encoder_decoder import PerformanceOneHotEncoding

    sustained = sequences_lib.apply_sustain_control_changes(source)
    quantized = sequences_lib.quantize_note_sequence_absolute(sustained, 100)
    performance = performance_lib.Performance(quantized, num_velocity_bins=32)
    one_hot = PerformanceOneHotEncoding(num_velocity_bins=32)
    return np.array([FIRST_DATA + one_hot.encode_event(event) for event in performance])


def silences_shortened(tokens: np.ndarray) -> np.ndarray:
    """Every run of time shifts shortened to the longest the codec writes."""
    out: list[int] = []
    run = 0
    for token in [*tokens, 0]:
        if CODEC.time_shift <= token < CODEC.velocity:
            run += token - CODEC.time_shift + 1
            continue
        run = min(run, MAX_SILENCE_SECONDS * 100)
        while run:
            out.append(CODEC.time_shift + min(run, 100) - 1)
            run -= min(run, 100)
        out.append(token)
    return np.array(out[:-1])


@pytest.mark.parametrize("archive", ["maestro-v3.0.0-midi.zip", "asap-extra.zip"])
def test_tokens_equal_note_seqs_own_on_real_performances(archive, tmp_path):
    import_note_seq()
    from note_seq import midi_io

    for name, data in mb.performances(archive, 6):
        path = tmp_path / "performance.midi"
        path.write_bytes(data)
        own = silences_shortened(note_seq_tokens(midi_io.midi_to_note_sequence(data)))
        np.testing.assert_array_equal(CODEC.encode(path), own, err_msg=name)


def test_vocabulary_is_that_of_note_seq():
    import_note_seq()
    from note_seq.performance_encoder_decoder import PerformanceOneHotEncoding

    assert CODEC.vocab_size == FIRST_DATA + PerformanceOneHotEncoding(num_velocity_bins=32).num_classes == 391
    assert CODEC.legal.shape == (1, 391)
    assert not CODEC.legal[:, :FIRST_DATA].any() and CODEC.legal[:, FIRST_DATA:].all()
    assert CODEC.positions(5, 3).tolist() == [[5], [6], [7]]


def test_codec_json_round_trip():
    fields = CODEC.to_dict()
    assert fields == {"name": "music", "steps_per_second": 100, "max_shift_steps": 100, "velocity_bins": 32}
    assert MusicCodec(**{key: value for key, value in fields.items() if key != "name"}) == CODEC


def test_importing_note_seq_leaves_the_tick_cap_of_pretty_midi(tmp_path):
    import pretty_midi.pretty_midi

    path = tmp_path / "a.mid"
    path.write_bytes(mb.midi(mb.track(*mb.melody())))
    pretty_midi.pretty_midi.MAX_TICK = 1e10
    CODEC.encode(path)
    assert pretty_midi.pretty_midi.MAX_TICK == 1e7


def test_drums_are_left_out():
    tokens = CODEC.encode(sequence(Note(60, 80, 0.0, 0.5), drums=(Note(36, 100, 0.2, 0.9),)))
    assert events(tokens) == ["v20", "on60", "+50", "off60"]


def test_a_key_struck_again_is_released_before():
    tokens = CODEC.encode(sequence(Note(60, 80, 0.0, 0.7), Note(60, 80, 0.5, 1.0)))
    assert events(tokens) == ["v20", "on60", "+50", "off60", "on60", "+50", "off60"]


def test_a_key_stays_down_as_long_as_one_instrument_holds_it():
    tokens = CODEC.encode(sequence(Note(60, 80, 0.0, 1.0), Note(60, 80, 0.5, 0.7)))
    assert events(tokens) == ["v20", "on60", "+50", "off60", "on60", "+50", "off60"]


def test_unison_of_two_instruments_is_one_note():
    tokens = CODEC.encode(sequence(Note(60, 40, 0.0, 1.0), Note(60, 80, 0.0, 0.7)))
    assert events(tokens) == ["v20", "on60", "+100", "off60"]


def test_the_pedal_sustains_and_is_not_left_in():
    source = sequence(Note(60, 80, 0.0, 0.5), Note(62, 80, 2.0, 2.5))
    source.control_changes.add(time=0.1, control_number=64, control_value=127)
    source.control_changes.add(time=1.0, control_number=64, control_value=0)
    assert events(CODEC.encode(source))[:4] == ["v20", "on60", "+100", "off60"]
    assert not CODEC.quantize(source).control_changes


def test_long_silences_are_shortened():
    hour = 3600.0
    tokens = CODEC.encode(sequence(Note(60, 80, hour, hour + 0.5), Note(62, 80, 3 * hour, 3 * hour + 0.5)))
    silence = ["+100"] * MAX_SILENCE_SECONDS
    assert events(tokens) == [*silence, "v20", "on60", "+50", "off60", *silence, "on62", "+50", "off62"]


@pytest.mark.parametrize("end", [0.7, 1.0])
def test_end_cuts_sounding_notes_and_leads_up_to_it(end):
    source = sequence(Note(60, 80, 0.0, 0.5), Note(64, 80, 0.0, 2.0), Note(67, 80, 1.0, 2.0))
    words = events(CODEC.encode(source, end))
    assert words == ["v20", "on60", "on64", "+50", "off60", f"+{round((end - 0.5) * 100)}", "off64"]


def test_end_after_the_last_note_becomes_a_time_shift():
    assert events(CODEC.encode(sequence(Note(60, 80, 0.0, 0.5)), 1.75))[-2:] == ["+100", "+25"]


@st.composite
def clean_notes(draw) -> list[Note]:
    """Notes on the grid of the codec that a piano could play, less than the longest silence apart."""
    notes, start, free = [], 0, {}
    for _ in range(draw(st.integers(1, 30))):
        start += draw(st.integers(0, 300))
        pitch = draw(st.integers(0, 127))
        on = max(start, free.get(pitch, 0))
        off = on + draw(st.integers(1, 500))
        free[pitch] = off
        notes.append(Note(pitch, 1 + 4 * draw(st.integers(0, 31)), on / 100, off / 100))
    return sorted(notes, key=lambda note: (note.start, note.pitch))


@settings(deadline=None, max_examples=60)
@given(clean_notes())
def test_decode_inverts_encode(notes):
    assert CODEC.decode(CODEC.encode(sequence(*notes))) == notes


tokens_of_any_kind = st.lists(st.integers(0, CODEC.vocab_size + 5), max_size=200)


@settings(deadline=None)
@given(tokens_of_any_kind, st.data())
def test_any_tokens_decode_to_playable_notes_in_any_chunks(tokens, data):
    stream = NoteStream(CODEC)
    rest = tokens
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        stream.feed(rest[:size])
        rest = rest[size:]
    notes = stream.all()
    assert notes == CODEC.decode(np.array(tokens, np.int32))
    assert notes == sorted(notes, key=lambda note: (note.start, note.pitch))
    assert all(0 <= note.pitch < 128 and 1 <= note.velocity < 128 for note in notes)
    assert all(0 <= note.start < note.end <= stream.time for note in notes)
    for pitch in range(128):
        line = [note for note in notes if note.pitch == pitch]
        assert all(a.end <= b.start for a, b in pairwise(line))


def on(pitch: int) -> int:
    return CODEC.note_on + pitch


def off(pitch: int) -> int:
    return CODEC.note_off + pitch


def shift(steps: int) -> int:
    return CODEC.time_shift + steps - 1


def test_stream_shows_what_is_finished_and_what_sounds():
    stream = NoteStream(CODEC)
    stream.feed([CODEC.velocity + 20, on(60), on(64), shift(50), off(60), shift(100)])
    assert stream.time == 1.5
    assert stream.notes == [Note(60, 81, 0.0, 0.5)]
    assert stream.open == {64: (0.0, 81)}
    assert stream.all() == [Note(60, 81, 0.0, 0.5), Note(64, 81, 0.0, 1.5)]
    assert stream.all(limit=0.4) == [Note(60, 81, 0.0, 0.4), Note(64, 81, 0.0, 0.4)]
    assert stream.all(limit=0.0) == []


def test_note_off_without_note_on_is_passed_over():
    assert CODEC.decode(np.array([off(60), shift(10), off(61)])) == []


def test_note_without_length_is_dropped():
    assert CODEC.decode(np.array([on(60), off(60), shift(10)])) == []


def test_a_note_that_is_held_for_too_long_is_let_go():
    held = [on(60), shift(100), on(64), *[shift(100)] * 3]
    stream = NoteStream(CODEC, longest=2.0)
    stream.feed(held)
    assert stream.notes == [Note(60, 64, 0.0, 2.0), Note(64, 64, 1.0, 3.0)] and not stream.open
    stream.feed([off(60), on(60), shift(50), off(60)])
    assert stream.notes[2:] == [Note(60, 64, 4.0, 4.5)]
    stream = NoteStream(CODEC)
    stream.feed(held)
    assert set(stream.open) == {60, 64}


def test_stream_takes_over_the_velocity_of_its_primer():
    stream = NoteStream(CODEC, np.array([CODEC.velocity + 3, on(60), CODEC.velocity + 20, shift(10)]))
    stream.feed([on(62), shift(10)])
    assert stream.all() == [Note(62, 81, 0.0, 0.1)]


@pytest.mark.parametrize("bins", [1, 8, 10, 20, 32, 64, 100, 127])
def test_velocities_come_back_as_note_seq_has_them(bins: int) -> None:
    from note_seq.performance_lib import velocity_bin_to_velocity

    codec = MusicCodec(velocity_bins=bins)
    for number in range(bins):
        tokens = np.array([codec.velocity + number, codec.note_on + 60, codec.time_shift])
        assert codec.decode(tokens)[0].velocity == velocity_bin_to_velocity(number + 1, bins)


def test_without_bins_all_notes_are_equally_loud() -> None:
    codec = MusicCodec(velocity_bins=0)
    assert [note.velocity for note in codec.decode(np.array([codec.note_on, codec.vocab_size - 1]))] == [64]
