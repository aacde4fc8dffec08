"""The sound of MIDI files: when, how loud, how high, and what is refused."""

import io
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from midi_builder import Message, control, melody, midi, off, on, program, tempo, track

from perceiver_ar.render import (
    FULL,
    MAX_SECONDS,
    RATE,
    SEGMENT,
    TAIL,
    RenderError,
    render,
    wav_bytes,
    write_wav,
)

SECOND = 960  # ticks


def song(*messages: Message) -> bytes:
    return midi(track(*messages), form=0)


def note(pitch: int, velocity: int = 80, ticks: int = SECOND, channel: int = 0) -> list[Message]:
    return [(0, on(pitch, velocity, channel)), (ticks, off(pitch, channel))]


def decibels(audio: np.ndarray, start: float, end: float) -> float:
    """Level of a stretch in seconds, against full scale."""
    part = audio[round(start * RATE) : round(end * RATE)] / 32768
    return 10 * float(np.log10(np.mean(part**2) + 1e-12))


def pitch_of(audio: np.ndarray, start: float, near: float) -> float:
    """The strongest frequency within three semitones of `near`, over one second."""
    part = audio[round(start * RATE) :][:RATE].mean(1) * np.hanning(RATE)
    spectrum = np.abs(np.fft.rfft(part, 8 * RATE))
    low, high = (round(8 * near * 2 ** (semitones / 12)) for semitones in (-3, 3))
    return (low + int(np.argmax(spectrum[low:high]))) / 8


def test_sound_is_where_the_notes_are() -> None:
    audio = render(song((2 * SECOND, on(60)), (SECOND, off(60)), (3 * SECOND, on(72)), (SECOND, off(72))))
    assert audio.dtype == np.int16 and audio.shape == (round((7 + TAIL) * RATE), 2)
    assert not audio[: 2 * RATE - 100].any(), "sound before the first note"
    assert decibels(audio, 2, 2.5) > -40
    assert decibels(audio, 6, 6.5) > -40
    assert decibels(audio, 5, 6) < -75, "sound after the release"
    assert not audio[-10:].any(), "the end is cut off"


def test_tempo_counts() -> None:
    assert len(render(song((0, tempo(60)), *note(60)))) == round((2 + TAIL) * RATE)


def test_louder_with_velocity() -> None:
    velocities = (1, 20, 40, 60, 79, 80, 95, 96, 127)
    levels = [decibels(render(song(*note(60, velocity))), 0, 0.5) for velocity in velocities]
    assert levels == sorted(levels)
    assert levels[0] > -65, "the softest note is not heard"
    assert levels[-1] - levels[2] > 12


@pytest.mark.parametrize("pitch", [28, 33, 45, 57, 60, 66, 69, 74, 81, 90, 96, 105])
@pytest.mark.parametrize("velocity", [60, 110])
def test_pitch_is_right(pitch: int, velocity: int) -> None:
    partial = 2 if pitch < 40 else 1  # a grand's lowest strings hardly sound their fundamental
    frequency = partial * 440 * 2 ** ((pitch - 69) / 12)
    audio = render(song(*note(pitch, velocity, ticks=2 * SECOND)))
    assert pitch_of(audio, 0.1, frequency) == pytest.approx(frequency, rel=0.01)


def test_pedal_prolongs() -> None:
    notes = [*note(60, ticks=240), (4 * SECOND, on(100)), (10, off(100))]
    dry = render(song(*notes))
    held = render(song((0, control(64, 127)), *notes))
    assert decibels(dry, 1.5, 2) < -75
    assert decibels(held, 1.5, 2) > decibels(dry, 1.5, 2) + 20


def test_pedal_of_another_channel_does_not() -> None:
    notes = [*note(60, ticks=240), (2 * SECOND, on(100)), (10, off(100))]
    np.testing.assert_array_equal(
        render(song((0, control(64, 127, channel=1)), *notes)), render(song(*notes))
    )


def test_drums_are_left_out() -> None:
    drum = [message for _ in range(8) for message in note(38, 127, 120, channel=9)]
    piano = note(60)
    both = render(midi(track(*piano), track(*drum)))
    np.testing.assert_array_equal(both, render(midi(track(*piano))))


def test_every_program_is_a_piano() -> None:
    plain = render(song(*melody()))
    other = render(song((0, control(0, 8)), (0, control(32, 3)), (0, program(48)), *melody()))
    assert decibels(plain, 0, 2) > -40
    np.testing.assert_array_equal(other, plain)


def test_a_note_never_released_ends_with_the_file() -> None:
    audio = render(song((0, on(48)), (0, control(64, 127)), (SECOND, on(60)), (SECOND, off(60))))
    assert len(audio) == pytest.approx((2 + TAIL) * RATE, abs=RATE / 100)
    assert decibels(audio, 3.2, 3.4) < -55


def test_segments_join_without_a_seam() -> None:
    """A long low note with the pedal, and one across the seam at 60 s, which a lead-in brings along."""
    messages = [(0, control(64, 127)), (57 * SECOND, on(40, 110)), (8 * SECOND, off(40)), *note(52)]
    audio = render(song(*messages)).astype(float)
    around = [decibels(audio, 59.5 + step / 10, 59.6 + step / 10) for step in range(10)]
    assert min(around) > -60
    assert max(abs(np.diff(around))) < 2
    jumps = np.abs(np.diff(audio[:, 0]))
    assert jumps[60 * RATE - 10 : 61 * RATE].max() <= 1.2 * jumps[58 * RATE : 60 * RATE - 10].max()


@pytest.mark.parametrize(("begin", "end"), [(60.0, 90.0), (90.0, 100.0)])
def test_a_part_sounds_as_it_does_in_the_whole(begin: float, end: float) -> None:
    """One that begins where segments do is the same to the sample, another in level; no more of it is made."""
    scale = [message for step in range(200) for message in note(40 + step % 40, ticks=SECOND // 2)]
    data = song((0, control(64, 100)), *scale[:100], (0, control(64, 0)), *scale[100:])
    whole, part = render(data), render(data, begin=begin, end=end)
    assert len(part) == round((end - begin + TAIL) * RATE)
    whole = whole[round(begin * RATE) :][: len(part) - RATE]
    if not begin % SEGMENT:
        np.testing.assert_array_equal(part[RATE : len(whole)], whole[RATE:])
    for second in range(round(end - begin)):
        levels = [decibels(audio, second, second + 1) for audio in (whole, part)]
        assert levels[0] == pytest.approx(levels[1], abs=1.5)


@pytest.mark.parametrize("extra", [-48, -1, 0, 1, 20, 60])
def test_any_length_near_the_seam(extra: int) -> None:
    """Lengths, tail included, of just under and over one segment: none is lost or made up."""
    seconds = SEGMENT - TAIL + extra / SECOND
    audio = render(song((round(seconds * SECOND) - 480, on(60)), (480, off(60))))
    assert len(audio) == pytest.approx((SEGMENT + extra / SECOND) * RATE, abs=1)
    assert decibels(audio, seconds - 0.4, seconds) > -40


def test_a_pedal_stays_down_over_the_seam() -> None:
    """Also when a reset of all controllers came in between, long ago."""
    pedal = [(0, control(64, 127)), (SECOND, control(121, 0)), (0, control(64, 127))]
    notes = [(61 * SECOND, on(60)), (240, off(60)), (2 * SECOND, on(100)), (10, off(100))]
    assert decibels(render(song(*pedal, *notes)), 63, 64) > -50
    assert decibels(render(song(*notes)), 62, 63) < -75


def test_nothing_clips() -> None:
    chord = [(0, on(pitch, 127)) for pitch in range(36, 84)]
    audio = render(song(*chord, (SECOND, off(36))))
    assert 0.9 * FULL < np.abs(audio.astype(int)).max() <= FULL + 1


def test_wav_file(tmp_path: Path) -> None:
    data = song(*note(69))
    with wave.open(io.BytesIO(wav_bytes(data))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, RATE)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    np.testing.assert_array_equal(samples, render(data))
    write_wav(tmp_path / "out.wav", data)
    assert (tmp_path / "out.wav").read_bytes() == wav_bytes(data)
    assert [path.name for path in tmp_path.iterdir()] == ["out.wav"]


def test_too_long_is_refused() -> None:
    data = song((0, on(60)), (MAX_SECONDS * SECOND + 480, off(60)))
    with pytest.raises(RenderError, match="lasts 31 minutes"):
        render(data)
    assert len(render(data, begin=MAX_SECONDS - 2)) == round((2.5 + TAIL) * RATE), "a part of it can be heard"


def test_what_is_no_midi_is_refused() -> None:
    with pytest.raises(RenderError, match="not a MIDI file"):
        wav_bytes(b"RIFFxxxxWAVEfmt ")


def test_timeout() -> None:
    with pytest.raises(RenderError, match="not ready"):
        render(song(*note(60)), timeout=0.0)


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "old.wav"
    target.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("perceiver_ar.render._write", refuse)
    with pytest.raises(RenderError, match="No space left"):
        write_wav(target, song(*note(60)))
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["old.wav"]


def test_unwritable_path_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    for path in (tmp_path / "no" / "such.wav", tmp_path / "file" / "out.wav", tmp_path):
        with pytest.raises(RenderError, match="choose another output path"):
            write_wav(path, song(*note(60)))
    assert (tmp_path / "file").read_bytes() == b"old"


def test_import_is_light() -> None:
    script = "import sys, perceiver_ar.render; sys.exit('jax' in sys.modules or 'note_seq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
