"""WikiText-103: articles of Wikipedia, as bytes or subwords."""

from dataclasses import replace

from training.config import Stage
from training.data.text import Text
from training.presets import books

DOMAIN = Text(title=r"^ = [^=\n]+ = $")
PRESET = replace(
    books.PRESET,
    domain=DOMAIN,
    model=replace(books.PRESET.model, context=8192, position_shape=(8192,), layers=18),
    stages=(Stage(1.0, 8192, 64),),
    steps=100_000,
)
"""Ours, of 240 million parameters. The paper's model (Hawthorne et al. 2022) has 358 million and reaches a test
perplexity of 18.4 a word: `word_perplexity` here, over the 245,569 words of the test split. Those figures are
published. Context, layers and width are meant to be the paper's too, but its released code has no such config to check
them with; latents, batch and steps are ours.

The data are `wikitext-103-raw-v1.zip` (Merity et al. 2017): `wiki.train.raw`, `wiki.valid.raw` and `wiki.test.raw`, cut
before each ` = Title = `; or `wikitext-103-v1.zip` with `.tokens`, in which rare words are `<unk>`, and which models of
whole words are measured on. `--data hf:Salesforce/wikitext:wikitext-103-raw-v1` streams the raw ones from Hugging
Face's Hub, a row a line. For subwords, first `python -m training vocabulary`."""

TINY = replace(books.TINY, domain=DOMAIN)
"""Ours: 1.1 million parameters."""
