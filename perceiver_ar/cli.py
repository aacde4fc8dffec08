"""`perceiver-ar continue | info | models`: exit code 0 done, 2 not possible as asked, 130 stopped."""

import argparse
import contextlib
import json
import os
import secrets
import sys
import tempfile
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from perceiver_ar.interrupts import insistent
from perceiver_ar.registry import DEFAULT, MODELS, asset
from perceiver_ar.report import ProgressLine, described, facts, heard, nowhere, say, sentence

if TYPE_CHECKING:
    from perceiver_ar.checkpoint import Pretrained
    from perceiver_ar.codecs.midi import MidiFile, Primer
    from perceiver_ar.continuation import Progress, Request

STOPPED = 130
"""Exit code of what a signal stopped, by convention."""


class Failure(Exception):
    """Not possible as asked; the message says what is wrong and what to do."""


@insistent()
def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    sys.stderr = sys.stderr or nowhere()  # what is printed to None goes to stdout
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may have what the encoding lacks
    options = _parser().parse_args(arguments)
    try:
        code = options.run(options)
        print(end="", flush=True)  # rather here than where nothing can be said of it
        return code
    except KeyboardInterrupt:
        say("stopped")
        return STOPPED
    except BrokenPipeError:  # whoever read stdout has gone
        sys.stdout = nowhere()
        return 0
    except (Failure, ValueError, OSError) as error:
        say(f"perceiver-ar: {sentence(error)}")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="perceiver-ar", description="Continue a MIDI file, primed by the whole piece (Perceiver AR)."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    one = commands.add_parser("continue", help="continue a MIDI file", description="Continue a MIDI file.")
    one.set_defaults(run=_continue)
    one.add_argument("midi", metavar="IN.mid", type=Path)
    one.add_argument("-o", "--output", metavar="OUT.mid", type=Path, required=True)
    one.add_argument(
        "--seconds", type=float, default=30.0, help="length of the continuation (%(default)g; at most 600)"
    )
    one.add_argument(
        "--takes", type=int, default=1, help="how many, as OUT-1.mid, OUT-2.mid ... (%(default)d; at most 16)"
    )
    one.add_argument("--start", type=float, metavar="SECONDS", help="go on from here, not from the end")
    one.add_argument("--temperature", type=float, help="above 1 bolder, below 1 safer; 0: the likeliest (1)")
    one.add_argument("--top-p", type=float, help="draw from the likeliest tokens that make up this part (1)")
    one.add_argument(
        "--min-p", type=float, help="leave out tokens less likely than this part of the likeliest (0.005)"
    )
    one.add_argument(
        "--seed", type=int, help="the same seed gives the same music (default: another each time)"
    )
    one.add_argument(
        "--model", default=DEFAULT, metavar="NAME|PATH", help="see `perceiver-ar models` (%(default)s)"
    )
    one.add_argument("--wav", action="store_true", help="write the sound too, as OUT.wav")
    one.add_argument("--continuation-only", action="store_true", help="leave the original out of the result")
    one.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    two = commands.add_parser(
        "info",
        help="what is in a MIDI file, and what of it would prime the model",
        description="Say what is in a MIDI file, what of it would prime the model, and what is wrong with it.",
    )
    two.set_defaults(run=_info)
    two.add_argument("midi", metavar="FILE", type=Path)
    two.add_argument("--start", type=float, metavar="SECONDS", help="as for continue")
    two.add_argument("--model", default=DEFAULT, metavar="NAME|PATH")
    two.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    three = commands.add_parser(
        "models", help="the models there are", description="List the models there are."
    )
    three.set_defaults(run=_models)
    three.add_argument("--json", action="store_true", help="print one JSON list on stdout")
    return parser


def _continue(options: argparse.Namespace) -> int:
    from perceiver_ar.codecs.midi import read_midi

    midi = read_midi(options.midi)
    request = _request(options)
    outputs = _outputs(options, midi)
    pretrained, primer = _prepare(options, midi)
    from perceiver_ar.continuation import prime

    priming = prime(pretrained.config, pretrained.music, primer.tokens)
    say(f"primed by {heard(priming)}; seed {request.seed}")
    progress, stopped = _generate(pretrained, primer, request)
    if not progress.tokens:
        raise KeyboardInterrupt
    files: list[Path] = []
    try:
        _write(options, midi, primer, progress, outputs, files)
    finally:  # what was written is told, whatever ended that
        for path in files:
            say(f"wrote {path}")
        if options.json:
            values = {
                "seed": request.seed,
                "model": pretrained.name,
                "primer_tokens": priming.used,
                "primer_tokens_total": priming.total,
                "seconds": round(progress.seconds, 2),
                "notes": progress.notes,
                "tokens_per_second": round(progress.tokens_per_second, 1),
                "realtime_factor": round(progress.realtime_factor, 3),
                "files": [str(path) for path in files],
            }
            print(json.dumps(values))
    return STOPPED if stopped else 0


def _request(options: argparse.Namespace) -> "Request":
    """What was asked for; ValueError if a value is out of its range."""
    from perceiver_ar.continuation import Request

    asked = {
        name: getattr(options, name) for name in ("seconds", "takes", "temperature", "top_p", "min_p", "seed")
    }
    given = {name: value for name, value in asked.items() if value is not None}
    return Request(**{"seed": secrets.randbelow(2**31)} | given)


def _outputs(options: argparse.Namespace, midi: "MidiFile") -> list[Path]:
    """One path a take; what cannot be written is found before the music is made, not after."""
    output: Path = options.output
    if output.suffix.lower() not in {".mid", ".midi"}:
        raise Failure(f"{str(output)!r} does not end in .mid; choose an output path that does")
    if not output.parent.is_dir():
        raise Failure(
            f"there is no folder {str(output.parent)!r}; make it first, or choose another output path"
        )
    paths = [output]
    if options.takes > 1:
        paths = [output.with_stem(f"{output.stem}-{number}") for number in range(1, options.takes + 1)]
    sounds = [path.with_suffix(".wav") for path in paths if options.wav]
    for path in paths + sounds:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "no ordinary file"
            raise Failure(f"{str(path)!r} is {kind}; choose another output path")
        if path.exists() and not os.access(path, os.W_OK):
            raise Failure(f"{str(path)!r} cannot be written; choose another output path")
        with contextlib.suppress(OSError):
            if path.samefile(options.midi):
                raise Failure(
                    "the output is the input file, which is never overwritten; choose another output path"
                )
    for folder in sorted({Path(os.path.realpath(path)).parent for path in paths + sounds}):
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise Failure(
                f"nothing can be written to {str(folder)!r} ({error.strerror}); choose another output path"
            ) from error
    if sounds:
        from perceiver_ar.render import MAX_SECONDS

        begin = midi.seconds if options.start is None else min(options.start, midi.seconds)
        if begin + options.seconds > MAX_SECONDS and not options.continuation_only:
            raise Failure(
                f"at most {MAX_SECONDS // 60} minutes can be made audible, and original and continuation are longer; "
                "leave --wav out, or give --continuation-only"
            )
    return paths


def _prepare(options: argparse.Namespace, midi: "MidiFile") -> tuple["Pretrained", "Primer"]:
    """The loaded model and the primer."""
    from perceiver_ar.checkpoint import load
    from perceiver_ar.continuation import keep_compiled_programs

    keep_compiled_programs()
    pretrained = load(options.model)
    return pretrained, midi.primer(pretrained.music, options.start)


def _generate(pretrained: "Pretrained", primer: "Primer", request: "Request") -> tuple["Progress", bool]:
    """The last progress, and whether a signal stopped the run; what was made by then is kept."""
    from perceiver_ar.continuation import continue_music

    run = continue_music(pretrained, primer.tokens, request)
    progress = next(run)
    with ProgressLine(request.seconds) as line:
        try:
            for progress in run:
                line.show(progress)
        except KeyboardInterrupt:
            run.close()
            return progress, True
    return progress, False


def _write(
    options: argparse.Namespace,
    midi: "MidiFile",
    primer: "Primer",
    progress: "Progress",
    outputs: list[Path],
    files: list[Path],
) -> None:
    """Write the files, and put each into `files`: all music is there before any of it is made audible.

    Music that cannot be written to its place, as that has gone or is full, is kept in a temporary folder.
    """
    from perceiver_ar.codecs.midi import MidiError, write_continuation

    cut = None if options.start is None else primer.start
    takes = [take.all(limit=options.seconds) for take in progress.takes]

    def write(paths: list[Path]) -> None:
        for path, notes in zip(paths, takes[len(files) :], strict=True):
            write_continuation(path, midi, notes, primer.start, cut=cut, only=options.continuation_only)
            files.append(path)

    try:
        write(outputs)
    except MidiError as error:
        folder = Path(tempfile.mkdtemp(prefix="perceiver-ar-"))
        write([folder / path.name for path in outputs[len(files) :]])
        raise Failure(f"{error} The music is in {str(folder)!r} instead.") from error
    if options.wav:
        from perceiver_ar.render import write_wav

        for path in outputs:
            sound = path.with_suffix(".wav")
            write_wav(sound, path.read_bytes())
            files.insert(files.index(path) + 1, sound)


def _info(options: argparse.Namespace) -> int:
    from perceiver_ar.codecs.midi import read_midi

    midi = read_midi(options.midi)
    from perceiver_ar.checkpoint import music, read_codec, read_config
    from perceiver_ar.continuation import prime
    from perceiver_ar.registry import resolve

    folder = resolve(options.model)
    codec = music(read_codec(folder))
    primer = midi.primer(codec, options.start)
    priming = prime(read_config(folder), codec, primer.tokens)
    if options.json:
        print(json.dumps(facts(midi, primer, priming)))
        return 0
    for line in described(midi, primer, priming):
        print(line)
    return 0


def _models(options: argparse.Namespace) -> int:
    found = []
    for model in MODELS:
        folder = asset(model.name)
        found.append(
            {
                "name": model.name,
                "default": model.default,
                "description": model.description,
                "context": model.context,
                "licence": model.licence,
                "sha256": model.sha256,
                "bytes": sum(path.stat().st_size for path in folder.iterdir()),
                "folder": str(folder),
            }
        )
    if options.json:
        print(json.dumps(found))
        return 0
    for model in found:
        star = " (default)" if model["default"] else ""
        print(f"{model['name']}{star}: {model['description']}")
        print(f"  context {model['context']:,} tokens, {model['bytes'] / 1e6:.1f} MB, {model['licence']}")
        print(f"  {model['folder']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
