"""`python -m app`: open the page in the browser."""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from perceiver_ar.registry import DEFAULT


def main(arguments: list[str] | None = None) -> int:
    """Serve the page until it is stopped; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m app", description="Continue MIDI files in the browser.")
    parser.add_argument("--model", default=DEFAULT, metavar="NAME|PATH", help="(default: %(default)s)")
    parser.add_argument(
        "--port",
        type=_port,
        default=os.environ.pop("GRADIO_SERVER_PORT", None),  # of which Gradio would say nothing clear
        help="(default: GRADIO_SERVER_PORT, or the first free from 7860)",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open the browser")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="perceiver-ar-", ignore_cleanup_errors=True) as folder:
        # Gradio reads these when it is imported: nothing is reported, and all files go where they are removed.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            from app.service import Service
            from app.ui import serve

            serve(Service(options.model, Path(folder)), port=options.port, browser=not options.no_browser)
        except (ValueError, OSError) as error:
            print(f"perceiver-ar: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            pass
    return 0


def _port(text: str) -> int:
    if not (text.isdigit() and 0 < int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 1 to {2**16 - 1}")
    return int(text)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a model that is at work aborts loudly when the interpreter goes away beneath it
