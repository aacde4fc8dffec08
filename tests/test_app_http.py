"""The page's API, without serving it: what it says of itself, and what it answers to what it cannot do."""

import asyncio
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from app.model import Model
from app.service import Service
from app.ui import page


class Api:
    """The page's API as one client calls it."""

    def __init__(self, blocks: gr.Blocks) -> None:
        self.blocks = blocks

    def call(self, name: str, *data: Any) -> list[Any]:
        (function,) = (one for one in self.blocks.fns.values() if one.api_name == name)
        request: Any = gr.Request(session_hash="one")
        state = [None] if name == "continue" else []  # as a server puts in what it keeps
        return asyncio.run(self.blocks.process_api(function, [*state, *data], request=request))["data"]

    def refused(self, name: str, *data: Any) -> str:
        """The sentence that says why, which leaves no stack on the terminal."""
        with pytest.raises(gr.Error) as caught:
            self.call(name, *data)
        assert not caught.value.print_exception
        return caught.value.message


@pytest.fixture
def api(small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setattr(Model, "_prepare", lambda model: None)  # nothing here waits for a model

    async def built() -> gr.Blocks:  # where there is no loop, Gradio opens some that it does not close
        return page(Service(small_model, tmp_path))

    return Api(asyncio.run(built()))


def test_the_api_says_what_it_takes(api: Api) -> None:
    said: dict[str, Any] = dict(api.blocks.get_api_info()["named_endpoints"])
    assert set(said) == {"/open", "/open_shipped", "/start", "/continue", "/stop", "/render", "/listen"}
    assert all(endpoint["description"] for endpoint in said.values())
    (second,) = said["/start"]["parameters"]
    assert second["label"] == "Second of the file that is open"
    assert not second["parameter_has_default"] and second["type"] == {"type": "number"}
    limits = (
        "seconds): 5 to 300. Takes: 1 to 4. Temperature: 0.7 to 2. Top-p: 0.01 to 1. Min-p: 0 to 0.5. Seed: "
    )
    assert limits in said["/continue"]["description"]


def test_a_piece_that_is_chosen_twice_is_opened_once(api: Api) -> None:
    """As the page's list may say it: what is made of the piece meanwhile stays."""
    first, second = (api.call("open_shipped", "1")[0]["piece"] for _ in range(2))
    assert first == second != api.call("open_shipped", "0")[0]["piece"]


def test_what_has_the_wrong_type_gets_a_sentence(api: Api) -> None:
    api.call("open_shipped", "0")
    for second in ("abc", None, [1], float("nan"), float("inf")):
        words = api.refused("start", second)
        assert words == f"Give the second of the file to go on from as a number, not {second!r}."
    for seed in (7.5, "7", "abc", None, [7], float("nan")):
        assert (
            api.refused("continue", 5, 1, 1.0, 1.0, 0.005, seed)
            == f"seed must be a whole number, not {seed!r}"
        )
    for number in ("99", "-1", "abc", 3, ["0"], {}):
        words = api.refused("open_shipped", number)
        assert "give one of '0', '1'," in words and words.endswith(f"not {number!r}.")
