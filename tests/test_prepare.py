"""Token files made in parts: what an interruption leaves is kept, and Beam makes the same bytes."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import midi_builder as build
import numpy as np
import pytest
from archives import folder, tarred, zipped

from training.__main__ import main
from training.data import store
from training.data.domain import Domain
from training.data.images import Images
from training.data.music import Music
from training.data.store import Make, Part, prepare
from training.data.text import Text


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.sources.TOGETHER", 2)


def texts(count: int = 5) -> dict[str, bytes]:
    files = {f"train/{number}.txt": f"text {number}\n".encode() * (number + 1) for number in range(count)}
    return files | {"valid/0.txt": "Größe".encode()}


def music() -> dict[str, bytes]:
    files = {f"train/{number}.mid": build.piece(notes=3 + number) for number in range(3)}
    return files | {"train/bad.mid": b"MThd", "validation/0.mid": build.piece(notes=9)}


def here(make: Make, parts: list[Part], title: str) -> None:
    for part in parts:
        make(part)


def kept(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "domain", "files", "maker", "workers"),
    [("transcribed_piano", Music(), music(), zipped, 1), ("books", Text(), texts(), tarred, 2)],
    ids=["music", "text"],
)
def test_beam_makes_the_same_files(
    preset: str, domain: Domain, files: dict[str, bytes], maker: Callable, workers: int, tmp_path: Path
) -> None:
    """And a run then finds them: its token files have the names and the bytes of those it would have made.

    For music one worker is enough, since each imports for seconds.
    """
    source = maker(tmp_path / "data", files)
    command = ["prepare", preset, "--data", str(source), "--workdir", str(tmp_path / "run")]
    assert main([*command, "--", f"--direct_num_workers={workers}"]) == 0
    for split in ("train", "validation"):
        prepare(domain.recipe(source, split), tmp_path / "alone", here)
    assert kept(tmp_path / "run" / "data") == kept(tmp_path / "alone")
    assert len(kept(tmp_path / "alone")) == 4


def test_what_an_interruption_left_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(tmp_path / "texts", texts())
    recipe, made = Text().recipe(source, "train"), []

    def stop(make: Make, parts: list[Part], title: str) -> None:
        for part in parts[:2]:
            make(part)
        raise KeyboardInterrupt

    def note(make: Make, parts: list[Part], title: str) -> None:
        made.extend(part.names for part in parts)
        here(make, parts, title)

    with pytest.raises(KeyboardInterrupt):
        prepare(recipe, tmp_path / "store", stop)
    [parts] = (tmp_path / "store").iterdir()
    assert len(list(parts.glob("*.npy"))) == 2
    path = prepare(recipe, tmp_path / "store", note)
    assert made == [["train/4.txt"]]
    assert sorted((tmp_path / "store").iterdir()) == [path.with_suffix(".json"), path]
    assert path.read_bytes() == prepare(recipe, tmp_path / "again", here).read_bytes()
    monkeypatch.setattr("training.data.sources.TOGETHER", 100)
    assert path.read_bytes() == prepare(recipe, tmp_path / "whole").read_bytes()


def test_a_part_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A file that is no text stops the part that it is in; once it is mended all parts are made."""
    source = folder(tmp_path / "texts", texts() | {"train/3.txt": b"\xff"})
    with pytest.raises(ValueError, match=r"train/3\.txt is not text in UTF-8"):
        prepare(Text().recipe(source, "train"), tmp_path / "store", here)
    [parts] = (tmp_path / "store").iterdir()
    assert sorted(path.suffix for path in parts.iterdir()) == [".json", ".npy"]
    folder(source, texts())
    prepare(Text().recipe(source, "train"), tmp_path / "store", here)
    assert len(Text().load((source,), "train", tmp_path / "store")) == 5


def test_a_manifest_tells_where_it_came_from(tmp_path: Path) -> None:
    source = folder(tmp_path / "music", music())
    path = prepare(Music().recipe(source, "train"), tmp_path / "store", here)
    manifest = store.manifest_of(path)
    assert manifest["source"] == "music" and manifest["codec"] == Music().codec.to_dict()
    assert (manifest["pieces"], manifest["skipped"], len(manifest["files"])) == (3, 1, 4)
    assert manifest["tokens"] == len(np.load(path))
    path = prepare(Text().recipe(folder(tmp_path / "texts", texts()), "train"), tmp_path / "store", here)
    assert store.manifest_of(path)["codec"] == Text().codec.to_dict()


def test_a_process_that_was_killed_is_told_of() -> None:
    with pytest.raises(
        OSError, match="a process that prepared texts was killed, most likely for want of memory"
    ):
        store.by_processes(signal.raise_signal, [signal.SIGKILL] * 2, "texts")  # type: ignore[arg-type]


def test_an_interruption_ends_the_processes(tmp_path: Path) -> None:
    """Which Ctrl-C reaches too: none says a word of it, and nobody waits for what they have begun."""
    deaf, late = tmp_path / "deaf", tmp_path / "late"
    told = f"signal.raise_signal(2); open({str(deaf)!r}, 'w').close(); os.kill({os.getpid()}, 2)"
    work = [f"import os, signal; {told}", *[f"import time; time.sleep(10); open({str(late)!r}, 'w')"] * 3]
    with pytest.raises(KeyboardInterrupt):
        store.by_processes(exec, work, "texts")  # type: ignore[arg-type]
    assert deaf.exists() and not late.exists()


def test_images_of_parts_are_one_array(tmp_path: Path) -> None:
    from test_images_and_text import png

    source = folder(tmp_path / "pictures", {f"train/{number}.png": png(number) for number in range(5)})
    path = prepare(Images(4, 5).recipe(source, "train"), tmp_path / "store", here)
    assert np.load(path).shape == (5, 4, 5, 3)
    assert len(Images(4, 5).load((source,), "train", tmp_path / "store")) == 5
    manifest = store.manifest_of(path)
    assert manifest["images"] == 5 and manifest["codec"] == {"name": "images", "height": 4, "width": 5}


def test_impossible_preparations_get_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder(tmp_path / "texts", texts())
    where = ["--data", str(source), "--workdir", str(tmp_path / "run")]

    def said(*arguments: str) -> str:
        assert main(["prepare", *arguments]) == 2
        [line] = capsys.readouterr().err.splitlines()
        return line

    assert "PRESET, one of books" in said()
    assert "Beam has no runner 'Abacus'" in said("books", *where, "--runner", "Abacus")
    assert "nothing to prepare" in said("copy_task_32", *where)
    assert "no .npy files" in said("maestro_audio", *where)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert "install perceiver-ar[beam]" in said("books", *where)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kept", [0, 100, 140, -30], ids=["nothing", "half a header", "half of it", "no end"])
def test_a_damaged_token_file_is_named(kept: int, tmp_path: Path) -> None:
    """What was cut short, as on a full disk; once it is deleted it is made again."""
    from test_images_and_text import png

    texts_of = folder(tmp_path / "texts", texts())
    pictures = folder(tmp_path / "pictures", {f"train/{number}.png": png(number) for number in range(5)})
    for domain, source in ((Text(), texts_of), (Images(4, 5), pictures)):
        path = prepare(domain.recipe(source, "train"), tmp_path / "store", here)
        whole = path.read_bytes()
        path.write_bytes(whole[:kept])
        with pytest.raises(
            ValueError, match=rf"{path.name} is damaged \(.+\): delete it, and it is prepared again"
        ):
            domain.load((source,), "train", tmp_path / "store")
        path.unlink()
        assert len(domain.load((source,), "train", tmp_path / "store")) == 5 and path.read_bytes() == whole


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    source, file = folder(tmp_path / "texts", texts()), tmp_path / "file"
    file.write_text("-")
    with pytest.raises(
        OSError, match=r"nothing can be prepared in .*file/data \(Not a directory\): choose another"
    ):
        prepare(Text().recipe(source, "train"), file / "data", here)


@pytest.mark.slow
def test_what_goes_wrong_in_beam_is_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = folder(tmp_path / "texts", texts() | {"train/3.txt": b"\xff"})
    command = ["prepare", "books", "--data", str(source), "--workdir", str(tmp_path / "run")]
    assert main([*command, "--split", "train"]) == 2
    error = capfd.readouterr().err
    assert "Beam could not prepare texts train: train/3.txt is not text in UTF-8" in error
    assert "Traceback" not in error and "INFO" not in error
