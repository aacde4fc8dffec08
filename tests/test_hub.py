"""Datasets by their names, `hf:NAME`: read from local folders, as the package reads those of the Hub, and offline."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import folder
from PIL import Image

from perceiver_ar.codecs.text import TextCodec
from training.__main__ import main
from training.data import hub
from training.data.images import Images
from training.data.music import Music
from training.data.text import Text

TEXTS = [["one two\n", "Größe"], ["three\n"], ["", "four five"]]
SCHEMA = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]).with_metadata(
    {"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})}
)


@pytest.fixture(autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No look at the network, and the user's cache left alone."""
    import datasets.config
    import huggingface_hub.constants

    cache = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(cache))
    for name, value in (("HF_HUB_OFFLINE", "1"), ("HF_HOME", str(cache))):  # for processes of their own
        monkeypatch.setenv(name, value)


def parquet(path: Path, split: str, shards: list[list[str]]) -> Path:
    """The source of a folder as Hub's datasets are laid out, a file a shard."""
    path.mkdir(exist_ok=True)
    for number, texts in enumerate(shards):
        table = pa.table({"title": ["-"] * len(texts), "text": texts})
        pq.write_table(table, path / f"{split}-{number:05}-of-{len(shards):05}.parquet")
    return Path(f"hf:{path}")


def png(value: int) -> bytes:
    Image.new("RGB", (5, 4), (value, 0, 7)).save(file := io.BytesIO(), "png")
    return file.getvalue()


def test_a_row_is_a_text(tmp_path: Path) -> None:
    parquet(tmp_path / "books", "train", TEXTS)
    source, store = parquet(tmp_path / "books", "validation", TEXTS[:1]), tmp_path / "store"
    found = Text().load((source,), "train", store)
    texts = [text for shard in TEXTS for text in shard if text]
    assert [TextCodec().decode(found[n].astype(np.int32)) for n in range(len(found))] == texts
    assert found.counts["words"] == 6 and len(Text().load((source,), "validation", store)) == 2
    manifest = json.loads(next(store.glob("*-train-*.json")).read_text())
    assert manifest["source"] == str(source) and manifest["revision"] and len(manifest["sha256"]) == 64
    assert (manifest["pieces"], manifest["split"]) == (4, "train")
    with pytest.raises(ValueError, match="no 'test' split, but train, validation"):
        Text().load((source,), "test", store)


def test_rows_are_the_lines_of_articles(tmp_path: Path) -> None:
    """As WikiText's are: an article may go on in the next file, and blank lines have lost their ends."""
    lines = [["", " = One = \n", " Text . \n"], [" More . \n", "", " = Two = \n"]]
    found = Text(title=r"^ = [^=\n]+ = $").load(
        (parquet(tmp_path / "wiki", "train", lines),), "train", tmp_path / "store"
    )
    decoded = [TextCodec().decode(found[n].astype(np.int32)) for n in range(len(found))]
    assert decoded == ["\n = One = \n Text . \n More . \n\n", " = Two = \n"]


@pytest.mark.parametrize("packed", [True, False], ids=["parquet", "imagefolder"])
def test_images_of_a_column(packed: bool, tmp_path: Path) -> None:
    if packed:
        (tmp_path / "pictures").mkdir()
        rows = [{"image": {"bytes": png(value), "path": None}} for value in (1, 2)]
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), tmp_path / "pictures" / "train.parquet")
    else:
        folder(tmp_path / "pictures", {f"train/{value}.png": png(value) for value in (1, 2)})
    source, store = Path(f"hf:{tmp_path / 'pictures'}"), tmp_path / "store"
    found = Images(4, 5).load((source,), "train", store)
    images = [Images(4, 5).codec.decode(found[n]) for n in range(len(found))]
    assert [image[0, 0].tolist() for image in images] == [[1, 0, 7], [2, 0, 7]]
    assert json.loads(next(store.glob("*.json")).read_text())["images"] == 2
    with pytest.raises(ValueError, match="has no column text, but image"):
        Text().load((source,), "train", store)


def test_what_was_prepared_needs_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = parquet(tmp_path / "books", "train", TEXTS)
    first = Text().load((source,), "train", tmp_path / "store")
    monkeypatch.setitem(sys.modules, "datasets", None)
    again = Text().load((source,), "train", tmp_path / "store")
    assert np.array_equal(first.tokens[:], again.tokens[:])
    with pytest.raises(ValueError, match=r"install perceiver-ar\[hub\]"):
        Text().load((source,), "train", tmp_path / "elsewhere")


def test_impossible_names_get_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, reason in (("hf:nobody/nothing", "cannot be read"), ("hf:", "is no name of a dataset")):
        assert main(["books", "--tiny", "--data", name, "--workdir", str(tmp_path / "run")]) == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert name in line and reason in line
    with pytest.raises(ValueError, match="only texts and images"):
        Music().load((Path("hf:some/midi"),), "train", tmp_path)


def test_names_have_a_config_and_a_revision() -> None:
    found = hub.NAME.fullmatch("hf:Salesforce/wikitext:wikitext-103-raw-v1@b08601e")
    assert found and found["name"] == "Salesforce/wikitext"
    assert (found["config"], found["revision"]) == ("wikitext-103-raw-v1", "b08601e")
