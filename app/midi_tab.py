"""The MIDI tab: what is on it, and what happens when it is used."""

import html
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio.components import Component

from app.service import Piece, Run, Service, Session, shipped
from perceiver_ar.continuation import Request

STATIC = Path(__file__).parent / "static"
LONGEST = 300
MOST_TAKES = 4
DEFAULTS = Request()


class Parts(NamedTuple):
    """The components that events read and write."""

    upload: gr.File
    shipped: gr.Dropdown
    start: gr.Slider
    heard: gr.HTML
    settings: list[Component]
    """Length, takes, temperature, top-p, min-p, seed."""
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
        with gr.Column(scale=3, min_width=320):
            parts = parts._replace(
                heard=gr.HTML("<p>Choose a piece: it is what the model listens to.</p>", elem_id="heard"),
                status=gr.HTML(elem_id="status"),
                roll=_roll(),
            )
    _choosing(service, parts)
    _continuing(service, parts)


def _controls() -> Parts:
    pieces = [(piece.label, str(number)) for number, piece in enumerate(shipped())]
    upload = gr.File(label="Your MIDI file", file_types=[".mid", ".midi"], height=120, elem_id="upload")
    choice = gr.Dropdown(pieces, value=None, label="Or one of these pieces", elem_id="shipped")
    start = gr.Slider(
        0,
        1,
        1,
        step=0.01,
        label="Go on from (seconds)",
        info="The end, or an earlier point",
        buttons=[],
        elem_id="start",
    )
    length = gr.Slider(
        5, LONGEST, DEFAULTS.seconds, step=5, label="Length of each take (seconds)", elem_id="length"
    )
    takes = gr.Slider(1, MOST_TAKES, DEFAULTS.takes, step=1, label="Takes", elem_id="takes")
    with gr.Accordion("More settings", open=False):
        temperature = gr.Slider(
            0, 2, DEFAULTS.temperature, step=0.01, label="Temperature", info="Above 1 bolder, below 1 safer"
        )
        top_p = gr.Slider(0.01, 1, DEFAULTS.top_p, step=0.01, label="Top-p", info="Lower leaves out the tail")
        min_p = gr.Slider(
            0, 0.5, DEFAULTS.min_p, step=0.005, label="Min-p", info="Higher leaves out unlikely notes"
        )
        seed = gr.Number(DEFAULTS.seed, label="Seed", precision=0, elem_id="seed")
        lock = gr.Checkbox(label="Lock the seed", info="The same seed gives the same music", elem_id="lock")
    with gr.Row(elem_id="buttons"):
        go = gr.Button("Continue", variant="primary", min_width=120, elem_id="go")
        stop = gr.Button("Stop", variant="stop", interactive=False, min_width=120, elem_id="stop")
    nothing = gr.HTML(visible=False)
    settings = [length, takes, temperature, top_p, min_p, seed]
    return Parts(upload, choice, start, nothing, settings, lock, go, stop, nothing, nothing)


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
        slider = gr.update(minimum=min(round(piece.midi.first + 0.02, 2), end), maximum=end, value=end)
        return _drawn(session), _lines(piece), slider, ""

    def open_file(upload: str | None, request: gr.Request) -> tuple[Any, ...]:
        """Open a MIDI file, so that it can be continued."""
        session = service.session(request.session_hash or "")
        with _sentences():
            return *shown(session, session.open(Path(upload)) if upload else session.chosen()), None

    def open_shipped(number: str | None, request: gr.Request) -> Any:
        """Open one of the pieces that ship with the program, given by its number."""
        if number is None:  # the list was left without a choice
            return gr.skip()
        session = service.session(request.session_hash or "")
        with _sentences():
            return *shown(session, session.open(shipped()[int(number)].path)), None

    def begin_at(seconds: float, request: gr.Request) -> tuple[Any, ...]:
        """Go on from this second of the file."""
        session = service.session(request.session_hash or "")
        with _sentences():
            piece = session.begin_at(seconds)
        return _drawn(session), _lines(piece)

    outputs = [roll, heard, start, parts.status]
    quiet = {"show_progress": "hidden", "concurrency_limit": None}
    for event, function, other, name in (
        (parts.upload.upload, open_file, parts.shipped, "open"),
        (parts.shipped.input, open_shipped, parts.upload, "open_shipped"),
    ):
        source = parts.upload if name == "open" else parts.shipped
        opened = event(function, source, [*outputs, other], api_name=name, **quiet)
        _with_sound(service, opened, roll)
    start.input(begin_at, start, [roll, heard], api_name="start", trigger_mode="always_last", **quiet)


def _continuing(service: Service, parts: Parts) -> None:
    """Events of a run: begin, grow, stop, sound."""
    buttons, ticket = [parts.go, parts.stop], gr.State(None)

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
        number = seed if locked and seed is not None else secrets.randbelow(2**31)
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
        """Continue the piece that is open; the last result names the files."""
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
        [ticket, parts.settings[-1], *buttons, parts.status],
        concurrency_limit=None,  # not queue=False: the page shows no errors of events that pass the queue by
        **quiet,
    )
    done = begun.success(
        run,
        [ticket, *parts.settings],
        [parts.roll, parts.status],
        api_name="continue",
        show_progress="hidden",
        concurrency_id="model",
        concurrency_limit=1,
    )
    idle = gr.update(interactive=True), gr.update(interactive=False)
    done.then(lambda: idle, None, buttons, queue=False, **quiet)
    done.failure(lambda: "", None, parts.status, queue=False, **quiet)
    _with_sound(service, done, parts.roll)
    _stopping(service, parts.stop)


def _stopping(service: Service, button: gr.Button) -> None:
    """The event that ends a run."""

    def stop(request: gr.Request) -> None:
        """Stop the run; what was made is kept."""
        service.session(request.session_hash or "").stop()

    button.click(stop, None, None, api_name="stop", queue=False, show_progress="hidden")


def _with_sound(service: Service, event: Any, roll: gr.HTML) -> None:
    """After `event`, render what can be heard."""

    def render(request: gr.Request) -> Iterator[Any]:
        """Make the sound of all that has none yet."""
        session = service.session(request.session_hash or "")
        for _ in session.render():
            yield _drawn(session)

    event.success(
        render,
        None,
        roll,
        api_name="render",
        show_progress="hidden",
        concurrency_id="sound",
        concurrency_limit=1,
    )


@contextmanager
def _sentences() -> Iterator[None]:
    """What a user can cause is shown as its sentence; everything on the page stays as it was."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise gr.Error(str(error), duration=30, print_exception=False) from None


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


def _busy() -> tuple[Any, Any]:
    """The buttons while it works: nothing to continue, something to stop."""
    return gr.update(interactive=False), gr.update(interactive=True)


def _request(
    seconds: float, takes: float, temperature: float, top_p: float, min_p: float, seed: float
) -> Request:
    """The settings as a request; ValueError if a value is out of its range."""
    return Request(seconds, int(takes), temperature, top_p, min_p, int(seed))


def _lines(piece: Piece) -> str:
    first, *rest = (html.escape(sentence) for sentence in piece.sentences())
    return f"<p><strong>{first}</strong></p>" + "".join(f"<p>{sentence}</p>" for sentence in rest)


def _bar(text: str, part: float) -> str:
    bar = f'<progress max="1" value="{part:.3f}" aria-label="Progress"></progress>' if text else ""
    return f'<p role="status">{html.escape(text)}</p>{bar}'
