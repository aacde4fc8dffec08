"""Subwords: learned by a command, lossless, and part of the model that reads them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_ar import checkpoint
from perceiver_ar.codecs.text import TextCodec
from perceiver_ar.config import FIRST_DATA
from training.__main__ import main
from training.data.text import Text
from training.presets import wikitext103

SIZE = 600
DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "architecture.md").read_text(encoding="utf-8")
HELD_OUT = (DOCS / "performance.md").read_text(encoding="utf-8")[:200]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for name, text in (("train/a.txt", TEXT), ("validation/b.txt", HELD_OUT)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def learned(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("subwords") / "docs.model"
    command = ["vocabulary", "--data", str(corpus), "--output", str(path), "--size", str(SIZE)]
    assert main(command) == 0
    first = path.read_bytes()
    assert main(command) == 0
    assert path.read_bytes() == first
    return path


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")))
def test_a_text_comes_back_whatever_it_holds(learned: Path, text: str) -> None:
    codec = Text(subwords=str(learned)).codec
    tokens = codec.encode(text)
    assert codec.decode(tokens) == text
    assert codec.legal[0, tokens].all()


def test_subwords_are_fewer_than_bytes(learned: Path) -> None:
    codec = Text(subwords=str(learned)).codec
    assert codec.vocab_size == SIZE + FIRST_DATA
    assert len(codec.encode(TEXT)) < 0.6 * len(TEXT)
    assert codec.legal.sum() == SIZE - 1


def test_a_model_keeps_its_subwords(
    learned: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = tmp_path / "run", tmp_path / "model"
    small = ["--model.context", "32", "--model.latents", "16", "--model.width", "16", "--model.layers", "1"]
    small += ["--model.position-shape", "32", "--stages.0.context", "32", "--stages.0.batch", "2"]
    steps = ["--steps", "2", "--optim.warmup", "1", "--optim.decay", "0", "--evaluate-windows", "2"]
    data = ["--data", str(corpus), "--domain.subwords", str(learned)]
    command = ["books", "--tiny", "--workdir", str(run), *data, *small, *steps]
    assert main(command) == 2
    assert f"--model.vocab-size {SIZE + FIRST_DATA}" in capsys.readouterr().err
    assert main([*command, "--model.vocab-size", str(SIZE + FIRST_DATA)]) == 0
    assert main(["export", str(run), "--output", str(folder)]) == 0
    codec = checkpoint.load(folder).codec
    assert codec == Text(subwords=str(learned)).codec
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--data", str(corpus), "--store", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    words, lines = len(HELD_OUT.split()), HELD_OUT.count("\n")
    nats = found["nll"] * found["tokens"]
    assert found["word_perplexity"] == pytest.approx(np.exp(nats / (words + lines)))
    assert found["word_perplexity_pg19"] == pytest.approx(np.exp(nats / words))
    assert found["bits_per_byte"] == pytest.approx(nats / len(HELD_OUT.encode()) / np.log(2))


def test_wikitext_is_cut_at_its_titles(tmp_path: Path) -> None:
    articles = [" \n = One = \n \n Text . \n = = Part = = \n More . \n", " = Two = \n \n Text . \n"]
    (tmp_path / "wiki.valid.raw").write_text("".join(articles))
    found = list(wikitext103.DOMAIN.texts(tmp_path, "validation"))
    assert found == [articles[0].removeprefix(" \n"), articles[1]]


def test_impossible_subwords_get_a_sentence(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "x.model")]
    assert main(["vocabulary", "--data", str(corpus), "--size", "100", *output]) == 2
    assert "100 subwords cannot be learned" in capsys.readouterr().err
    assert main(["vocabulary", "--data", str(tmp_path / "none"), *output]) == 2
    assert "neither a folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="vocabulary"):
        _ = Text(subwords=str(tmp_path / "none.model")).codec
    with pytest.raises(ValueError, match="no SentencePiece model"):
        _ = TextCodec("bm90IGEgbW9kZWw=").vocab_size
