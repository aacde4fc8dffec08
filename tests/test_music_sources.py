"""Where performances come from: MAESTRO in its versions, and folders and archives of MIDI files without a csv."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import midi_builder as build
import numpy as np
import pytest
from archives import ARCHIVES, folder, on_disk, zipped

from perceiver_ar.codecs.music import MusicCodec
from perceiver_ar.config import EOS, SOS
from training.data.domain import Pieces
from training.data.music import Music, _drawn, _files_of

CODEC = MusicCodec()
COLUMNS = [
    "canonical_composer",
    "canonical_title",
    "split",
    "year",
    "midi_filename",
    "audio_filename",
    "duration",
]
SPLITS = ("train", "validation", "test")
NOTES = {"one": [4, 5], "two": [6], "three": [7, 8, 9]}


def scale(notes: int) -> bytes:
    return build.piece(notes=notes)


def notes_of(pieces: Pieces) -> list[int]:
    """How many notes each piece has."""
    found = []
    for number in range(len(pieces)):
        piece = pieces[number]
        assert piece[0] == SOS and piece[-1] == EOS
        found.append(len(CODEC.decode(piece.astype(np.int32))))
    return found


def table(rows: list[dict[str, str]]) -> bytes:
    writer = csv.DictWriter(text := io.StringIO(), COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0", "3.0.0"])
@pytest.mark.parametrize("maker", [folder, zipped])
def test_maestro_in_its_versions(version: str, maker: Callable, tmp_path: Path) -> None:
    """The csv in a folder of the version's name; years below it, and from version 2 on the same table as JSON."""
    root, rows = f"maestro-v{version}", []
    files: dict[str, bytes] = {f"{root}/LICENSE": b"-", f"{root}/README": b"-"}
    for number, split in enumerate(SPLITS):
        name = f"2004/MIDI-Unprocessed_SMF_0{number}_R1_2004_wav"
        files[f"{root}/{name}.midi"] = scale(10 + number)
        values = ("Chopin", "Études, Op. 10", split, "2004", f"{name}.midi", f"{name}.wav", "12.5")
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    files[f"{root}/{root}.csv"] = table(rows)
    if version != "1.0.0":
        files[f"{root}/{root}.json"] = json.dumps(rows).encode()
    source = maker(tmp_path / "download", files)
    for number, split in enumerate(SPLITS):
        assert notes_of(Music().load((source,), split, tmp_path / "store")) == [10 + number]


def test_a_file_that_the_csv_names_and_nobody_has(tmp_path: Path) -> None:
    rows = [dict.fromkeys(COLUMNS, "") | {"midi_filename": "2004/a.midi", "split": "train"}]
    source = folder(tmp_path / "part", {"maestro.csv": table(rows)})
    with pytest.raises(ValueError, match=r"lacks 2004/a\.midi"):
        Music().load((source,), "train", tmp_path / "store")


@ARCHIVES
def test_folders_name_the_splits(maker: Callable, tmp_path: Path) -> None:
    """A csv of another layout says nothing, and neither does the title of a piece."""
    files = {
        "train/a/The Test.mid": scale(10),
        "train/b.MIDI": scale(11),
        "valid/Night Train.mid": scale(12),
        "about.csv": b"title,split\nThe Test,test\n",
    }
    source, store = maker(tmp_path / "piano", files), tmp_path / "store"
    assert notes_of(Music().load((source,), "train", store)) == [10, 11]
    assert notes_of(Music().load((source,), "validation", store)) == [12]
    with pytest.raises(ValueError, match="no pieces in its 'test' split: name a folder so"):
        Music().load((source,), "test", store)


def test_splits_are_drawn_by_name_alone() -> None:
    names = [f"Composer, Piece {number}.mid" for number in range(5000)]
    splits = _drawn(names)
    for split in SPLITS[1:]:
        assert 60 < sum(found == split for found in splits.values()) < 140
    elsewhere = _drawn([f"there/{name}" for name in names])
    assert elsewhere == {f"there/{name}": split for name, split in splits.items()}
    some = names[::2]
    assert _drawn(some) == {name: splits[name] for name in some}


def test_a_few_files_give_each_split_one() -> None:
    for count, wanted in ((1, {"train"}), (2, {"train", "validation"}), (3, set(SPLITS)), (9, set(SPLITS))):
        splits = _drawn([f"{number}.mid" for number in range(count)])
        assert set(splits.values()) == wanted and len(splits) == count


def test_what_cannot_be_read_is_counted_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {f"train/{number}.mid": scale(10 + number) for number in range(3)}
    files |= {f"train/{name}.mid": build.BAD[name][0] for name in ("empty", "random", "no notes", "ticks")}
    source, store = folder(tmp_path / "piano", files), tmp_path / "store"
    assert notes_of(Music().load((source,), "train", store)) == [10, 11, 12]
    manifest = json.loads(next(store.glob("*.json")).read_text())
    assert (manifest["pieces"], manifest["skipped"]) == (3, 4)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert line.startswith("4 of 7 files") and "train/empty.mid" in line
    only = folder(tmp_path / "only", {"train/a.mid": b"MThd"})
    with pytest.raises(ValueError, match="none of the files"):
        Music().load((only,), "train", store)


def test_a_sample_of_giantmidi(shared_data: Path) -> None:
    """56 transcriptions without a csv: each is in one split, and a few of them read."""
    source = shared_data / "giantmidi-sample.zip"
    if not source.exists():
        pytest.skip("giantmidi-sample.zip is not in ../shared/data, and no part of the repository")
    found = {split: _files_of(source, split) for split in SPLITS}
    assert sum(map(len, found.values())) == 56 and min(map(len, found.values())) > 0
    assert set.union(*map(set, found.values())) == set.union(*(set(one.values()) for one in found.values()))


@pytest.mark.slow
def test_transcriptions_become_pieces(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "giantmidi-sample.zip"
    if not source.exists():
        pytest.skip("giantmidi-sample.zip is not in ../shared/data, and no part of the repository")
    pieces = Music().load((source,), "train", tmp_path)
    assert len(pieces) == 54 and len(pieces.tokens) > 800_000
    assert json.loads(next(tmp_path.glob("*.json")).read_text())["skipped"] == 0


def test_several_sources_stay_on_the_disk(tmp_path: Path) -> None:
    """Their pieces, and those that a seed draws, are those of one array."""
    given = [
        folder(tmp_path / name, {f"train/{n}.mid": scale(n) for n in notes}) for name, notes in NOTES.items()
    ]
    pieces = Music().load(tuple(given), "train", tmp_path / "store")
    assert notes_of(pieces) == [*NOTES["one"], *NOTES["two"], *NOTES["three"]]
    whole = Pieces(pieces.tokens[:], pieces.offsets)
    assert len(whole.tokens) == len(pieces.tokens) == pieces.offsets[-1]
    for number in range(len(pieces)):
        assert on_disk(pieces[number]) and np.array_equal(pieces[number], whole[number])
    rngs = [np.random.default_rng(0) for _ in range(2)]
    drawn = [[one.draw(rng) for _ in range(60)] for one, rng in zip((pieces, whole), rngs, strict=True)]
    assert drawn[0] == drawn[1] and set(drawn[0]) == set(range(6))
    with pytest.raises(IndexError):
        pieces[6]


def test_many_files_are_encoded_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{split}/{number}.mid": scale(3 + number) for split in SPLITS for number in range(3)}
    source = folder(tmp_path / "music", files)
    alone = Music().load((source,), "train", tmp_path / "alone")
    monkeypatch.setattr("training.data.sources.TOGETHER", 2)
    shared = Music().load((source,), "train", tmp_path / "shared")
    assert notes_of(shared) == [3, 4, 5]
    assert np.array_equal(alone.tokens[:], shared.tokens[:])
