"""The codecs of images and text, and their data: folders, zips and tars of files, prepared once."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from archives import ARCHIVES, folder
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from perceiver_ar.codecs.images import ImageCodec
from perceiver_ar.codecs.text import TextCodec
from perceiver_ar.config import EOS, FIRST_DATA, SOS
from training.__main__ import main
from training.config import OptimConfig, Paths, Stage
from training.data.crops import training_batch
from training.data.domain import Pieces
from training.data.images import Images
from training.data.splits import split_of
from training.data.text import Text
from training.loop import train
from training.metrics import read_metrics
from training.presets import books, imagenet64

SMALL = (4, 5, 3)


@given(arrays.arrays(np.uint8, SMALL), st.sampled_from(["raster", "planes"]))
def test_an_image_comes_back(image: np.ndarray, order: str) -> None:
    codec = ImageCodec(4, 5, order)  # type: ignore[arg-type]
    tokens = codec.encode(image)
    assert tokens.shape == (60,) and tokens.min() >= FIRST_DATA and tokens.max() < codec.vocab_size
    assert np.array_equal(codec.decode(tokens), image)


def test_orders_are_pixel_by_pixel_or_channel_by_channel() -> None:
    image = np.arange(60, dtype=np.uint8).reshape(SMALL)
    assert (ImageCodec(4, 5).encode(image)[:4] - FIRST_DATA).tolist() == [0, 1, 2, 3]
    assert (ImageCodec(4, 5, "planes").encode(image)[:4] - FIRST_DATA).tolist() == [0, 3, 6, 9]


@pytest.mark.parametrize("order", ["raster", "planes"])
def test_a_position_is_the_subpixel_that_is_predicted(order: str) -> None:
    codec = ImageCodec(4, 5, order)  # type: ignore[arg-type]
    image = np.random.default_rng(0).integers(0, 256, SMALL, np.uint8)
    tokens = codec.encode(image)
    for step, (row, column, channel) in enumerate(codec.positions(0, 60)):
        assert tokens[step] == image[row, column, channel] + FIRST_DATA
    assert np.array_equal(codec.positions(58, 4)[:, 2], codec.positions(0, 60)[[58, 59, 0, 1], 2])


def test_part_of_an_image_is_an_image_too() -> None:
    image = np.full(SMALL, 7, np.uint8)
    codec = ImageCodec(4, 5)
    found = codec.decode(codec.encode(image)[:31])
    assert (found.reshape(-1)[:31] == 7).all() and not found.reshape(-1)[31:].any()
    with pytest.raises(ValueError, match=r"\(4, 5, 3\), not \(5, 4, 3\)"):
        codec.encode(image.transpose(1, 0, 2))
    with pytest.raises(ValueError, match="order"):
        ImageCodec(4, 5, "spiral")  # type: ignore[arg-type]


@given(st.text())
def test_a_text_comes_back(text: str) -> None:
    assert TextCodec().decode(TextCodec().encode(text)) == text


@given(st.binary())
def test_any_bytes_are_some_text(raw: bytes) -> None:
    tokens = np.frombuffer(raw, np.uint8).astype(np.int32) + FIRST_DATA
    assert TextCodec().decode(tokens) == raw.decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("novels/train/Doyle_Lost_1912.txt", "train"),
        ("train_64x64/0001.png", "train"),
        ("tiny/validation/train_3.png", "validation"),
        ("wikitext-2/wiki.valid.tokens", "validation"),
        ("pg19/test/10146.txt", "test"),
        ("training.txt", "train"),
        ("constraint/valley.txt", None),
    ],
)
def test_names_say_the_split(name: str, split: str | None) -> None:
    assert split_of(name) == split


def png(seed: int, height: int = 4, width: int = 5) -> bytes:
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))
    image.save(file := io.BytesIO(), "png")
    return file.getvalue()


@ARCHIVES
def test_images_of_an_archive(maker: Callable, tmp_path: Path) -> None:
    files = {f"train_4x5/{n}.png": png(n) for n in range(3)} | {"valid_4x5/9.png": png(9), "readme.md": b"-"}
    source, store = maker(tmp_path / "pictures", files), tmp_path / "store"
    domain = Images(4, 5)
    found = domain.load((source, source), "train", store)
    assert len(found) == 6
    for number in range(6):
        image = np.asarray(Image.open(io.BytesIO(png(number % 3))))
        assert found[number][0] == SOS and np.array_equal(domain.codec.decode(found[number]), image)
    assert len(domain.load((source,), "validation", store)) == 1
    assert all(found.length(number) == len(found[number]) for number in range(6))
    assert json.loads(next(store.glob("*train*.json")).read_text())["images"] == 3
    with pytest.raises(ValueError, match="'test' split"):
        domain.load((source,), "test", store)
    with pytest.raises(ValueError, match="has 4 x 5 pixels"):
        Images(8, 8).load((source,), "train", store)
    assert not [path for path in store.iterdir() if path.stem.startswith("tmp")]


@ARCHIVES
def test_texts_of_an_archive(maker: Callable, tmp_path: Path) -> None:
    texts = {"train/a.txt": "Ein Satz.\n", "train/b.txt": "Größe\n\nzwei", "valid/c.txt": "one two\nthree\n"}
    source = maker(tmp_path / "texts", {name: text.encode() for name, text in texts.items()})
    found = Text().load((source,), "train", tmp_path / "store")
    assert [TextCodec().decode(found[n]) for n in range(2)] == list(texts.values())[:2]
    assert all(found[n][0] == SOS and found[n][-1] == EOS for n in range(2))
    held_out = Text().load((source,), "validation", tmp_path / "store")
    figures = Text().figures(1.0, 15, held_out)  # 14 bytes and the end; three words and two ends of lines
    assert figures["bits_per_byte"] == pytest.approx(15 / 14 / np.log(2))
    assert figures["word_perplexity"] == pytest.approx(np.exp(15 / 5))


@pytest.mark.parametrize("file", [png(0)[:60], b"GIF89a"], ids=["cut short", "no image"])
def test_an_image_that_cannot_be_read_is_named(file: bytes, tmp_path: Path) -> None:
    source = folder(tmp_path / "pictures", {"train/odd.png": file})
    with pytest.raises(ValueError, match=r"train/odd\.png is damaged, or no image"):
        Images(4, 5).load((source,), "train", tmp_path / "store")


def test_units_of_images() -> None:
    assert Images().figures(np.log(2), 1, Pieces(np.zeros(0), np.zeros(1)))["bits_per_dim"] == pytest.approx(
        1
    )


def test_a_crop_of_an_image_begins_at_its_beginning(tmp_path: Path) -> None:
    source = folder(tmp_path / "pictures", {f"train/{n}.png": png(n) for n in range(2)})
    domain = Images(4, 5)
    model = replace(imagenet64.TINY.model, context=60, latents=20, position_shape=(4, 5, 3))
    config = replace(imagenet64.TINY, domain=domain, model=model, stages=(Stage(1.0, 60, 8),))
    batch = training_batch(domain.load((source,), "train", tmp_path), config, 0)
    for tokens, positions, targets in zip(*batch, strict=True):
        shown = tokens[tokens != 0]
        assert shown[0] == SOS and np.count_nonzero(targets) == 20
        assert np.array_equal(positions[-len(shown) :], domain.codec.positions(0, len(shown)))


@pytest.mark.slow
@pytest.mark.parametrize("preset", [books, imagenet64], ids=["books", "imagenet64"])
def test_a_preset_trains_exports_and_evaluates(
    preset: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A few steps in a smaller shape, and the domain's unit from the model that was exported."""
    if preset is books:
        domain, shape, unit = Text(), (), "bits_per_byte"
        files = {f"{split}/a.txt": b"To be, or not to be. " * 40 for split in ("train", "valid")}
    else:
        domain, shape, unit = Images(4, 5), (4, 5, 3), "bits_per_dim"
        files = {f"{split}/{n}.png": png(n) for split in ("train", "valid") for n in range(2)}
    source = folder(tmp_path / "data", files)
    tiny = preset.TINY  # type: ignore[attr-defined]
    model = replace(tiny.model, context=60, latents=20, width=16, layers=1, position_shape=shape)
    optim = OptimConfig(rate=1e-2, warmup=1)
    config = replace(
        tiny, domain=domain, model=model, stages=(Stage(1.0, 60, 4),), steps=12, optim=optim, evaluate_every=4
    )
    train(config, Paths(tmp_path / "run", (source,)))
    looks = [line["validation_nll"] for line in read_metrics(tmp_path / "run") if "validation_nll" in line]
    assert looks[-1] < looks[0]
    exported = str(tmp_path / "model")
    assert main(["export", str(tmp_path / "run"), exported, "--licence", "ours"]) == 0
    capsys.readouterr()
    # In the type of the run's own looks, whose program is compiled.
    evaluated = ["evaluate", exported, "--data", str(source), "--store", str(tmp_path / "store"), "--json"]
    assert main([*evaluated, "--dtype", "float32"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found[unit] < 9 and 0 <= found["accuracy"] <= 1
