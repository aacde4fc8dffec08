"""Where data come from: what a source lacks, what has changed in it, and what is damaged."""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import folder, tarred, zipped
from test_images_and_text import png

from perceiver_ar.codecs.text import TextCodec
from training.data.images import Images
from training.data.sources import identity, names_in, parts_of, read
from training.data.splits import NoSplit
from training.data.text import Text

NAMES = [f"train/{name}.txt" for name in "cabfed"]
FILES = {name: os.urandom(3000).hex().encode() for name in NAMES}


def packed(path: Path, files: dict[str, bytes]) -> Path:
    """The files in a compressed tar."""
    plain, path = tarred(path, files), path.with_suffix(".tar.gz")
    with tarfile.open(plain) as before, tarfile.open(path, "w:gz") as archive:
        for member in before:
            archive.addfile(member, before.extractfile(member))
    return path


def test_archives_may_hold_a_split_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As ImageNet's of 64 x 64 do."""
    given = (
        tarred(tmp_path / "train_64x64", {f"train_64x64/{number}.png": png(number) for number in range(2)}),
        tarred(tmp_path / "valid_64x64", {"valid_64x64/1.png": png(2)}),
    )
    assert len(Images(4, 5).load(given, "train", tmp_path / "store")) == 2
    assert f"{given[1]} has no 'train' split" in capsys.readouterr().err
    assert len(Images(4, 5).load(given, "validation", tmp_path / "store")) == 1
    with pytest.raises(NoSplit, match=r"no source has a 'test' split: .*train_64x64\.tar has no \.jpeg"):
        Images(4, 5).load(given, "test", tmp_path / "store")


@pytest.mark.parametrize("maker", [zipped, tarred])
def test_an_archive_that_changed_is_prepared_anew(maker: Callable, tmp_path: Path) -> None:
    """Though it is as long as the one that it replaced, and in its place."""
    sizes = set()
    for number, text in enumerate(("before", "behind")):
        source = maker(tmp_path / "texts", {"train/a.txt": text.encode()})
        os.utime(source, ns=(0, number))
        sizes.add(source.stat().st_size)
        assert TextCodec().decode(Text().load((source,), "train", tmp_path / "store")[0]) == text
    assert len(sizes) == 1


def test_a_folder_that_changed_is_prepared_anew(tmp_path: Path) -> None:
    """Though its files have the same names and sizes. Nothing beside them counts: the tokens may lie among them."""
    source = folder(tmp_path / "texts", {"train/a.txt": b"before"})
    for text in ("before", "behind"):
        (source / "train/a.txt").write_text(text)
        os.utime(source / "train/a.txt", ns=(0, len(list(source.rglob("*")))))
        for _ in range(2):
            found = Text().load((source,), "train", source / "store")
            assert TextCodec().decode(found[0]) == text
    assert len(list((source / "store").glob("*.npy"))) == 2


@pytest.mark.parametrize("maker", [zipped, tarred])
def test_what_tells_an_archive_stays(maker: Callable, tmp_path: Path) -> None:
    """Or else what was prepared, perhaps for hours, would be prepared again."""
    source = maker(tmp_path / "texts", FILES)
    assert identity(source, NAMES) == [str(source), 1, source.stat().st_size, source.stat().st_mtime_ns]


@pytest.mark.parametrize("maker", [zipped, tarred, packed])
def test_a_damaged_archive_gets_a_sentence(maker: Callable, tmp_path: Path) -> None:
    source = maker(tmp_path / "texts", FILES)
    content = bytearray(source.read_bytes())
    if maker is zipped:
        content[len(content) // 2] ^= 1
    else:
        del content[len(content) // 2 :]
    source.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{source.name} is damaged \(.+\): get it again"):
        Text().load((source,), "train", tmp_path / "store")


@pytest.mark.parametrize("maker", [tarred, packed])
def test_a_part_of_a_tar_is_one_stretch(
    maker: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read once, in the order of the archive, and no further than needed."""
    monkeypatch.setattr("training.data.sources.TOGETHER", 2)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    source = maker(tmp_path / "texts", FILES)
    names, size = names_in(source), 2 if maker is tarred else 3
    assert names == sorted(NAMES)
    assert parts_of(source, names) == [NAMES[at : at + size] for at in range(0, 6, size)]
    assert list(read(source, names)) == list(FILES.items())
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert list(read(source, sorted(NAMES[:2]))) == list(FILES.items())[:2]
