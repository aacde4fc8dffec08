// Puts the picture that the server sends (Session.picture) on the roll, the tabs, the player and the links.

const part = (name) => element.querySelector(`.${name}`);
const roll = new Roll(element.querySelector("canvas"), part("line"));
const player = new Player(element, (seconds) => roll.point(seconds));
roll.onseek = (seconds) => player.seek(seconds);
const LEAD = 5; // seconds of the original before a take, to hear how it goes on
let chosen = 0; // 0: the original, else the number of a take
let seen = { piece: 0, run: 0 };
let parsed = { text: null, notes: [] };

function whole(picture) {
  const run = picture.run;
  return Math.max(picture.seconds, chosen && run ? run.start + run.length : 0);
}

function tabs(picture) {
  const names = ["Original"].concat((picture.run?.takes ?? []).map((take, i) =>
    picture.run.takes.length > 1 ? `Take ${i + 1}` : "Continued"));
  const list = part("tabs");
  while (list.children.length > names.length) list.lastChild.remove();
  names.forEach((name, i) => {
    let tab = list.children[i];
    if (!tab) {
      tab = document.createElement("button");
      Object.assign(tab, { type: "button" });
      tab.setAttribute("role", "tab");
      tab.addEventListener("click", () => choose(i));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = list.children[(i + step + list.children.length) % list.children.length];
        next.focus();
        next.click();
      });
      list.append(tab);
    }
    tab.textContent = name;
    tab.setAttribute("aria-selected", String(i === chosen));
    tab.tabIndex = i === chosen ? 0 : -1;
  });
}

function choose(number) {
  const other = !number !== !chosen;
  chosen = number;
  show(props.value);
  if (other) lookAt(props.value);
}

function lookAt(picture) {
  const run = chosen && picture.run;
  if (run) roll.look(run.start - Math.max(8, run.length / 3), run.start + run.length);
  else roll.look(0, whole(picture));
}

function link(name, file) {
  const anchor = part(name);
  anchor.hidden = !file;
  if (!file) return;
  anchor.href = file.url;
  anchor.download = file.orig_name;
}

function sound(picture, take) {
  const { wav, trouble } = take ?? picture;
  player.load(wav?.url ?? null, take ? Math.max(0, picture.run.start - LEAD) : 0);
  const growing = take && picture.run.running;
  part("sound").textContent = trouble || (wav || growing ? "" : "The sound is on its way ...");
}

function show(picture) {
  if (!picture) return;
  const run = picture.run;
  const newPiece = picture.piece !== seen.piece, newRun = run && run.number !== seen.run;
  if (newPiece) chosen = 0;
  if (newRun) chosen = 1;
  seen = { piece: picture.piece, run: run?.number ?? 0 };
  if (!run || chosen > run.takes.length) chosen = 0;
  const take = chosen ? run.takes[chosen - 1] : null;
  if (parsed.text !== picture.notes) parsed = { text: picture.notes, notes: parseNotes(picture.notes) };
  part("empty").hidden = true;
  tabs(picture);
  roll.show(parsed.notes, take ? parseNotes(take.notes + take.sounding) : [], take ? run.start : picture.start, whole(picture));
  if (newPiece || newRun) lookAt(picture);
  sound(picture, take);
  link("midi", take?.midi);
  link("wav", take ? take.wav : picture.wav);
}

part("in").addEventListener("click", () => roll.zoom(0.5));
part("out").addEventListener("click", () => roll.zoom(2));
part("all").addEventListener("click", () => props.value && roll.look(0, whole(props.value)));
watch("value", () => show(props.value));
show(props.value);
