"""What a model completes: where it goes on, and that files hold all of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perceiver_ar.codecs.text import TextCodec
from perceiver_ar.config import SOS
from perceiver_ar.generate import Chunk
from training.data.audio import Audio
from training.data.copy_task import CopyTask
from training.data.domain import Domain, Pieces, Sample
from training.data.images import Images
from training.data.store import framed
from training.data.text import Text
from training.samples import complete


def completed(domain: Domain, tokens: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> list[Sample]:
    """Both samples of two sequences that are alike, by a model that goes on as they do."""
    pieces = Pieces(np.tile(tokens, 2), np.arange(3) * len(tokens))

    def generate(model: Any, codec: Any, primers: list[np.ndarray], seed: int) -> Any:
        yield Chunk(np.stack([tokens[len(primer) :] for primer in primers]), np.zeros(0))

    monkeypatch.setattr("training.samples.generate", generate)
    return complete(None, domain, pieces, 2, 10_000)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("domain", "begun"), [(CopyTask(4096), 2048), (CopyTask(2), 1), (Audio(24, frames=501), 250)], ids=str
)
def test_arrays_are_kept_whole(
    domain: Domain, begun: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model goes on where something is to be told: behind a whole frame, or the random half."""
    tokens = domain.load((), "validation", tmp_path)[0]
    written = domain.show(completed(domain, tokens, monkeypatch), tmp_path)
    names = [f"{number}-{name}.npy" for number in (1, 2) for name in ("primer", "continuation")]
    assert [path.name for path in written] == names
    for primer, continuation in zip(map(np.load, written[::2]), map(np.load, written[1::2]), strict=True):
        assert len(primer) == begun
        assert np.array_equal(np.concatenate([primer, continuation]), domain.codec.decode(tokens))


def test_half_of_an_image_or_a_text_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    image, text = Images(4, 5), Text()
    pixels = image.codec.encode(np.zeros((4, 5, 3), np.uint8))
    whole = [(image, np.concatenate([[SOS], pixels])), (text, framed(text.codec.encode("x" * 60), 259))]
    for domain, tokens in whole:
        for primer, made in completed(domain, tokens, monkeypatch):
            assert len(primer) == 31 and len(primer) + len(made) == len(tokens)


def test_samples_can_be_looked_at(tmp_path: Path) -> None:
    domain = Images(height=2, width=3)
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    tokens = domain.codec.encode(image)
    [grid] = domain.show([Sample(tokens[:9], tokens[9:])] * 3, tmp_path)
    with Image.open(grid) as opened:
        pixels = np.asarray(opened)
    assert pixels.shape == (4, 12, 3)  # two pairs across, two down
    assert np.array_equal(pixels[:2, 3:6], image) and np.array_equal(pixels[2:, 3:6], image)
    assert np.array_equal(pixels[0, :3], image[0]) and not pixels[1, :3].any() and not pixels[2:, 6:].any()
    text = TextCodec()
    [page] = Text().show([Sample(text.encode("once upon"), text.encode(" a time"))], tmp_path)
    assert page.read_text().split("\n\n") == ["once upon", "--- the model goes on ---", " a time\n"]
