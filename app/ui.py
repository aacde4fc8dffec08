"""The page as a whole: its frame, its looks, and how it is served."""

from pathlib import Path

import gradio as gr
from gradio.themes import Base

from app.midi_tab import midi_tab
from app.service import Service

STATIC = Path(__file__).parent / "static"
LARGEST_UPLOAD = 200_000_000
"""Bytes. The reader refuses much less, also recordings, and says what to do; this only keeps the disk free."""


def page(service: Service) -> gr.Blocks:
    """The page, not yet served."""
    with gr.Blocks(title="Perceiver AR", analytics_enabled=False, delete_cache=(3600, 86_400)) as blocks:
        gr.HTML(
            "<h1>Perceiver AR</h1><p>Plays on from your MIDI file, having heard up to seven minutes of it. "
            "New notes keep no bar or beat of the file, and the pulse may drift.</p>",
            elem_id="heading",
        )
        midi_tab(service)

        def leave(request: gr.Request) -> None:
            service.close(request.session_hash or "")

        blocks.unload(leave)
    return blocks


def serve(service: Service, *, port: int | None = None, browser: bool = True) -> None:
    """Serve the page on this machine alone, until it is interrupted; OSError if the port is in use."""
    blocks = page(service)
    try:
        _, address, _ = blocks.launch(
            server_name="127.0.0.1",
            server_port=port,
            inbrowser=browser,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            max_file_size=LARGEST_UPLOAD,
            footer_links=["api"],
            run_history=False,
            state_session_capacity=1000,  # Gradio's own: 70 kB each, and far more than a service keeps
            # Fonts of the machine: nothing is fetched.
            theme=Base(
                primary_hue="orange",
                font=["system-ui", "sans-serif"],
                font_mono=["ui-monospace", "monospace"],
            ),
            css_paths=STATIC / "page.css",
        )
    except OSError as error:
        raise OSError("The port is in use; choose another with --port.") from error
    print(f"The page is at {address} (Ctrl-C ends it)", flush=True)
    blocks.block_thread()
