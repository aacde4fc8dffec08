"""PG-19: whole books from before 1919 (Rae et al. 2020), as bytes or subwords."""

from dataclasses import replace

from training.config import Stage
from training.presets import books

PRESET = replace(
    books.PRESET,
    model=replace(books.PRESET.model, context=4096, position_shape=(4096,), latents=2048, layers=36),
    stages=(Stage(1.0, 4096, 256),),
)
"""Ours, near the size of the paper's model, whose released code has no such config to check this with. The data are as
published: folders `train`, `validation` and `test` with a .txt file a book. The figure to compare is
`word_perplexity_pg19`, over 3,007,061 words of validation and 6,966,499 of test. 11 GB of books become tokens on the
disk, two bytes each, and are never in memory as a whole.

`--data hf:emozilla/pg19` streams a copy in parquet (the official name, `deepmind/pg19`, is a program that the package
`datasets` no longer runs): count its words, which the manifest tells, before you compare figures.
`python -m training prepare pg19` prepares either by Beam."""

TINY = books.TINY
"""That of `books`."""
