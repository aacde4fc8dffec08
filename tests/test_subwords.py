"""Text: subwords learned by a command that lose nothing, articles, perplexity of a word, and tokens on the disk."""

import json
import re
import sys
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from archives import folder, on_disk
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceTrainer

from perceiver_ar import checkpoint
from perceiver_ar.codecs.text import TextCodec, _pieces
from perceiver_ar.config import FIRST_DATA
from training.__main__ import main
from training.config import Paths
from training.data.store import AHEAD, in_order
from training.data.text import Text, learn_subwords
from training.presets import books, wikitext103
from training.state import check_codec, read_config, write_config

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


SPACES = st.sampled_from([" ", "   ", "\n", "\r\n", "\t", "\u2581", " \u2581", "\u00a0", "\0", "the "])


@given(text=st.text() | st.lists(SPACES | st.text(max_size=3)).map("".join))
def test_a_text_comes_back_whatever_it_holds(learned: Path, text: str) -> None:
    codec = Text(subwords=str(learned)).codec
    tokens = codec.encode(text)
    assert codec.decode(tokens) == text
    assert codec.legal[0, tokens].all()


def test_a_file_comes_back_with_its_ends_of_lines(learned: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Größe\r\n\n zwei".encode())
    for codec in (TextCodec(), Text(subwords=str(learned)).codec):
        assert codec.decode(codec.encode(tmp_path / "a.txt")) == "Größe\r\n\n zwei"


def test_of_many_lines_the_same_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.text.LINES", 101)
    first, again = (learn_subwords(TEXT.splitlines(), 400) for _ in range(2))
    assert first == again
    monkeypatch.setattr("training.data.text.LINES", 10_000)
    assert first != learn_subwords(TEXT.splitlines(), 400)


def test_a_long_line_is_learned_from_too() -> None:
    assert learn_subwords([TEXT.replace("\n", " ")], SIZE)


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
    assert main(["export", str(run), str(folder), "--licence", "ours"]) == 0
    codec = checkpoint.load(folder).codec
    assert codec == Text(subwords=str(learned)).codec
    assert codec.decode(codec.encode(TEXT)) == TEXT
    assert len((run / "config.json").read_text()) < 5000
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--data", str(corpus), "--store", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    words, lines = len(HELD_OUT.split()), HELD_OUT.count("\n")
    nats = found["nll"] * found["tokens"]
    assert found["word_perplexity"] == pytest.approx(np.exp(nats / (words + lines)))
    assert found["word_perplexity_pg19"] == pytest.approx(np.exp(nats / words))
    assert found["bits_per_byte"] == pytest.approx(nats / len(HELD_OUT.encode()) / np.log(2))


def test_a_run_keeps_to_its_subwords(
    learned: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that was learned again means other tokens, even if it has as many."""
    config = replace(
        books.TINY,
        domain=Text(subwords=str(learned)),
        model=replace(books.TINY.model, vocab_size=SIZE + FIRST_DATA),
    )
    write_config(config, Paths(tmp_path))
    write_config(config, Paths(tmp_path))
    assert read_config(tmp_path) == config
    other = tmp_path / "other.model"
    other.write_bytes(learn_subwords(HELD_OUT.splitlines() + TEXT.splitlines()[:90], SIZE))
    with pytest.raises(ValueError, match="tokens of another kind"):
        check_codec(replace(config, domain=Text(subwords=str(other))), tmp_path)
    assert read_config(tmp_path) == config


def test_a_word_costs_what_its_tokens_do(tmp_path: Path) -> None:
    """By hand: `a bb` and `ccc` on two lines are 9 bytes, 3 words and 2 ends of lines, whatever the tokens are."""
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a.txt").write_text("a bb\nccc\n")
    domain = Text()
    found = domain.load((tmp_path,), "test", tmp_path / "store")
    assert dict(found.counts) == {"bytes": 9, "words": 3, "lines": 2}
    figures = domain.figures(0.5, 10, found)  # 5 nats: 9 bytes and the end
    assert figures["word_perplexity"] == pytest.approx(np.exp(1))
    assert figures["word_perplexity_pg19"] == pytest.approx(np.exp(5 / 3))
    assert figures["bits_per_byte"] == pytest.approx(5 / 9 / np.log(2))
    twice = domain.load((tmp_path, tmp_path), "test", tmp_path / "store")
    assert dict(twice.counts) == {"bytes": 18, "words": 6, "lines": 4}
    assert domain.figures(0.5, 20, twice) == pytest.approx(figures)


def test_wikitext_is_cut_at_its_titles(tmp_path: Path) -> None:
    """And nothing of it is lost: the blank line before the first title is a word too."""
    articles = [" \n = One = \n \n Text . \n = = Part = = \n More . \n", " = Two = \n \n Text . \n"]
    (tmp_path / "wiki.valid.raw").write_text("".join(articles))
    assert list(wikitext103.DOMAIN.texts(tmp_path, "validation")) == articles


def test_wikitext_has_the_words_that_are_published(shared_data: Path, tmp_path: Path) -> None:
    """WikiText-2's validation split: 60 articles, 217,646 tokens (Merity et al. 2017)."""
    source = shared_data / "wikitext-2-valid.zip"
    if not source.is_file():
        pytest.skip("wikitext-2-valid.zip is not in ../shared/data, and no part of the repository")
    found = wikitext103.DOMAIN.load((source,), "validation", tmp_path)
    assert len(found) == 60
    assert found.counts["words"] + found.counts["lines"] == 217_646
    assert found.counts["bytes"] == len(found.tokens) - 2 * 60


def test_tokens_stay_on_the_disk(corpus: Path, tmp_path: Path) -> None:
    found = Text().load((corpus,), "train", tmp_path)
    tokens = found.tokens[:]
    assert on_disk(tokens) and not tokens.flags.writeable
    assert tokens.dtype == np.uint16
    assert TextCodec().decode(found[0]) == TEXT
    [path] = tmp_path.glob("*.npy")
    assert np.array_equal(np.load(path), tokens)
    assert path.stat().st_size < 2 * len(tokens) + 500


def test_work_is_done_in_order_and_not_far_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(3 * AHEAD):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(3) as pool:
        for number, found in enumerate(in_order(pool, lambda item: item**2, items())):
            assert found == number**2
            assert len(taken) <= number + AHEAD
    assert len(taken) == 3 * AHEAD


def test_impossible_subwords_get_a_sentence(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "x.model")]
    for size, reason in (("100", "at least"), ("100000", "at most")):
        assert main(["vocabulary", "--data", str(corpus), "--size", size, *output]) == 2
        found = re.search(
            rf"{size} subwords cannot be learned .*: set --size to {reason} (\d+)$", _error(capsys)
        )
        assert found and 256 < int(found[1]) < 10_000
    assert main(["vocabulary", "--data", str(tmp_path / "none"), *output]) == 2
    assert "there is no file or folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="vocabulary"):
        _ = Text(subwords=str(tmp_path / "none.model")).codec
    with pytest.raises(ValueError, match="no SentencePiece model"):
        _ = TextCodec("bm90IGEgbW9kZWw=").vocab_size
    for name, data, reason in (
        ("a", b"\xff\xfe", "a/train.txt is not text in UTF-8"),
        ("b", b"\n\n", "empty"),
    ):
        folder(tmp_path / name, {"a/train.txt": data})
        with pytest.raises(ValueError, match=reason):
            Text().load((tmp_path / name,), "train", tmp_path / "store")
        assert main(["vocabulary", "--data", str(tmp_path / name), *output]) == 2
        assert reason in _error(capsys)
    assert not (tmp_path / "x.model").exists() and not list((tmp_path / "store").iterdir())


def test_subwords_that_lose_something_are_refused(tmp_path: Path) -> None:
    """Those of another trainer's defaults, which take spaces together and leave rare letters out."""
    path = tmp_path / "usual.model"
    with path.open("wb") as file:
        lines = iter(TEXT.splitlines())
        SentencePieceTrainer.train(sentence_iterator=lines, model_writer=file, vocab_size=300, minloglevel=2)
    with pytest.raises(ValueError, match="lose a part"):
        _ = Text(subwords=str(path)).codec


def test_who_lacks_sentencepiece_is_told(learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = b64encode(learned.read_bytes()).decode()
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    _pieces.cache_clear()
    with pytest.raises(ValueError, match="pip install sentencepiece"):
        _ = TextCodec(model).vocab_size


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line of stderr, below the bars."""
    return capsys.readouterr().err.strip().splitlines()[-1]
