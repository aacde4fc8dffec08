"""The page in a browser, as a musician uses it: upload, watch, stop, play, download."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import jax
import midi_builder as build
import pytest
from midi_builder import BAD, SCALE

from perceiver_ar.checkpoint import save
from perceiver_ar.codecs.midi import read_midi
from perceiver_ar.codecs.music import MusicCodec
from perceiver_ar.config import ModelConfig
from perceiver_ar.model import PerceiverAR, from_params, to_params

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ROOT = Path(__file__).parents[1]
ORIGINAL = SCALE[SCALE.index(b"MTrk") :]
PATIENCE = 180_000  # milliseconds: some machines have other things to do
PIXELS = """name => {
  const canvas = document.querySelector("#roll canvas"), pen = document.createElement("canvas").getContext("2d");
  pen.fillStyle = getComputedStyle(canvas).getPropertyValue(name);
  pen.fillRect(0, 0, 1, 1);
  const [r, g, b] = pen.getImageData(0, 0, 1, 1).data;
  const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let found = 0;
  for (let i = 0; i < all.length; i += 4) {
    const [x, y, z] = [all[i], all[i + 1], all[i + 2]];
    if (all[i + 3] > 100 && Math.abs(x - r) + Math.abs(y - g) + Math.abs(z - b) < 60) found++;
  }
  return found;
}"""
"""Pixels of the roll in a colour of the style sheet."""


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of fixed chances that strikes many keys and lets little time pass: there is time to press Stop."""
    codec = MusicCodec()
    config = ModelConfig(
        codec.vocab_size, context=1024, latents=128, width=256, layers=6, heads=4, cross_heads=4
    )
    params = to_params(PerceiverAR(config, jax.random.key(0)))
    params["norm"] = {"scale": 0 * params["norm"]["scale"], "offset": 1 + 0 * params["norm"]["offset"]}
    shifts = slice(codec.time_shift, codec.velocity)
    params["head"] = (0 * params["head"]).at[:, shifts].set(-2 / config.width)
    folder = tmp_path_factory.mktemp("models") / "slow"
    save(folder, from_params(config, params), codec, "# Slow\n")
    return folder


def serve(model: Path | str, folder: Path) -> Iterator[str]:
    """Run `python -m app`; gives its address, and ends it as a terminal would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "app", "--model", str(model), "--no-browser", "--port", str(port)]
    environment = os.environ | {"TMPDIR": str(folder)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(address, process, folder / "log")
            yield address
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    text = (folder / "log").read_text(encoding="utf-8")
    assert "Traceback" not in text, text
    left = [path.name for path in folder.iterdir() if path.name.startswith("perceiver-ar-")]
    assert not left, "the temporary files are removed"


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    while True:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        with suppress(OSError):
            return urllib.request.urlopen(address).close()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def address(slow_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from serve(slow_model, tmp_path_factory.mktemp("served"))


class Page:
    """The page and what a musician does with it."""

    def __init__(self, browser, address: str, **options) -> None:
        self.context = browser.new_context(accept_downloads=True, **options)
        self.tab = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.goto(address)
        self.tab.wait_for_selector("#roll canvas")

    def upload(self, path: Path, *, kept: bool = True) -> None:
        """Upload a file, and wait until it is there, unless it will not be `kept`."""
        clear = self.tab.locator("#upload button[aria-label='Clear']")
        if clear.count():
            clear.click()
        self.tab.set_input_files("#upload input[type=file]", path)
        if kept:
            clear.wait_for(timeout=PATIENCE)

    def drawn(self, pattern: str) -> None:
        """Wait until the roll says that it shows this."""
        script = "pattern => new RegExp(pattern).test(document.querySelector('#roll canvas').ariaLabel)"
        self.tab.wait_for_function(script, arg=pattern, timeout=PATIENCE)

    def says(self, selector: str, words: str) -> None:
        self.tab.locator(selector).filter(has_text=words).first.wait_for(timeout=PATIENCE)

    def ask(self, **numbers: float) -> None:
        for name, number in numbers.items():
            self.tab.fill(f"#{name} input[type=number]", str(number))
            self.tab.press(f"#{name} input[type=number]", "Tab")

    def download(self, name: str, folder: Path) -> Path:
        with self.tab.expect_download() as started:
            self.tab.click(f"#roll a.{name}", timeout=PATIENCE)
        path = folder / started.value.suggested_filename
        started.value.save_as(path)
        return path


@pytest.fixture
def page(browser, address: str) -> Iterator[Page]:
    page = Page(browser, address)
    yield page
    page.context.close()
    assert not page.errors
    outside = [url for url in page.requests if not url.startswith((address, "data:", "blob:"))]
    assert page.requests and not outside, "nothing leaves this machine"


@pytest.fixture
def scale(tmp_path: Path) -> Path:
    path = tmp_path / "größer 音.MID"
    path.write_bytes(SCALE)
    return path


def test_upload_watch_stop_finish_play_and_download(page: Page, scale: Path, tmp_path: Path) -> None:
    page.upload(scale)
    page.drawn("24 notes of the original, 0 new")
    page.says("#heard", "größer 音.MID, 6.0 s")
    assert page.tab.evaluate(PIXELS, "--old") > 100
    assert page.tab.evaluate(PIXELS, "--new") == 0

    page.ask(length=300, takes=2)
    page.tab.click("#go")
    page.drawn("24 notes of the original, [1-9][0-9]* new")
    assert page.tab.evaluate(PIXELS, "--new") > 10
    assert "of 300 s of music" in page.tab.inner_text("#status")
    assert not page.tab.is_visible("#roll a.midi"), "it is still being made"
    assert page.tab.is_disabled("#start input[type=range]"), "what it goes on from stays"
    page.tab.evaluate(
        """() => new MutationObserver((_, watch) => {
          if (document.querySelector("#status").innerText.includes("Stopping ...")) window.answered = true;
        }).observe(document.querySelector("#status"), {subtree: true, childList: true, characterData: true})"""
    )
    page.tab.click("#stop")
    page.says("#status", "Stopped: ")
    assert page.tab.evaluate("window.answered"), "it is said at once, the end may take seconds"
    page.tab.wait_for_selector("#start input[type=range]:enabled", timeout=PATIENCE)
    kept = page.download("midi", tmp_path)
    assert kept.name == "größer 音-continued-1.mid"
    assert ORIGINAL in kept.read_bytes()
    assert read_midi(kept).notes > 24

    page.ask(length=5, takes=1)
    page.tab.click("#go")
    page.says("#status", "Done: 5.0 of 5 s of music")
    finished = page.download("midi", tmp_path)
    assert finished.name == "größer 音-continued-3.mid", "those of the run before stay"
    assert ORIGINAL in finished.read_bytes()
    sound = page.download("wav", tmp_path)
    assert sound.name == "größer 音-continued-3.wav" and sound.read_bytes()[:4] == b"RIFF"
    page.tab.click("#roll .play")
    page.tab.wait_for_function("document.querySelector('#roll audio').currentTime > 1.5", timeout=PATIENCE)
    assert page.tab.is_visible("#roll .line"), "a line moves over the roll"

    page.tab.click("#roll [role=tab] >> text=Take 1")
    page.says("#roll .made", "From 6.0 s on, seed ")
    page.tab.locator("#roll .play:enabled").wait_for(timeout=PATIENCE)
    page.tab.click("#roll .play")
    page.tab.click("#go")
    page.tab.locator("#roll [role=tab]").filter(has_text="Take 4").wait_for(timeout=PATIENCE)
    assert not page.tab.evaluate("document.querySelector('#roll audio').paused"), "what plays goes on"
    assert page.download("midi", tmp_path).name == "größer 音-continued-1.mid"
    page.tab.click("#roll .play")
    assert page.tab.evaluate("document.querySelector('#roll audio').paused")


def test_an_earlier_start_point(page: Page, scale: Path, tmp_path: Path) -> None:
    page.upload(scale)
    page.drawn("24 notes")
    page.ask(start=99)
    page.says("#heard", "from its end")
    page.ask(start=3, length=5)
    page.drawn("12 notes of the original")
    page.says("#heard", "from 3.0 s")
    page.tab.click("#go")
    page.says("#status", "Done")
    page.tab.wait_for_selector("#start input[type=range]:enabled", timeout=PATIENCE)
    page.drawn("12 notes of the original, [1-9][0-9]* new")
    page.ask(start=2)
    page.drawn("8 notes of the original, 0 new")
    page.says("#heard", "from 2.0 s")
    page.tab.click("#roll [role=tab] >> text=Take 1")
    page.drawn("12 notes of the original, [1-9][0-9]* new")
    path = page.download("midi", tmp_path)
    assert ORIGINAL not in path.read_bytes()
    assert read_midi(path).first == read_midi(SCALE).first


def test_a_locked_seed_gives_the_same_file(page: Page, scale: Path, tmp_path: Path) -> None:
    page.upload(scale)
    page.drawn("24 notes")
    page.ask(length=5)
    page.tab.click("text=More settings")
    seeds, files = [], []
    for run in range(3):
        page.tab.locator("#lock input").set_checked(run == 1)
        page.tab.click("#go")
        page.tab.locator("#go:disabled").wait_for()
        page.says("#status", "Done")
        page.tab.locator("#go:enabled").wait_for()
        seeds.append(page.tab.input_value("#seed input"))
        files.append(page.download("midi", tmp_path).read_bytes())
    assert seeds[0] == seeds[1] != seeds[2]
    assert files[0] == files[1] != files[2]
    page.tab.fill("#seed input", seeds[0])
    page.tab.locator("#lock input:checked").wait_for()
    page.tab.click("#go")
    page.tab.locator("#go:disabled").wait_for()
    page.says("#status", "Done")
    assert page.download("midi", tmp_path).read_bytes() == files[0], "who types a seed means it"


def test_bad_files_get_a_sentence_and_the_piece_stays(page: Page, scale: Path, tmp_path: Path) -> None:
    page.tab.click("#go")
    page.says(".toast-body", "upload a MIDI file")
    page.upload(scale)
    page.drawn("24 notes")
    for name, (data, words) in BAD.items():
        path = tmp_path / f"{name}.mid"
        path.write_bytes(data)
        page.upload(path, kept=False)
        page.says(".toast-body", words or "export it again")
        page.tab.locator("#upload input[type=file]").wait_for(state="attached")  # nothing is chosen
    huge = tmp_path / "huge.mid"
    with huge.open("wb") as file:
        file.truncate(12_000_000)
    page.upload(huge, kept=False)
    page.says(".toast-body", "has 12.0 MB, and the most that can be read is 2 MB")
    page.says("#heard", scale.name)
    page.tab.locator("#upload input[type=file]").wait_for(state="attached")
    page.upload(scale)
    page.tab.evaluate(
        """data => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(data)], "dropped.kar"));
          const drop = new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true});
          document.querySelector("#roll canvas").dispatchEvent(drop);
        }""",
        list(build.midi(build.track(*build.melody(range(50, 80))))),
    )
    page.drawn("30 notes of the original")
    page.says("#heard", "dropped.kar")
    assert "Traceback" not in page.tab.content()


def test_a_shipped_piece_can_be_played_before_the_run(page: Page) -> None:
    page.tab.click("#shipped input")
    options = page.tab.locator("#shipped [role=option], [role=listbox] [role=option]")
    options.first.wait_for()
    assert options.count() >= 4
    options.nth(1).click()
    page.drawn("[1-9][0-9]* notes of the original")
    page.tab.locator("#roll .play:enabled").wait_for(timeout=PATIENCE)
    page.tab.click("#roll .play")
    page.tab.wait_for_function("document.querySelector('#roll audio').currentTime > 0.5", timeout=PATIENCE)


def test_one_run_at_a_time_and_stopping_one_leaves_the_other(
    page: Page, browser, address: str, scale: Path
) -> None:
    other = Page(browser, address, viewport={"width": 390, "height": 844}, color_scheme="dark")
    for one in (page, other):
        one.upload(scale)
        one.drawn("24 notes")
        one.ask(length=300)
    page.tab.click("#go")
    page.drawn("[1-9][0-9]* new")
    other.tab.click("#go")
    other.says("#status", "Waiting for its turn")
    other.tab.click("#stop")
    other.says("#status", "Stopped before there was any music")
    assert other.tab.is_enabled("#go")
    before = page.tab.inner_text("#status")
    page.tab.wait_for_function(
        "before => document.querySelector('#status').innerText !== before", arg=before, timeout=PATIENCE
    )
    assert "Stopped" not in page.tab.inner_text("#status")
    page.tab.click("#stop")
    page.says("#status", "Stopped: ")
    assert other.tab.evaluate("document.documentElement.scrollWidth") <= 390, "it fits a phone"
    other.context.close()


def test_over_http(address: str, scale: Path, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False, download_files=tmp_path / "downloads")
    with pytest.raises(Exception, match="There is no music yet"):
        client.predict(3.0, api_name="/start")
    picture, heard, *_ = client.predict(handle_file(str(scale)), api_name="/open")
    assert "the model hears all of it" in heard and picture["name"].endswith(".MID")
    picture, status = client.predict(5, 2, 1.0, 1.0, 0.02, 7, api_name="/continue")
    assert "Done" in status
    assert [bool(take["midi"]) for take in picture["takes"]] == [True, True]
    with pytest.raises(Exception, match="seed must be between 0 and"):
        client.predict(5, 1, 1.0, 1.0, 0.02, -1, api_name="/continue")
    with pytest.raises(Exception, match="Takes: give a number from 1 to 4, not 5"):
        client.predict(5, 5, 1.0, 1.0, 0.02, 7, api_name="/continue")
    with pytest.raises(Exception, match=r"takes must be a whole number, not 1\.7"):
        client.predict(5, 1.7, 1.0, 1.0, 0.02, 7, api_name="/continue")
    client.close()


def test_the_shipped_model_continues_a_performance(browser, tmp_path: Path) -> None:
    source = tmp_path / "melody.mid"
    source.write_bytes(build.midi(build.track(*build.melody(range(50, 80)))))
    for address in serve("piano", tmp_path):
        page = Page(browser, address)
        page.upload(source)
        page.drawn("30 notes")
        page.ask(length=10)
        page.tab.click("#go")
        page.says("#status", "Done: 10.0 of 10 s of music")
        path = page.download("midi", tmp_path)
        assert source.read_bytes()[14:] in path.read_bytes()
        page.context.close()
