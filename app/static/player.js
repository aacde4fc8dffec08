// Plays one finished sound, and tells where it is.

class Player {
  constructor(root, onmove) {
    this.audio = root.querySelector("audio");
    this.button = root.querySelector(".play");
    this.range = root.querySelector(".position");
    this.time = root.querySelector(".time");
    this.onmove = onmove;
    this.onwant = () => {};
    this.begin = 0; // seconds of the file at which the sound begins; all others here are the file's too
    this.button.addEventListener("click", () => {
      if (!this.address) this.onwant();
      else if (this.audio.paused) this.audio.play();
      else this.audio.pause();
    });
    this.range.addEventListener("input", () => this.seek(Number(this.range.value)));
    for (const name of ["play", "pause", "ended", "loadedmetadata", "seeked"]) {
      this.audio.addEventListener(name, () => this.follow());
    }
  }

  // Play this address from now on, from `home` seconds; null: there is nothing to play, unless it can be `made`.
  load(address, begin, home, made) {
    this.button.disabled = !address && !made;
    if (address === this.address) return;
    this.address = address;
    this.begin = begin;
    this.audio.pause();
    if (address) this.audio.src = address;
    else this.audio.removeAttribute("src");
    this.audio.load();
    if (address) this.audio.currentTime = home - begin;
    this.range.disabled = !address;
    this.follow();
  }

  get playing() {
    return !this.audio.paused;
  }

  seek(seconds) {
    if (!this.address) return;
    this.audio.currentTime = Math.min(Math.max(seconds - this.begin, 0), this.audio.duration || Infinity);
    this.follow();
  }

  follow() {
    const { audio, begin } = this, end = audio.duration ? begin + audio.duration : 0;
    const now = begin + audio.currentTime;
    this.button.classList.toggle("playing", !audio.paused);
    this.button.setAttribute("aria-label", audio.paused ? "Play" : "Pause");
    this.range.min = begin;
    this.range.max = end || begin + 1;
    this.range.value = now;
    this.time.textContent = end ? `${minutes(now)} / ${minutes(end)}` : "0:00";
    this.range.setAttribute("aria-valuetext", this.time.textContent);
    this.onmove(this.address && (audio.currentTime > 0 || !audio.paused) ? now : null);
    cancelAnimationFrame(this.frame);
    if (!audio.paused) this.frame = requestAnimationFrame(() => this.follow());
  }
}
