"""WikiText-103: articles of Wikipedia, as bytes or subwords."""

from dataclasses import replace

from training.config import OptimConfig, Stage
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
"""Ours, near the size of the paper's model, whose 358 million parameters reach a test perplexity of 18.4 a word. The
data are `wikitext-103-raw-v1.zip` (Merity et al. 2017). For subwords, first `python -m training vocabulary`."""

TINY = replace(
    books.TINY,
    domain=DOMAIN,
    stages=(Stage(1.0, 2048, 8),),
    optim=OptimConfig(name="muon", rate=2e-3, muon_rate=0.01, warmup=50, decay=300, b2=0.99),
)
"""Ours: 1.1 million parameters."""
