// Plays one finished sound, and tells where it is.

class Player {
  constructor(root, onmove) {
    this.audio = root.querySelector("audio");
    this.button = root.querySelector(".play");
    this.range = root.querySelector(".position");
    this.time = root.querySelector(".time");
    this.onmove = onmove;
    this.button.addEventListener("click", () => (this.audio.paused ? this.audio.play() : this.audio.pause()));
    this.range.addEventListener("input", () => this.seek(Number(this.range.value)));
    for (const name of ["play", "pause", "ended", "loadedmetadata", "seeked"]) {
      this.audio.addEventListener(name, () => this.follow());
    }
  }

  // Play this address from now on, from `home` seconds; null: there is nothing to play.
  load(address, home) {
    if (address === this.address) return;
    this.address = address;
    this.audio.pause();
    if (address) this.audio.src = address;
    else this.audio.removeAttribute("src");
    this.audio.load();
    if (address) this.audio.currentTime = home;
    this.button.disabled = this.range.disabled = !address;
    this.follow();
  }

  get playing() {
    return !this.audio.paused;
  }

  seek(seconds) {
    if (!this.address) return;
    this.audio.currentTime = Math.min(Math.max(seconds, 0), this.audio.duration || seconds);
    this.follow();
  }

  follow() {
    const { audio } = this, length = audio.duration || 0;
    this.button.classList.toggle("playing", !audio.paused);
    this.button.setAttribute("aria-label", audio.paused ? "Play" : "Pause");
    this.range.max = length || 1;
    this.range.value = audio.currentTime;
    this.time.textContent = length ? `${minutes(audio.currentTime)} / ${minutes(length)}` : "0:00";
    this.range.setAttribute("aria-valuetext", this.time.textContent);
    this.onmove(this.address && (audio.currentTime > 0 || !audio.paused) ? audio.currentTime : null);
    cancelAnimationFrame(this.frame);
    if (!audio.paused) this.frame = requestAnimationFrame(() => this.follow());
  }
}
