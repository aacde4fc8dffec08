"""Exact arithmetic, shapes checked at run time, a browser, and no skips in CI."""

import atexit
import csv
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import chromium
import jax
import midi_builder as build
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_enable_x64", False)
# Most of the tests' time is XLA's compiler, which takes a third less if it does not try to make its programs fast.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
# Programs are compiled once a run, for the processes that tests start too, and the user's cache is left alone.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="perceiver-ar-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", os.environ["XDG_CACHE_HOME"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
SHAPED = ("attention", "cache", "model", "positions", "products", "sampling")
"""Modules of the package whose signatures give shapes."""
install_import_hook(
    [f"perceiver_ar.{name}" for name in SHAPED] + ["training.loss", "training.step"], "beartype.beartype"
)

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with MAESTRO and the other corpora, which are not part of the repository."""
    if not DATA.is_dir():
        pytest.skip("the corpora are not in ../shared/data, and no part of the repository")
    return DATA


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip in MAESTRO's layout, with three pieces to train on and two held out."""
    path = tmp_path_factory.mktemp("archive") / "tiny.zip"
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(["midi_filename", "split"])
    with zipfile.ZipFile(path, "w") as files:
        for number in range(5):
            name = f"2004/piece-{number}.midi"
            rows.writerow([name, "train" if number < 3 else "validation"])
            files.writestr(f"tiny/{name}", build.performance(number))
        files.writestr("tiny/tiny.csv", table.getvalue())
    return path


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model with random weights: what it plays is noise, and there at once."""
    from perceiver_ar.checkpoint import save
    from perceiver_ar.codecs.music import MusicCodec
    from perceiver_ar.config import ModelConfig
    from perceiver_ar.model import PerceiverAR

    codec = MusicCodec()
    config = ModelConfig(
        codec.vocab_size, context=512, latents=64, width=32, layers=2, heads=2, cross_heads=2
    )
    folder = tmp_path_factory.mktemp("models") / "small"
    save(folder, PerceiverAR(config, jax.random.key(0)), codec, "# Small\n\nRandom weights, for tests.\n")
    return folder


@pytest.fixture
def scale(tmp_path: Path) -> Path:
    """A small MIDI file with a name that is not plain."""
    path = tmp_path / "größer 音.MID"
    path.write_bytes(build.SCALE)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A short MIDI file."""
    path = tmp_path / "in.mid"
    path.write_bytes(build.SCALE)
    return path


@pytest.fixture
def run(small_model: Path, capsys: pytest.CaptureFixture[str]) -> Callable:
    """Runs `perceiver-ar continue` in this process: (exit code, stdout, stderr)."""
    from perceiver_ar import cli

    def call(source: Path, output: Path, *more: str) -> tuple[int, str, str]:
        arguments = [
            "continue",
            str(source),
            "-o",
            str(output),
            "--seconds",
            "0.5",
            "--model",
            str(small_model),
        ]
        code = cli.main([*arguments, *more])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """A Playwright browser; `browser.new_page()` opens a tab."""
    from playwright.sync_api import sync_playwright

    path = chromium.find()
    if path is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        # The flags keep Chromium from calling home, which a closed network answers with delays.
        quiet = [
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-quic",
        ]
        opened = playwright.chromium.launch(executable_path=path, args=quiet)
        yield opened
        opened.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """In CI a skipped test is a failed one, unless it lacks data that may not be in the repository."""
    report = yield
    reason = str(call.excinfo.value) if call.excinfo else item.nodeid
    allowed = not os.environ.get("CI") or "no part of the repository" in reason
    if report.skipped and not allowed and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {reason}"
    return report
