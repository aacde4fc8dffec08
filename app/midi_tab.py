"""The MIDI tab: what is on it, and what happens when it is used."""

import html
import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio.components import Component

from app.service import NO_MUSIC, STOPPING, Piece, Run, Service, Session, shipped
from perceiver_ar.continuation import Request

STATIC = Path(__file__).parent / "static"
LONGEST = 300
MOST_TAKES = 4
SEEDS = 2**31
DEFAULTS = Request()
PLACE = "start"
SHOWN = 10
"""Seconds for which the page shows what went wrong."""


def _in_range(self: gr.Slider, payload: Any) -> float:
    """A slider's value, or gr.Error by the slider's name, which leaves no stack on the terminal.

    The place to go on from is the nearest one there is, as the page shows it.
    """
    number = payload if isinstance(payload, int | float) else None
    if self.elem_id == PLACE:
        return min(max(self.minimum if number is None else number, self.minimum), self.maximum)
    if number is None or not self.minimum <= number <= self.maximum:
        asked = f"give a number from {self.minimum:g} to {self.maximum:g}, not {payload!r}"
        raise gr.Error(f"{self.label}: {asked}.", duration=SHOWN, print_exception=False)
    return number


def _one_of_these(self: gr.Dropdown, payload: Any) -> Any:
    """A dropdown's value, or gr.Error."""
    values = [value for _, value in self.choices]
    if payload is not None and payload not in values:
        asked = f"give one of {', '.join(map(repr, values))}, not {payload!r}"
        raise gr.Error(f"{self.label}: {asked}.", duration=SHOWN, print_exception=False)
    return payload


# Not subclasses: beside the file of one Gradio writes another, with its types.
gr.Slider.preprocess = _in_range
gr.Number.preprocess = lambda self, payload: payload  # neither rounded nor refused before it can be named
gr.Dropdown.preprocess = _one_of_these


class Parts(NamedTuple):
    """The components that events read and write."""

    upload: gr.File
    shipped: gr.Dropdown
    start: gr.Slider
    heard: gr.HTML
    settings: list[Component]
    """Length, takes, temperature, top-p, min-p, seed."""
    seed: gr.Number
    lock: gr.Checkbox
    go: gr.Button
    stop: gr.Button
    status: gr.HTML
    roll: gr.HTML


def midi_tab(service: Service) -> None:
    """Build the tab inside the current Blocks."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            parts = _controls()
        with gr.Column(scale=3, min_width=320, elem_id="result"):
            parts = parts._replace(
                heard=gr.HTML("<p>Choose a piece: it is what the model listens to.</p>", elem_id="heard"),
                status=gr.HTML(elem_id="status"),
                roll=_roll(),
            )
    _choosing(service, parts)
    _continuing(service, parts)


def _controls() -> Parts:
    pieces = [(piece.label, str(number)) for number, piece in enumerate(shipped())]
    upload = gr.File(label="Your MIDI file", height=120, elem_id="upload")
    choice = gr.Dropdown(pieces, value=None, label="Or one of these pieces", elem_id="shipped")
    start = gr.Slider(
        0,
        1,
        1,
        step=0.01,
        label="Go on from (seconds)",
        info="The end, or an earlier point",
        buttons=[],
        interactive=False,
        elem_id=PLACE,
    )
    length = gr.Slider(
        5, LONGEST, DEFAULTS.seconds, step=1, label="Length of each take (seconds)", elem_id="length"
    )
    takes = gr.Slider(1, MOST_TAKES, DEFAULTS.takes, step=1, label="Takes", elem_id="takes")
    with gr.Accordion("More settings", open=False):
        temperature = _drawing(
            "temperature", 0.7, 2, 0.01, "Above 1 bolder; below 1 safer, and sooner repeats itself"
        )
        top_p = _drawing(
            "top_p", 0.01, 1, 0.01, "Lower keeps to the likeliest notes, which together have this chance"
        )
        min_p = _drawing(
            "min_p",
            0,
            0.5,
            0.005,
            "Higher leaves out notes whose chance is below this part of the likeliest's",
        )
        seed = gr.Number(DEFAULTS.seed, label="Seed", precision=0, elem_id="seed")
        lock = gr.Checkbox(label="Lock the seed", info="The same seed gives the same music", elem_id="lock")
    with gr.Row(elem_id="buttons"):
        go = gr.Button("Continue", variant="primary", min_width=120, elem_id="go")
        stop = gr.Button("Stop", variant="stop", interactive=False, min_width=120, elem_id="stop")
    nothing = gr.HTML(visible=False)
    settings = [length, takes, temperature, top_p, min_p, seed]
    return Parts(upload, choice, start, nothing, settings, seed, lock, go, stop, nothing, nothing)


def _drawing(name: str, least: float, most: float, step: float, info: str) -> gr.Slider:
    """A slider for one of the settings by which notes are drawn."""
    label = name.replace("_", "-").capitalize()
    return gr.Slider(least, most, getattr(DEFAULTS, name), step=step, label=label, info=info)


def _roll() -> gr.HTML:
    return gr.HTML(
        None,
        html_template=(STATIC / "roll.html").read_text(encoding="utf-8"),
        js_on_load="\n".join(
            (STATIC / name).read_text(encoding="utf-8") for name in ("roll.js", "player.js", "page.js")
        ),
        apply_default_css=False,
        elem_id="roll",
    )


def _choosing(service: Service, parts: Parts) -> None:
    """Events of choosing a piece and where to go on from."""
    roll, heard, start = parts.roll, parts.heard, parts.start

    def shown(session: Session, piece: Piece) -> tuple[Any, ...]:
        end = round(piece.midi.seconds, 2)
        first = min(round(piece.midi.first + 0.02, 2), end)
        slider = gr.update(minimum=first, maximum=end, value=end, interactive=True)
        return _drawn(session), _lines(piece), slider, ""

    def open_file(upload: str | None, request: gr.Request) -> tuple[Any, ...]:
        """Open a MIDI file, so that it can be continued."""
        session = service.session(request.session_hash or "")
        with _sentences():
            try:
                return *shown(session, session.open(Path(upload)) if upload else session.chosen()), None
            except (ValueError, OSError):
                if upload:
                    Path(upload).unlink(missing_ok=True)  # it may be a long recording
                raise

    def open_shipped(number: str | None, request: gr.Request) -> Any:
        """Open one of the pieces that ship with the program, given by its number, a text."""
        if number is None:  # the list was left without a choice
            return gr.skip()
        session = service.session(request.session_hash or "")
        with _sentences():
            path, piece = shipped()[int(number)].path, session.piece
            # The list may say its choice twice: what is open then stays, with its takes and its sound.
            if piece and piece.midi.data == path.read_bytes():
                return *shown(session, session.begin_at(piece.midi.seconds)), None
            return *shown(session, session.open(path)), None

    def begin_at(seconds: Any, request: gr.Request) -> tuple[Any, ...]:
        """Go on from this second of the file that is open; from its last sound on, all of it is kept."""
        session = service.session(request.session_hash or "")
        with _sentences():
            piece = session.begin_at(_second(seconds))
        return _drawn(session), _lines(piece)

    outputs = [roll, heard, start, parts.status]
    quiet = {"show_progress": "hidden", "concurrency_limit": None}
    one_by_one: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": 1}
    for event, function, other, name in (
        (parts.upload.upload, open_file, parts.shipped, "open"),
        (parts.shipped.input, open_shipped, parts.upload, "open_shipped"),
    ):
        source = parts.upload if name == "open" else parts.shipped
        opened = event(function, source, [*outputs, other], api_name=name, **one_by_one)
        # The piece that is open stays, and what could not be opened must not look as if it were.
        opened.failure(lambda: None, None, source, queue=False, api_visibility="private", **quiet)
    placed = {"trigger_mode": "always_last", "api_visibility": "private"}
    start.input(begin_at, start, [roll, heard], **placed, **quiet)
    # The API's own: the range and the value of the slider are those of no file yet, and it describes them as they are.
    second = gr.Number(label="Second of the file that is open", visible=False)
    second.input(begin_at, second, [roll, heard], api_name="start", **quiet)


def _continuing(service: Service, parts: Parts) -> None:
    """Events of a run: begin, grow, stop, sound."""
    controls, ticket = [parts.go, parts.stop, parts.start], gr.State(None)

    def begin(
        seconds: float,
        takes: float,
        temperature: float,
        top_p: float,
        min_p: float,
        seed: float | None,
        locked: bool,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        number = seed if locked and seed is not None else secrets.randbelow(SEEDS)
        with _sentences():
            asked = _request(seconds, takes, temperature, top_p, min_p, number)
            prepared = service.session(request.session_hash or "").prepare(asked)
        return prepared, number, *_busy(), _bar("Waiting for its turn ...", 0)

    def run(
        prepared: Run | None,
        seconds: float,
        takes: float,
        temperature: float,
        top_p: float,
        min_p: float,
        seed: float,
        request: gr.Request,
    ) -> Iterator[tuple[Any, str]]:
        session = service.session(request.session_hash or "")
        with _sentences():
            if prepared is None or not prepared.waiting:
                prepared = session.prepare(_request(seconds, takes, temperature, top_p, min_p, seed))
            for text, part in session.carry_out(prepared):
                yield _drawn(session), _bar(text, part)

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    begun = parts.go.click(
        begin,
        [*parts.settings, parts.lock],
        [ticket, parts.settings[-1], *controls, parts.status],
        concurrency_limit=None,  # not queue=False: the page shows no errors of events that pass the queue by
        **quiet,
    )
    done = begun.success(
        run,
        [ticket, *parts.settings],
        [parts.roll, parts.status],
        api_name="continue",
        api_description=_told(parts.settings),
        show_progress="hidden",
        concurrency_id="model",
        concurrency_limit=1,
    )
    done.then(_idle, None, controls, queue=False, **quiet)
    done.failure(lambda: "", None, parts.status, queue=False, **quiet)
    parts.seed.input(lambda: True, None, parts.lock, queue=False, **quiet)  # who types one means it
    _sounding(service, done, parts.roll)
    _stopping(service, parts)


def _stopping(service: Service, parts: Parts) -> None:
    """The event that ends a run."""

    def stop(request: gr.Request) -> tuple[Any, ...]:
        """Stop the run; what was made is kept."""
        session = service.session(request.session_hash or "")
        session.stop()
        run = session.run
        if run is None or run.over:
            return tuple(gr.skip() for _ in outputs)
        if run.waiting:  # its turn may be minutes away
            return _bar(NO_MUSIC, 0), *_idle()
        return _bar(STOPPING, None), gr.skip(), gr.update(interactive=False), gr.skip()

    outputs = [parts.status, parts.go, parts.stop, parts.start]
    parts.stop.click(stop, None, outputs, api_name="stop", queue=False, show_progress="hidden")


def _sounding(service: Service, done: Any, roll: gr.HTML) -> None:
    """Takes sound when a run is `done`, the original when somebody wants to hear it."""

    def listen(request: gr.Request) -> Any:
        """Make the sound of the piece that is open."""
        session = service.session(request.session_hash or "")
        with _sentences():
            session.listen()
        return _drawn(session)

    def render(request: gr.Request) -> Iterator[Any]:
        """Make the sound of takes that have none yet."""
        session = service.session(request.session_hash or "")
        for _ in session.render():
            yield _drawn(session)

    quiet: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": 1}
    done.success(render, None, roll, api_name="render", **quiet)
    roll.listen(listen, None, roll, api_name="listen", **quiet)


@contextmanager
def _sentences() -> Iterator[None]:
    """What a user can cause is shown as its sentence; everything on the page stays as it was."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise gr.Error(str(error), duration=SHOWN, print_exception=False) from None


def _drawn(session: Session) -> Any:
    """The session's picture, its paths as files that the browser can fetch."""

    def served(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: served(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [served(inner) for inner in value]
        if isinstance(value, Path):
            return {"path": str(value), "orig_name": value.name, "meta": {"_type": "gradio.FileData"}}
        return value

    return served(session.picture())


def _busy() -> tuple[Any, ...]:
    """The controls while it works: nothing to continue, something to stop, and what it goes on from stays."""
    return gr.update(interactive=False), gr.update(interactive=True), gr.update(interactive=False)


def _idle() -> tuple[Any, ...]:
    """The controls while it does not."""
    return gr.update(interactive=True), gr.update(interactive=False), gr.update(interactive=True)


def _request(
    seconds: float, takes: float, temperature: float, top_p: float, min_p: float, seed: float | None
) -> Request:
    """The settings as a request; ValueError if a value is out of its range."""
    whole: list[Any] = [
        int(value) if isinstance(value, float) and value.is_integer() else value for value in (takes, seed)
    ]
    return Request(seconds, whole[0], temperature, top_p, min_p, whole[1])


def _second(given: Any) -> float:
    """A number, as it is given; ValueError if it is none."""
    if not (isinstance(given, int | float) and -math.inf < given < math.inf):
        raise ValueError(f"Give the second of the file to go on from as a number, not {given!r}.")
    return given


def _told(settings: list[Component]) -> str:
    """What the API says of a run, the limits of its settings included."""
    sliders = [one for one in settings if isinstance(one, gr.Slider)]
    return " ".join(
        (
            "Continue the piece that is open; the last result names the files.",
            *(f"{one.label}: {one.minimum:g} to {one.maximum:g}." for one in sliders),
            f"Seed: a whole number from 0 to {SEEDS - 1}.",
        )
    )


def _lines(piece: Piece) -> str:
    first, *rest = (html.escape(sentence) for sentence in piece.sentences())
    return f"<p><strong>{first}</strong></p>" + "".join(f"<p>{sentence}</p>" for sentence in rest)


def _bar(text: str, part: float | None) -> str:
    """A line, with how much of the work is done, if that is known."""
    bar = ""
    if text and part is not None:
        bar = f'<progress max="1" value="{part:.3f}" aria-label="Progress"></progress>'
    return f'<p role="status">{html.escape(text)}</p>{bar}'
