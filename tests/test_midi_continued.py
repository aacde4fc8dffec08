"""MIDI files continued: original intact, new track in time, earlier cuts clean, nothing left hanging."""

import io
from collections import Counter
from typing import Any

import midi_builder as mb
import mido
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from perceiver_ar.codecs.midi import (
    FADED_SECONDS,
    MidiError,
    continuation_bytes,
    read_midi,
    write_continuation,
)
from perceiver_ar.codecs.music import MusicCodec, Note

CODEC = MusicCodec()
SIMPLE = mb.midi(mb.track((0, mb.meta(0x03, b"Lead")), *mb.melody()))
NEW = [Note(60, 80, 0.0, 0.5), Note(64, 90, 0.25, 1.0)]


def mido_file(data: bytes) -> mido.MidiFile:
    return mido.MidiFile(file=io.BytesIO(data))


def absolute(track: mido.MidiTrack) -> list[tuple[int, Any]]:
    tick, out = 0, []
    for message in track:
        tick += message.time
        out.append((tick, message))
    return out


def left_sounding(data: bytes) -> Counter:
    """What a synthesizer still holds after the file: unmatched note-ons and pressed pedals."""
    messages = sorted(
        (item for track in mido_file(data).tracks for item in absolute(track)), key=lambda item: item[0]
    )
    held: Counter = Counter()
    for _, message in messages:
        if message.type == "control_change" and message.control in (64, 66, 69):
            held[message.channel, "pedal", message.control] = message.value
        elif message.type == "note_on" and message.velocity:
            held[message.channel, message.note] += 1
        elif message.type in ("note_on", "note_off"):
            held[message.channel, message.note] = max(0, held[message.channel, message.note] - 1)
    return +held


def new_track(data: bytes) -> list[tuple[int, Any]]:
    return [(tick, message) for tick, message in absolute(mido_file(data).tracks[-1])]


def test_the_new_track_is_a_piano_on_a_free_channel():
    file = read_midi(mb.midi(mb.track(*mb.melody()), mb.track((0, mb.control(7, 90, channel=1)))))
    track = new_track(continuation_bytes(file, NEW, 2.0))
    assert track[0][1].name == "Perceiver AR"
    assert {message.channel for _, message in track if not message.is_meta} == {2}
    assert [message.program for _, message in track if message.type == "program_change"] == [0]
    notes = [(tick, m.type, m.note, m.velocity) for tick, m in track if m.type.startswith("note")]
    assert notes == [
        (1920, "note_on", 60, 80),
        (2160, "note_on", 64, 90),
        (2400, "note_off", 60, 0),
        (2880, "note_off", 64, 0),
    ]


def test_with_fifteen_channels_set_up_one_without_notes_is_taken():
    setup = [(0, mb.control(7, 0, channel)) for channel in range(16)]
    file = read_midi(mb.midi(mb.track(*setup, *mb.melody())))
    assert not file.warnings
    track = new_track(continuation_bytes(file, NEW, 2.0))
    assert {message.channel for _, message in track if not message.is_meta} == {1}
    assert [m.value for _, m in track if m.is_cc(7)] == [100]


def test_what_the_file_holds_at_its_end_is_released_when_the_continuation_starts():
    held = mb.track(
        *mb.melody(),
        (0, mb.control(64, 127)),
        (0, mb.control(66, 127)),
        (0, mb.on(70)),
        (10, mb.on(71)),
        end=470,
    )
    data = mb.midi(held)
    assert left_sounding(data)
    file = read_midi(data)
    primer = file.primer(CODEC)
    assert primer.start == pytest.approx(2.5)
    result = continuation_bytes(file, NEW, primer.start)
    assert not left_sounding(result)
    assert [tick for tick, m in new_track(result) if not m.is_meta and m.channel == 0] == [2400] * 4


def test_a_track_that_goes_on_in_silence_delays_nothing():
    file = read_midi(mb.midi(mb.track((0, mb.control(64, 127)), *mb.melody(), end=9600)))
    primer = file.primer(CODEC)
    assert primer.start == pytest.approx(2.0)
    result = continuation_bytes(file, NEW, primer.start)
    assert not left_sounding(result)
    assert [tick for tick, m in new_track(result) if m.type == "note_on"] == [1920, 2160]


def test_an_earlier_cut_keeps_the_bytes_before_it_and_drops_the_tail():
    conductor = mb.track((0, mb.tempo(120)), (720, mb.tempo(90)), (720, mb.tempo(60)))
    running = mb.track(
        (0, mb.on(60)),
        (480, b"\x3e\x50"),
        (0, mb.control(64, 127)),
        (480, mb.on(64)),
        (960, b"\x3c\x00"),
        end=99,
    )
    short = mb.track(*mb.melody([72], 240, channel=3))
    file = read_midi(mb.midi(conductor, running, mb.chunk(b"XFIH", b"abc"), short))
    cut = float(file.tempo.seconds(960 + 120))
    primer = file.primer(CODEC, cut)
    result = continuation_bytes(file, NEW, primer.start, cut=primer.start)
    assert conductor[8:-12] in result and running[8:-8] in result and short in result
    assert mb.tempo(60) not in result
    assert not left_sounding(result.replace(mb.chunk(b"XFIH", b"abc"), b""))
    again = read_midi(result)
    np.testing.assert_array_equal(again.primer(CODEC, primer.start).tokens, primer.tokens)
    limits = [int(track.events.ticks[-1]) for track in again.tracks[:2]]
    assert limits[0] == limits[1] and abs(float(file.tempo.seconds(limits[0])) - cut) <= 0.005


@pytest.mark.parametrize("steps", [15, 102, 103, 104])
def test_half_a_step_before_the_cut_is_on_the_side_where_the_primer_has_it(steps):
    """Ticks of half a millisecond: some stand half a step before a cut, and 64-bit floats round them either way."""
    half = steps * 20 - 10
    struck = mb.track((0, mb.on(60)), (half - 1, mb.on(62)), (1, mb.on(64)), (1, mb.on(65)), (99, mb.off(60)))
    file = read_midi(mb.midi(struck, division=1000))
    primer = file.primer(CODEC, steps / 100)
    result = continuation_bytes(file, NEW, primer.start, cut=primer.start)
    np.testing.assert_array_equal(read_midi(result).primer(CODEC, primer.start).tokens, primer.tokens)


@settings(deadline=None, max_examples=80)
@given(mb.midi_files(), st.floats(0.0, 1.0))
def test_a_cut_file_holds_what_its_primer_says(data, fraction):
    file = read_midi(data)
    whole = file.primer(CODEC)
    assert abs(file.seconds - whole.start) <= 0.0151
    start = file.first + fraction * (file.seconds - file.first)
    assume(start > file.first + 0.006)
    primer = file.primer(CODEC, start)
    result = continuation_bytes(file, NEW, primer.start, cut=primer.start)
    assert not left_sounding(result)
    again = read_midi(result)
    np.testing.assert_array_equal(again.primer(CODEC, primer.start).tokens, primer.tokens)
    assert CODEC.decode(primer.tokens)[-1].end <= primer.start + 1e-9
    tail = continuation_bytes(file, NEW, whole.start)
    assert not left_sounding(tail)
    assert data[14:] in tail


@settings(deadline=None, max_examples=60)
@given(mb.midi_files(), st.sets(st.tuples(st.integers(60, 64), st.integers(0, 40))), st.booleans())
def test_new_notes_lie_in_seconds_where_they_were_asked(data, shapes, cut):
    notes = [Note(pitch, 80, half / 2, half / 2 + 0.4) for pitch, half in shapes]
    file = read_midi(data)
    start = file.primer(
        CODEC, file.seconds / 2 if cut and file.first < file.seconds / 2 - 0.02 else None
    ).start
    again = read_midi(continuation_bytes(file, notes, start, cut=start if cut else None))
    (channel,) = set(again.tracks[-1].channels) - {
        channel for track in file.tracks for channel in track.channels
    }
    laid = sorted(
        (again.tempo.seconds(np.array([n.start, n.end])).tolist(), n.pitch)
        for n in again.played
        if n.channel == channel
    )
    asked = sorted(([start + note.start, start + note.end], note.pitch) for note in notes)
    assert [pitch for _, pitch in laid] == [pitch for _, pitch in asked]
    tick = float(again.tempo.scales.max())
    np.testing.assert_allclose([times for times, _ in laid], [times for times, _ in asked], atol=tick + 0.005)


def test_tempo_changes_in_any_track_count():
    file = read_midi(mb.midi(mb.track(*mb.melody()), mb.track((480, mb.tempo(60)))))
    assert file.seconds == 0.5 + 3
    track = new_track(continuation_bytes(file, [Note(60, 80, 0.0, 1.0)], 3.5))
    assert [tick for tick, m in track if m.type.startswith("note")] == [1920, 2400]


def test_continuation_alone_begins_at_zero():
    for data in (
        continuation_bytes(None, NEW, 7.0),
        continuation_bytes(read_midi(SIMPLE), NEW, 7.0, only=True),
    ):
        file = read_midi(data)
        assert (file.format, len(file.tracks), file.first, file.seconds) == (0, 1, 0.0, 1.0)
        assert not left_sounding(data)


def test_no_notes_make_a_track_without_notes():
    track = new_track(continuation_bytes(read_midi(SIMPLE), [], 2.0))
    assert not [m for _, m in track if m.type.startswith("note")]


def test_a_continuation_can_be_continued():
    data = SIMPLE
    for number in range(1, 4):
        file = read_midi(data)
        data = continuation_bytes(file, NEW, file.primer(CODEC).start)
        assert [track.name for track in read_midi(data).tracks] == ["Lead"] + ["Perceiver AR"] * number
    assert read_midi(data).seconds == 2.0 + 3 * 1.0


def test_writing_replaces_the_file_whole_or_not_at_all(tmp_path):
    path = tmp_path / "résultat.mid"
    path.write_bytes(b"before")
    write_continuation(path, read_midi(SIMPLE), NEW, 2.0)
    assert read_midi(path).notes == 6
    with pytest.raises(MidiError, match="Cannot write"):
        write_continuation(tmp_path / "no folder" / "a.mid", read_midi(SIMPLE), NEW, 2.0)
    with pytest.raises(MidiError, match="Cannot write"):
        write_continuation(tmp_path, read_midi(SIMPLE), NEW, 2.0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["résultat.mid"]


def test_a_pedal_that_nobody_hears_any_more_is_not_waited_for():
    pedal = mb.track((0, mb.control(64, 127)), (60 * 960, mb.control(64, 0)))
    file = read_midi(mb.midi(mb.track(*mb.melody()), pedal))
    released = max(note.end for note in file.played) / 960
    assert file.seconds == file.primer(CODEC).start == released + FADED_SECONDS
    data = continuation_bytes(file, NEW, file.seconds)
    assert data[14 : len(file.data)] == file.data[14:]
    new = read_midi(data).played[-len(NEW) :]
    assert [note.start / 960 for note in new] == [file.seconds, file.seconds + 0.25]


@pytest.mark.parametrize("archive", ["maestro-v3.0.0-midi.zip", "asap-extra.zip"])
def test_real_performances_stay_as_they_were(archive):
    for name, data in mb.performances(archive, 3):
        file = read_midi(data)
        result = continuation_bytes(file, NEW, file.seconds)
        assert result[14 : len(data)] == data[14:], name
        tracks = mido_file(result).tracks
        assert [list(track) for track in tracks[:-1]] == [list(track) for track in mido_file(data).tracks]
        assert tracks[-1].name == "Perceiver AR"
