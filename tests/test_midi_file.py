"""MIDI files read: what is refused and how, what is kept, what primes the model."""

import os
import random
import subprocess
import sys
from pathlib import Path

import midi_builder as mb
import numpy as np
import pytest
from hypothesis import given, settings

from perceiver_ar.codecs.midi import MidiError, continuation_bytes, read_midi
from perceiver_ar.codecs.music import MusicCodec, Note, import_note_seq

CODEC = MusicCodec()
SIMPLE = mb.midi(mb.track((0, mb.meta(0x03, b"Lead")), *mb.melody()))
NEW = [Note(60, 80, 0.0, 0.5), Note(64, 90, 0.25, 1.0)]


def test_import_is_light():
    names = "note_seq", "pretty_midi", "jax"
    code = f"import sys, perceiver_ar.codecs.midi; print([name for name in {names} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


# What cannot be used, and a word that its sentence must have.
BAD = {
    "empty": (b"", "empty"),
    "random bytes": (random.Random(0).randbytes(50_000), "not a MIDI file"),
    "header only": (mb.header(1, 0), "no notes"),
    "short header": (mb.header(1, 1)[:11], "not a MIDI file"),
    "random bytes behind a header": (mb.header(1, 1) + random.Random(1).randbytes(50_000), "cut off"),
    "random bytes in a track": (mb.midi(mb.chunk(b"MTrk", random.Random(2).randbytes(50_000))), "damaged"),
    "truncated in an event": (SIMPLE[:-9], "cut off inside track 1"),
    "truncated in the second track": (
        mb.midi(mb.track(), mb.track(*mb.melody()))[:-20],
        "cut off inside track 2",
    ),
    "truncated in a chunk's head": (
        mb.midi(mb.track(*mb.melody()), mb.track())[:-9],
        "cut off inside track 2",
    ),
    "no notes": (mb.midi(mb.track((0, mb.program(3)), (100, mb.control(64, 127)))), "no notes"),
    "notes without length": (mb.midi(mb.track((0, mb.on(60)), (0, mb.off(60)))), "no notes"),
    "only drums": (mb.midi(mb.track(*mb.melody(channel=9))), "only drums"),
    "hours of silence": (mb.midi(mb.track((0, mb.tempo(60)), end=9_000_000)), "no notes"),
    "1e9 ticks": (mb.midi(mb.track(*mb.melody(), *[(250_000_000, mb.control(1, 1))] * 4)), "ticks"),
    "years": (
        mb.midi(mb.track((0, mb.meta(0x51, b"\xff" * 3)), *mb.melody([60], 9_999_999)), division=1),
        "hours",
    ),
    "too many notes": (mb.midi(mb.track(*[(1, mb.on(60))] * 100_001)), "100,001 notes"),
    "too many tracks": (mb.midi(*[mb.track()] * 2000), "2,000 tracks"),
    "too large": (SIMPLE + bytes(3_000_000), "3.0 MB"),
    "type 2": (mb.midi(mb.track(*mb.melody()), form=2), "type 2"),
    "type 7": (mb.midi(mb.track(*mb.melody()), form=7), "type (7)"),
    "SMPTE time": (mb.midi(mb.track(*mb.melody()), division=0xE728), "SMPTE"),
    "no division": (mb.midi(mb.track(*mb.melody()), division=0), "ticks per quarter"),
    "mad tempo": (mb.midi(mb.track((0, mb.meta(0x51, b"\0\0\1")), *mb.melody())), "tempo"),
    "data without status": (mb.midi(mb.track((0, b"\x3c\x40"))), "damaged inside track 1"),
    "overlong delta time": (mb.midi(mb.chunk(b"MTrk", b"\x80\x80\x80\x80\x00\x90\x3c\x40")), "damaged"),
    "data byte over 127": (mb.midi(mb.track((0, b"\x90\x3c\xf0"))), "damaged"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_refused_in_a_sentence(case, tmp_path):
    data, word = BAD[case]
    path = tmp_path / "bad.mid"
    path.write_bytes(data)
    for source in (path, str(path), data):
        with pytest.raises(MidiError) as error:
            read_midi(source)
        sentence = str(error.value)
        assert word in sentence and sentence.endswith(".") and "\n" not in sentence


def test_bad_paths_are_refused_in_a_sentence(tmp_path):
    for path, word in ((tmp_path, "folder"), (tmp_path / "none.mid", "no file"), ("a\0b.mid", "Cannot read")):
        with pytest.raises(MidiError, match=word):
            read_midi(path)
    (tmp_path / "a.mid").write_bytes(SIMPLE)
    with pytest.raises(MidiError, match="Cannot read"):
        read_midi(tmp_path / "a.mid" / "b.mid")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.mid")
    with pytest.raises(MidiError, match="ordinary file"):
        read_midi(tmp_path / "pipe.mid")


def test_unreadable_file_is_refused(tmp_path, monkeypatch):
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "a.mid"
    path.write_bytes(SIMPLE)
    monkeypatch.setattr(Path, "read_bytes", refuse)  # root, as in a container, may read every file
    with pytest.raises(MidiError, match="Permission denied"):
        read_midi(path)


def test_a_hundred_megabytes_are_refused_unread(tmp_path):
    path = tmp_path / "large.mid"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(MidiError, match=r"100\.0 MB"):
        read_midi(path)


@pytest.mark.parametrize("name", ["präludium – 前奏曲.mid", "PRELUDE.MID", "no suffix"])
def test_any_file_name_works(name, tmp_path):
    (tmp_path / name).write_bytes(SIMPLE)
    assert read_midi(tmp_path / name).name == name


# What is merely odd, and a word of the warning it gets, if any.
RUNNING = mb.track((0, mb.on(60)), (480, b"\x3c\x00"), (0, b"\x3e\x50"), (480, b"\x3e\x00"))
ODD = {
    "type 0": (mb.midi(mb.track(*mb.melody()), form=0), None),
    "running status": (mb.midi(RUNNING), None),
    "running status after a meta event": (
        mb.midi(mb.track((0, mb.on(60)), (9, mb.meta(1, b"x")), (9, b"\x3c\x00"))),
        None,
    ),
    "sysex and escape": (
        mb.midi(mb.track((0, b"\xf0\x03\x43\x12\xf7"), (0, b"\xf7\x02\xf3\x01"), *mb.melody())),
        None,
    ),
    "no End of Track": (mb.midi(mb.track(*mb.melody(), end=None)), "End of Track"),
    "bytes after End of Track": (mb.midi(mb.chunk(b"MTrk", mb.track(*mb.melody())[8:] + b"junk")), None),
    "too many tracks announced": (mb.midi(mb.track(*mb.melody()), declared=3), "announces 3"),
    "too few tracks announced": (mb.midi(mb.track(), mb.track(*mb.melody()), declared=1), "announces 1"),
    "unknown chunk": (mb.midi(mb.chunk(b"XFIH", b"abc"), mb.track(*mb.melody())), None),
    "bytes after the last track": (SIMPLE + b"\0" * 12, "12 bytes"),
    "a longer header": (
        mb.chunk(b"MThd", SIMPLE[8:14] + b"\1\2\3\4") + SIMPLE[14:],
        None,
    ),
    "empty track": (mb.midi(mb.chunk(b"MTrk", b""), mb.track(*mb.melody())), "End of Track"),
    "drums beside": (mb.midi(mb.track(*mb.melody()), mb.track(*mb.melody(channel=9))), "4 drum notes"),
    "other instruments": (mb.midi(mb.track((0, mb.program(40)), *mb.melody())), "one piano"),
    "never released": (
        mb.midi(mb.track(*mb.melody(), (0, mb.on(70)), end=480)),
        "never released (1)",
    ),
    "overlapping": (
        mb.midi(mb.track((0, mb.on(60)), (240, mb.on(60)), (240, mb.off(60)), (240, mb.off(60)))),
        None,
    ),
    "tempo of zero": (mb.midi(mb.track((0, mb.meta(0x51, b"\0\0\0")), *mb.melody())), "tempo of zero"),
    "bad key signature": (mb.midi(mb.track((0, mb.meta(0x59, b"\x55\x09")), *mb.melody())), None),
    "coarse ticks": (mb.midi(mb.track(*mb.melody(length=4)), division=4), "125 ms"),
    "not UTF-8": (mb.midi(mb.track((0, mb.meta(3, b"Pr\xe9lude")), *mb.melody())), None),
    "hours between notes": (mb.midi(mb.track(*mb.melody(), (9_000_000, mb.on(60)), (480, mb.off(60)))), None),
    "all channels": (
        mb.midi(mb.track(*[message for channel in range(16) for message in mb.melody(channel=channel)])),
        "shares channel 1",
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_file_is_read_and_kept_byte_for_byte(case):
    data, word = ODD[case]
    file = read_midi(data)
    if word:
        assert any(word in warning for warning in file.warnings), file.warnings
    primer = file.primer(CODEC)
    assert len(primer.tokens) and primer.notes
    result = continuation_bytes(file, NEW, primer.start)
    size = int.from_bytes(data[4:8], "big") + 8
    assert result[:8] == data[:8] and result[8:10] == b"\0\1" and result[12:14] == data[12:14]
    assert result[14:size] == data[14:size]
    kept = data[size:] if "after the last" not in case else data[size:-12]
    assert result[size : size + len(kept)] == kept
    assert result.endswith(data[len(data) - 12 :]) == ("after the last" in case)
    again = read_midi(result)
    assert len(again.tracks) == len(file.tracks) + 1 == int.from_bytes(result[10:12], "big")
    assert again.tracks[-1].name == "Perceiver AR"


def test_overlapping_notes_become_clean_tokens():
    primer = read_midi(ODD["overlapping"][0]).primer(CODEC)
    assert primer.notes == [Note(60, 80, 0.0, 0.25), Note(60, 80, 0.25, 0.5)]
    keys = [token for token in primer.tokens if token < CODEC.time_shift]
    assert keys == [CODEC.note_on + 60, CODEC.note_off + 60] * 2


def test_a_pedal_on_another_track_sustains_its_channel():
    pedal = mb.track((0, mb.control(64, 127)), (1920, mb.control(64, 0)))
    file = read_midi(mb.midi(mb.track(*mb.melody([60])), pedal))
    assert file.seconds == 2.0
    assert file.primer(CODEC).notes == [Note(60, 80, 0.0, 2.0)]


def test_drums_that_go_on_are_waited_for():
    drums = mb.track(*mb.melody([36] * 6, channel=9), (0, mb.on(38, channel=9)), end=9600)
    file = read_midi(mb.midi(mb.track(*mb.melody()), drums))
    assert file.seconds == 3.0
    primer = file.primer(CODEC)
    assert primer.start == 3.0
    assert primer.tokens[-1] == CODEC.time_shift + 99


def test_silence_is_shortened_for_the_primer_only():
    primer = read_midi(ODD["hours between notes"][0]).primer(CODEC)
    assert primer.start == pytest.approx(2 + 9375 + 0.5)
    assert primer.shortened == pytest.approx(9375 - 10)
    assert len(primer.tokens) < 40
    assert primer.notes[-1].end == pytest.approx(primer.start)


def test_properties_of_a_file():
    conductor = mb.track((0, mb.tempo(120)), (960, mb.tempo(60)))
    piano = mb.track(
        (0, mb.meta(3, b"Pr\xe9lude")), (0, mb.program(1)), (480, mb.control(64, 90)), *mb.melody()
    )
    file = read_midi(mb.midi(conductor, piano, mb.track(*mb.melody([36], channel=9))), "prelude.mid")
    assert (file.name, file.format, file.division, file.notes, file.drums) == ("prelude.mid", 1, 480, 4, 1)
    assert [track.name for track in file.tracks] == ["", "Prélude", ""]
    assert [track.channels for track in file.tracks] == [(), (0,), (9,)]
    assert [track.programs for track in file.tracks] == [(), (1,), ()]
    assert [track.notes for track in file.tracks] == [0, 4, 0]
    assert len(file.pedals) == 1
    assert file.first == 0.5
    assert file.seconds == 1 + 3
    assert file.tempo.changes == ((0.0, 120.0), (1.0, 60.0))


@pytest.mark.parametrize("start", [-1.0, 0.0, 0.9, 1.0, 3.02, 1e9, float("nan"), float("inf")])
def test_start_outside_the_music_is_refused(start):
    file = read_midi(mb.midi(mb.track((960, mb.on(60)), (1920, mb.off(60)))))
    with pytest.raises(MidiError, match="start point"):
        file.primer(CODEC, start)


@pytest.mark.parametrize("start", [1.001, 1.5, 3.0, 3.005])
def test_start_within_the_music_is_taken(start):
    file = read_midi(mb.midi(mb.track((960, mb.on(60)), (1920, mb.off(60)))))
    if start < 1.005:
        with pytest.raises(MidiError, match="later start point"):
            file.primer(CODEC, start)
    else:
        assert file.primer(CODEC, start).start == pytest.approx(start, abs=0.0051)


@settings(deadline=None, max_examples=80)
@given(mb.midi_files())
def test_times_and_notes_agree_with_note_seq(data):
    import_note_seq()
    from note_seq import midi_io

    file = read_midi(data)
    theirs = {(note.pitch, note.start_time) for note in midi_io.midi_to_note_sequence(data).notes}
    ours = {(note.pitch, note.start_time) for note in file.note_sequence.notes}
    assert theirs <= ours
    # It drops what is never released, and what was struck again before that.
    assert {pitch for pitch, _ in ours - theirs} <= {note.pitch for note in file.played if not note.released}


@pytest.mark.parametrize("archive", ["maestro-v3.0.0-midi.zip", "asap-extra.zip", "giantmidi-sample.zip"])
def test_real_performances_are_read_as_note_seq_reads_them(archive):
    import_note_seq()
    from note_seq import midi_io

    for name, data in mb.performances(archive, 5):
        file = read_midi(data)
        primer = file.primer(CODEC)
        theirs = CODEC.encode(midi_io.midi_to_note_sequence(data))
        np.testing.assert_array_equal(primer.tokens, theirs, err_msg=name)
        assert abs(file.seconds - primer.start) <= 0.0051


def test_notes_of_tracks_add_up_to_those_of_the_file():
    """A note without length is none, and a key struck twice at once is one note."""
    first = mb.track((0, mb.on(60)), (0, mb.off(60)), (0, mb.on(64)), (0, mb.on(64)), (480, mb.off(64)))
    file = read_midi(mb.midi(first, mb.track(*mb.melody())))
    assert [track.notes for track in file.tracks] == [1, file.notes - 1]
