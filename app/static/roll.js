// A piano roll on a canvas. Notes are numbers in a row: pitch, velocity, start, length, in hundredths of a second.

const BLACK_KEYS = new Set([1, 3, 6, 8, 10]);

function parseNotes(text) {
  return text ? text.trim().split(/\s+/).map(Number) : [];
}

class Roll {
  constructor(canvas, line) {
    this.canvas = canvas;
    this.line = line;
    this.old = [];
    this.fresh = [];
    this.cut = Infinity; // seconds: where the original ends and the new notes begin
    this.end = 1;
    this.window = [0, 1];
    this.low = 48;
    this.high = 84;
    this.onseek = () => {};
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.listen();
  }

  // Show these notes; both are arrays as parseNotes gives them.
  show(old, fresh, cut, end) {
    Object.assign(this, { old, fresh, cut, end });
    let low = 127, high = 0;
    for (const notes of [old, fresh]) {
      for (let i = 0; i < notes.length; i += 4) {
        low = Math.min(low, notes[i]);
        high = Math.max(high, notes[i]);
      }
    }
    const spare = Math.max(0, 36 - (high - low)) / 2;
    this.low = Math.max(0, Math.floor(low - spare) - 2);
    this.high = Math.min(127, Math.ceil(high + spare) + 2);
    const kept = old.filter((x, i) => i % 4 === 2 && x < cut * 100).length;
    this.canvas.setAttribute("aria-label", `Piano roll: ${kept} notes of the original, ${fresh.length / 4} new notes`);
    this.draw();
  }

  look(from, to) {
    const length = Math.min(Math.max(to - from, 2), this.end + 1);
    const begin = Math.min(Math.max(from, 0), Math.max(0, this.end + 1 - length));
    this.window = [begin, begin + length];
    this.draw();
  }

  zoom(factor, around) {
    const [from, to] = this.window;
    const middle = around ?? (from + to) / 2;
    this.look(middle - (middle - from) * factor, middle + (to - middle) * factor);
  }

  // Move the position line, and the window with it.
  point(seconds) {
    const [from, to] = this.window;
    if (seconds !== null && !this.dragging && (seconds > to || seconds < from)) {
      this.look(seconds - (to - from) * 0.05, seconds + (to - from) * 0.95);
    }
    this.position = seconds;
    this.place();
  }

  place() {
    const x = this.position === null || this.position === undefined ? -1 : this.x(this.position);
    this.line.hidden = x < 0 || x > this.canvas.clientWidth;
    this.line.style.transform = `translateX(${x}px)`;
  }

  x(seconds) {
    const [from, to] = this.window;
    return ((seconds - from) / (to - from)) * this.canvas.clientWidth;
  }

  seconds(x) {
    const [from, to] = this.window;
    return from + (x / this.canvas.clientWidth) * (to - from);
  }

  draw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.paint();
      this.place();
    });
  }

  paint() {
    const { canvas } = this, ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const style = getComputedStyle(canvas);
    const color = (name) => style.getPropertyValue(name).trim();
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const key = height / (this.high - this.low + 1);
    const y = (pitch) => (this.high - pitch) * key;
    if (!this.old.length) return;
    this.paintGrid(pen, width, height, y, key, color);
    this.paintNotes(pen, this.old, y, key, color("--old"), this.cut);
    this.paintNotes(pen, this.fresh, y, key, color("--new"), Infinity);
    const cut = this.x(this.cut);
    if (this.cut < Infinity && cut >= 0 && cut <= width) {
      pen.fillStyle = color("--cut");
      pen.fillRect(cut - 0.5, 0, 1, height);
    }
  }

  paintGrid(pen, width, height, y, key, color) {
    pen.fillStyle = color("--black-key");
    for (let pitch = this.low; pitch <= this.high; pitch++) {
      if (BLACK_KEYS.has(pitch % 12)) pen.fillRect(0, y(pitch), width, key);
    }
    pen.font = "11px system-ui, sans-serif";
    const [from, to] = this.window;
    const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].find((s) => (s / (to - from)) * width > 64) ?? 7200;
    for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
      pen.fillStyle = color("--grid");
      pen.fillRect(this.x(t), 0, 1, height);
      pen.fillStyle = color("--label");
      if (this.x(t) + 4 + pen.measureText(minutes(t)).width <= width) pen.fillText(minutes(t), this.x(t) + 4, height - 5);
    }
    for (let pitch = Math.ceil(this.low / 12) * 12; pitch <= this.high; pitch += 12) {
      pen.fillStyle = color("--grid");
      pen.fillRect(0, y(pitch) + key, width, 1);
      pen.fillStyle = color("--label");
      if (y(pitch) + key < height - 18) pen.fillText(`C${pitch / 12 - 1}`, 4, y(pitch) + key - 3);
    }
  }

  // Loud notes are strong, soft ones pale; what lies behind the cut is not heard, and faint.
  paintNotes(pen, notes, y, key, color, cut) {
    const [from, to] = this.window;
    const height = Math.max(key - 1, 2);
    pen.fillStyle = color;
    for (let i = 0; i < notes.length; i += 4) {
      const start = notes[i + 2] / 100, end = start + notes[i + 3] / 100;
      if (end < from || start > to) continue;
      const x = this.x(start), stop = this.x(start < cut ? Math.min(end, cut) : end);
      pen.globalAlpha = start >= cut ? 0.15 : 0.45 + (0.55 * notes[i + 1]) / 127;
      pen.fillRect(x, y(notes[i]), Math.max(stop - x - 0.5, 1.5), height);
    }
    pen.globalAlpha = 1;
  }

  // Drag to move, click to set the position, Ctrl and wheel or keys to zoom.
  listen() {
    const { canvas } = this;
    let pressed = null;
    canvas.addEventListener("pointerdown", (event) => {
      pressed = { x: event.clientX, window: this.window };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!pressed || (!this.dragging && Math.abs(event.clientX - pressed.x) < 5)) return;
      this.dragging = true;
      const [from, to] = pressed.window;
      const moved = ((event.clientX - pressed.x) / canvas.clientWidth) * (to - from);
      this.look(from - moved, to - moved);
    });
    const release = (event) => {
      if (pressed && !this.dragging && event.type === "pointerup") this.onseek(this.seconds(event.offsetX));
      pressed = null;
      this.dragging = false;
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("wheel", (event) => {
      const [from, to] = this.window;
      if (event.ctrlKey) this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.seconds(event.offsetX));
      else if (event.deltaX) this.look(from + (event.deltaX / canvas.clientWidth) * (to - from), to + (event.deltaX / canvas.clientWidth) * (to - from));
      else return;
      event.preventDefault();
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const [from, to] = this.window, tenth = (to - from) / 10;
      const act = {
        ArrowLeft: () => this.look(from - tenth, to - tenth),
        ArrowRight: () => this.look(from + tenth, to + tenth),
        "+": () => this.zoom(0.5),
        "-": () => this.zoom(2),
      }[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    });
  }
}

function minutes(seconds) {
  const whole = Math.floor(seconds + 1e-6);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
