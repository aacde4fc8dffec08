"""Which of several sources a split is read from."""

from pathlib import Path

import pytest

from training.data.splits import NoSplit, first_with_split

HELD = {"b": "of b", "c": "of c"}


def read(sources: tuple[Path, ...]) -> str:
    """What the one source given has; `nothing given` of none."""
    if not sources:
        return "nothing given"
    (source,) = sources
    if source.name not in HELD:
        raise NoSplit(f"{source} has no such split")
    return HELD[source.name]


@pytest.mark.parametrize(("names", "found"), [("abc", "of b"), ("c", "of c"), ("", "nothing given")])
def test_a_split_is_the_first_source_s_that_has_it(names: str, found: str) -> None:
    assert first_with_split([Path(name) for name in names], read) == found


def test_a_split_that_no_source_has_is_missed() -> None:
    with pytest.raises(NoSplit, match="z has no such split"):
        first_with_split([Path("a"), Path("z")], read)
