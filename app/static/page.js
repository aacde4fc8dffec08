// Puts the picture that the server sends (Session.picture) on the roll, the tabs, the player and the links.

const part = (name) => element.querySelector(`.${name}`);
const roll = new Roll(element.querySelector("canvas"), part("line"));
const player = new Player(element, (seconds) => roll.point(seconds));
roll.onseek = (seconds) => player.seek(seconds);
const LEAD = 5; // seconds of the original before a take, to hear how it goes on
let chosen = 0; // 0: the original, else the number of a take
let seen = { piece: 0, run: 0, start: 0 };
let wanted = 0; // the piece whose sound was asked for, to play it when it is there
let parsed = { text: null, notes: [] };

const shown = (picture) => picture.takes.find((take) => take.number === chosen); // undefined: the original

function whole(picture) {
  const take = shown(picture);
  return Math.max(picture.seconds, take ? take.start + take.length : 0);
}

function tabs(picture) {
  const numbers = [0, ...picture.takes.map((take) => take.number)];
  const list = part("tabs");
  while (list.children.length > numbers.length) list.lastChild.remove();
  numbers.forEach((number, i) => {
    let tab = list.children[i];
    if (!tab) {
      tab = document.createElement("button");
      Object.assign(tab, { type: "button" });
      tab.setAttribute("role", "tab");
      tab.addEventListener("click", () => choose(Number(tab.dataset.number)));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = list.children[(i + step + list.children.length) % list.children.length];
        next.focus();
        next.click();
      });
      list.append(tab);
    }
    tab.dataset.number = number;
    tab.textContent = number ? `Take ${number}` : "Original";
    tab.setAttribute("aria-selected", String(number === chosen));
    tab.tabIndex = number === chosen ? 0 : -1;
  });
}

function choose(number) {
  const before = shown(props.value);
  chosen = number;
  show(props.value);
  const now = shown(props.value);
  if (before?.start !== now?.start || before?.length !== now?.length) lookAt(props.value);
}

function lookAt(picture) {
  const take = shown(picture);
  if (take) roll.look(take.start - Math.max(8, take.length / 3), take.start + take.length);
  else roll.look(0, whole(picture));
  const list = part("tabs"), tab = list.querySelector("[aria-selected=true]");
  list.scrollLeft = tab.offsetLeft + tab.offsetWidth - list.clientWidth;
}

function link(name, file) {
  const anchor = part(name);
  anchor.hidden = !file;
  if (!file) return;
  anchor.href = file.url;
  anchor.download = file.orig_name;
}

function sound(picture, take) {
  const { wav, trouble, heard } = take ?? picture;
  const home = take || heard ? Math.max(0, (take ?? picture).start - LEAD) : 0;
  const waiting = take ? take.midi : wanted === picture.piece;
  player.load(wav?.url ?? null, heard, home, !take && !trouble);
  part("sound").textContent = trouble || (wav
    ? `Heard on a piano, without drums${heard ? `, from ${minutes(heard)} on` : ""}.`
    : waiting ? "The sound is on its way ..." : "");
  if (take || !(wav || trouble) || !waiting) return;
  wanted = 0;
  if (wav) player.audio.play();
}

function show(picture) {
  if (!picture) return;
  const run = picture.takes.at(-1)?.run ?? 0;
  const newPiece = picture.piece !== seen.piece;
  const newRun = run && run !== seen.run && (newPiece || !player.playing); // what plays goes on
  const newStart = picture.start !== seen.start && !player.playing; // the original shows where that is
  if (newPiece || newStart) chosen = 0;
  if (newRun) chosen = picture.takes.find((take) => take.run === run).number;
  seen = { piece: picture.piece, run, start: picture.start };
  const take = shown(picture);
  if (!take) chosen = 0;
  if (parsed.text !== picture.notes) parsed = { text: picture.notes, notes: parseNotes(picture.notes) };
  part("empty").hidden = true;
  tabs(picture);
  roll.show(parsed.notes, take ? parseNotes(take.notes + take.sounding) : [], take ? take.start : picture.start, whole(picture));
  if (newPiece || newRun || newStart) lookAt(picture);
  part("made").textContent = take?.made ?? "";
  sound(picture, take);
  link("midi", take?.midi);
  link("wav", take ? take.wav : picture.wav);
}

// A file that is dropped anywhere on the page is uploaded, also in place of the one that is there.
function upload(file) {
  const box = document.getElementById("upload"), files = new DataTransfer();
  files.items.add(file);
  box.querySelector("button[aria-label=Clear]")?.click();
  const give = () => {
    const input = box.querySelector("input[type=file]");
    if (!input) return requestAnimationFrame(give);
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };
  give();
}

for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    event.stopPropagation();
    if (name === "drop" && event.dataTransfer.files.length) upload(event.dataTransfer.files[0]);
  }, true);
}

// On a phone the roll is below the controls: the line that tells how far a run is, and the roll, come into view.
document.addEventListener("click", (event) => {
  if (event.target.closest("#go") && part("stage").getBoundingClientRect().top > innerHeight / 2) {
    document.getElementById("status").scrollIntoView({ behavior: "smooth" });
  }
});
player.onwant = () => {
  wanted = props.value.piece;
  show(props.value);
  trigger("listen");
};
part("in").addEventListener("click", () => roll.zoom(0.5));
part("out").addEventListener("click", () => roll.zoom(2));
part("all").addEventListener("click", () => props.value && roll.look(0, whole(props.value)));
watch("value", () => show(props.value));
show(props.value);
