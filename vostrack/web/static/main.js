/** Puts the page together: what is shown follows the server's state, and what is done goes to it in order. */

import * as api from "./api.js";
import { listed, question, title } from "./objects.js";
import { listen } from "./pointer.js";
import { Timeline, olderText } from "./timeline.js";
import { TOOLS } from "./tools.js";
import { View } from "./view.js";

/** @template {HTMLElement} T @param {string} id @returns {T} */
const at = (id) => /** @type {T} */ (document.getElementById(id));
const input = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (at(id));
const button = (/** @type {string} */ id) => /** @type {HTMLButtonElement} */ (at(id));

/** @type {api.State} */
let state = await api.state();
/** @type {api.Findings} */
let findings = { confidence: {}, suggested: [], cuts: [] };
/** What was looked at before the page was loaded again. */
const kept = JSON.parse(sessionStorage.getItem(state.out) ?? "{}");
let frame = 0;
let chosen = state.things.find(({ id }) => id === kept.chosen)?.id ?? state.things[0]?.id ?? 0;
/** What of the state was shown, and the work whose findings were asked for. */
let seen = { revision: -1, work: -1, done: -1, running: false, found: -1 };
let playing = false;
/** @type {[number, number]} */
let pointer = [state.width / 2, state.height / 2];
let pointed = false;

const view = new View(at("view"), state.width, state.height);
const plain = new View(at("plain"), state.width, state.height);
const timeline = new Timeline(at("time"), seek);

/** Begins with a capital letter, unless that is a name's. @param {string} text */
const sentence = (text) =>
  state.things.some(({ name }) => name && text.startsWith(name)) ? text : text.slice(0, 1).toUpperCase() + text.slice(1);

/** Say something, until something is done or another frame is shown. @param {string} text @param {boolean} [refused] */
function say(text, refused = false) {
  at("status").textContent = sentence(text);
  at("status").classList.toggle("refused", refused);
}

/** @param {unknown} error */
function excuse(error) {
  if (!(error instanceof api.Refused)) throw error;
  say(error.message, true);
}

/** Whether something is begun that must be ended first, which is said then. */
function isBegun() {
  if (tool.isBusy) say("Something is begun on this frame: Enter ends it, Escape drops it.", true);
  return tool.isBusy;
}

/** Do one thing after the other, in the order in which they were asked for. */
let queue = Promise.resolve();
/** @param {() => Promise<void>} task @returns {Promise<void>} */
function inTurn(task) {
  const done = queue.then(task).catch(excuse);
  queue = done.catch(() => {});
  return done;
}

/** @param {string} path @param {object} [body] */
const post = (path, body) =>
  inTurn(async () => {
    say("");
    update(await api.post(path, body));
    await look();
  });

/** Kinds of steps that paint, and make an object if there is none. */
const PAINTS = ["brush", "polygon", "fill", "region"];

/** Kinds of steps that draw nothing. */
const OF_OBJECTS = ["gone", "here", "lock", "recolor", "delete", "merge"];

/** Do a step on the frame that is shown, for the object that is chosen now. @param {api.Step} step */
function send(step) {
  const body = { frame, id: chosen, only: input("over").checked && step.kind !== "erase" ? "background" : "all", ...step };
  const isHidden = !OF_OBJECTS.includes(step.kind) && view.hidden.has(body.id); // later, it may be hidden on purpose
  return inTurn(async () => {
    say("");
    if (!body.id && !chosen && PAINTS.includes(step.kind)) update(await api.post("do", { kind: "add" }));
    body.id ||= chosen;
    if (!body.id) return say("There is no object yet: draw one first.", true);
    update(await api.post("do", body));
    if (isHidden && view.hidden.delete(body.id)) {
      objects();
      say(`Drawn on, and shown again: ${name(body.id)}.`);
    }
    await look();
    if (step.kind === "delete") say("Deleted in all masks that are drawn: Undo takes it back.");
    if (step.kind === "merge") say("Made part of the chosen object in all masks that are drawn: Undo takes it back.");
  });
}

/** Take back what was begun last, which is no step yet. */
function drop() {
  drawing = false;
  tool.drop();
}

/** Take the last step back, or do it again, and show where that was. @param {"undo" | "redo"} path */
function turn(path) {
  if (path === "undo" && tool.isBusy) return drop();
  if (isBegun()) return;
  return inTurn(async () => {
    const next = await api.post(path);
    const changed = next.changed ?? [];
    update(next);
    if (changed.length && !changed.includes(frame)) await seek(changed[0]);
    else await look();
    const where = changed.length === 1 ? `on frame ${changed[0]}` : changed.length ? `on ${changed.length} frames` : "of an object";
    say(`${path === "undo" ? "Taken back" : "Done again"}: a step ${where}.`);
  });
}

/** The region that clicks mean, as a mask. @param {api.Step} step @returns {Promise<string | undefined>} */
async function propose(step) {
  const asked = { frame, ...step };
  /** @type {string | undefined} */
  let mask;
  await inTurn(async () => {
    mask = /** @type {any} */ (await api.post("propose", asked)).changed;
  });
  return mask;
}

// What is shown -------------------------------------------------------------------------------------------------

/** @param {api.State} next */
function update(next) {
  if (next.number < state.number) return; // asked for earlier than what is shown, and overtaken by it
  const before = state;
  state = next;
  if (!state.things.some(({ id }) => id === chosen)) chosen = state.things[state.things.length - 1]?.id ?? 0;
  if (state.things.length > before.things.length) chosen = state.things[state.things.length - 1].id;
  if (before.revision !== state.revision || before.pen !== state.pen) objects();
  at("clip").textContent = state.clip;
  document.title = `${state.clip} · vostrack`;
  at("banner").hidden = state.pen && !state.error;
  at("banner").textContent = state.error || "Another tab or window is drawing this clip: here you can only look.";
  at("of").textContent = `of ${state.count ?? `${state.ready} so far`}`;
  input("frame").max = String((state.count ?? state.ready) - 1);
  button("undo").disabled = !state.canUndo || !state.pen;
  button("redo").disabled = !state.canRedo || !state.pen;
  at("command").textContent = state.command;
  working();
  timeline.show(state, findings, frame);
}

function working() {
  const { work, wanted } = state;
  const progress = /** @type {HTMLProgressElement} */ (at("progress"));
  progress.classList.toggle("idle", !work.running);
  if (work.total) progress.value = work.done / work.total;
  else progress.removeAttribute("value");
  button("follow").disabled = work.running || !state.pen;
  const stops = work.running && stopping === work.number;
  button("stop").disabled = !work.running || stops || !state.pen;
  button("stop").textContent = stops ? "Stopping …" : "Stop";
  button("export").disabled = !state.followed || work.running;
  button("export").title = !state.followed ? "Follow first: what was followed is exported" : work.running ? "Wait until it is followed" : "";
  input("anew").disabled = !state.followed;
  const anew = input("anew").checked || !state.followed;
  input("preset").disabled = input("direction").disabled = !anew;
  input("which").disabled = input("span").disabled = anew;
  const size = wanted.size ? `, at ${wanted.size} pixels` : "";
  const how = wanted.method === "best" ? wanted.quality : `${wanted.method}, ${wanted.quality}`;
  at("made").textContent = state.followed ? `This run: ${how}${size}.` : "";
  if (work.running || ended.running || work.number !== ended.number)
    ended = { number: work.number, running: work.running, revision: state.revision };
  const failed = ended.revision === state.revision && work.error;
  const stopped = ended.revision === state.revision && work.stopped;
  const far = work.total ? `: ${work.done} of ${work.total}` : " …";
  at("work").textContent = work.running
    ? sentence(`${work.phase}${far}${pace(work)}`)
    : sentence(failed ? named(work.error) : "") || (stopped ? "Stopped. What was done stays." : olderText(state) || (state.followed ? "Followed." : ""));
  at("work").classList.toggle("refused", Boolean(failed) && !work.running);
  const told = work.notes.filter(([code]) => code !== "export-older" || exported !== work.number);
  const notes = told.map(([, severity, text]) =>
    Object.assign(document.createElement("li"), { className: severity, textContent: sentence(named(text)) }));
  at("notes").replaceChildren(...notes);
}
/** The number of the work that was asked to stop. */
let stopping = -1;
/** The work that ended last, and what was drawn then: once something is drawn, what came of it is past. */
let ended = { number: 0, running: false, revision: -1 };

/** What an object is called. @param {number} id @param {string} [words] where it has no name */
const name = (id, words = `object ${id}`) => state.things.find((each) => each.id === id)?.name || words;
/** A text that calls objects by their names. @param {string} text */
const named = (text) => text.replace(/\bobject (\d+)( \([^()]*\))?/g, (words, id) => name(Number(id), words));

/** The number of the work after which masks were handed over. */
let exported = -1;
let start = { number: 0, phase: "", time: 0, done: 0 };
/** How long it will take, in words. @param {api.Progress} work */
function pace(work) {
  if (work.number !== start.number || work.phase !== start.phase || !work.done) {
    start = { number: work.number, phase: work.phase, time: performance.now(), done: work.done };
    return "";
  }
  if (work.done <= start.done || !work.total) return "";
  const each = (performance.now() - start.time) / (work.done - start.done);
  const seconds = Math.round((each * (work.total - work.done)) / 1000);
  return seconds < 90 ? `, ${seconds} s left` : `, ${Math.round(seconds / 60)} min left`;
}

function objects() {
  listed(at("objects"), state.things, chosen, view.hidden, {
    choose,
    rename,
    send,
    hide: (id) => {
      if (!view.hidden.delete(id)) view.hidden.add(id);
      objects();
      view.show();
    },
  });
  view.things = state.things;
}

/** @param {number} id */
function choose(id) {
  say("");
  chosen = id;
  objects();
  view.draw();
}

/** @param {api.Thing} thing */
async function rename(thing) {
  const name = await question("Name of the object", "Name", title(thing));
  if (name === null || name === title(thing)) return;
  await post("do", { kind: "rename", id: thing.id, name });
  if (name && state.followed) say("Follow again, and the run has this name too.");
}

/** The pixels of the frame are being fetched. @type {Promise<void> | null} */
let looks = null;
let stale = false;
/** Show the pixels of the frame as they are now; one fetch at a time, so that none is overtaken by an earlier one. */
function look() {
  stale = true;
  at("loading").textContent = `Frame ${frame} …`;
  at("loading").hidden = view.frame === frame;
  looks ??= fetched();
  return looks;
}
async function fetched() {
  try {
    while (stale) {
      stale = false;
      const wanted = frame;
      const { revision } = state;
      try {
        const [picture, ids, before] = await Promise.all([
          view.frame === wanted ? null : api.frame(wanted),
          api.labels(wanted),
          input("onion").checked && wanted ? api.labels(wanted - 1) : null,
        ]);
        if (picture) view.image = plain.image = picture;
        view.frame = wanted;
        view.onion = before;
        view.show(ids);
        plain.draw();
        if (at("status").textContent === coming(wanted)) say("");
        seen.revision = revision;
      } catch (error) {
        excuse(error);
        at("loading").hidden = true;
      }
      at("loading").hidden ||= view.frame === frame;
    }
  } finally {
    looks = null;
  }
}

const coming = (/** @type {number} */ index) => `Frame ${index} is still coming.`;

/** Show another frame. @param {number} wanted */
async function seek(wanted) {
  const last = (state.count ?? state.ready) - 1;
  const next = Math.min(Math.max(Math.floor(wanted) || 0, 0), Math.max(last, 0));
  if (next !== frame && !isBegun()) {
    say("");
    frame = next;
  }
  input("frame").value = String(frame);
  timeline.show(state, findings, frame);
  await look();
}

/** Ask again and again how things are. */
async function watch() {
  try {
    update(await api.state());
    const { work, revision } = state;
    const ended = !work.running && state.followed && seen.found !== work.number;
    const moved = work.number !== seen.work || work.done !== seen.done || work.running !== seen.running;
    const changed = ended || moved || revision !== seen.revision;
    seen = { revision, work: work.number, done: work.done, running: work.running, found: ended ? work.number : seen.found };
    if (ended) {
      findings = await api.findings();
      button("suggested").disabled = !findings.suggested.length;
      doubted = -1;
      timeline.show(state, findings, frame);
    }
    if (changed) await look();
  } catch (error) {
    excuse(error);
  } finally {
    setTimeout(watch, state.work.running || state.count === null || state.ready < state.count ? 400 : 1500);
  }
}

// Tools ---------------------------------------------------------------------------------------------------------

const desk = {
  view,
  color: () => state.things.find(({ id }) => id === chosen)?.color ?? "#ffffff",
  radius: () => Number(input("radius").value),
  send,
  say,
  propose,
};
const tools = new Map(TOOLS.map(([key, name, , Kind]) => [key, { name, tool: new Kind(desk) }]));
let tool = /** @type {{name: string, tool: import("./tools.js").Tool}} */ (tools.get("b")).tool;
view.extra = (/** @type {CanvasRenderingContext2D} */ context) => tool.draw(context, pointed ? pointer : null);

/** Write the masks that are drawn as files. */
function save() {
  return inTurn(async () => {
    const told = /** @type {any} */ (await api.post("save"));
    say(`Saved: ${told.changed} ${told.changed === 1 ? "mask" : "masks"} in ${told.drawnIn}`);
  });
}

/** @param {string} key */
function take(key) {
  const taken = /** @type {{name: string, tool: import("./tools.js").Tool}} */ (tools.get(key)).tool;
  if (taken !== tool && isBegun()) return;
  tool = taken;
  for (const button of at("tools").querySelectorAll("button[data-key]")) {
    button.setAttribute("aria-pressed", String(/** @type {HTMLElement} */ (button).dataset.key === key));
  }
  view.draw();
}

for (const [key, name, meaning] of TOOLS) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.key = key;
  button.title = meaning;
  button.setAttribute("aria-keyshortcuts", key);
  button.append(`${name} `, Object.assign(document.createElement("kbd"), { textContent: key.toUpperCase() }));
  button.addEventListener("click", () => take(key));
  at("tools").append(button);
}
for (const [id, text, key] of [["undo", "Undo", "Ctrl+Z"], ["redo", "Redo", "Ctrl+Y"], ["fit", "Fit", "0"]]) {
  const button = Object.assign(document.createElement("button"), { type: "button", id });
  button.append(`${text} `, Object.assign(document.createElement("kbd"), { textContent: key }));
  at("tools").append(button);
}
at("undo").addEventListener("click", () => turn("undo"));
at("redo").addEventListener("click", () => turn("redo"));
at("fit").addEventListener("click", () => view.fit(true));

for (const [text, kind, radius] of /** @type {[string, string, number][]} */ ([
  ["Fill holes", "holes", 0],
  ["Smooth", "smooth", 2],
  ["Grow", "grow", 1],
  ["Shrink", "grow", -1],
  ["Clear", "clear", 0],
])) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
  button.addEventListener("click", () => send({ kind, radius }));
  at("mask-buttons").append(button);
}

listen(view, {
  tool: () => tool,
  may: () => {
    if (playing) play();
    if (state.pen) say(view.frame === frame ? "" : coming(frame), true);
    return state.pen && view.frame === frame;
  },
  at: (point) => {
    pointer = point;
    pointed = true;
  },
  away: () => {
    pointed = false;
    view.draw();
  },
  resize,
});

/** Make the brush larger or smaller. @param {number} factor */
function resize(factor) {
  const now = desk.radius();
  const next = factor > 1 ? Math.max(now + 1, Math.round(now * factor)) : Math.min(now - 1, Math.round(now * factor));
  input("radius").value = String(Math.max(next, 1));
  input("radius").dispatchEvent(new Event("input"));
}
input("radius").addEventListener("input", () => {
  at("radius-text").textContent = `${input("radius").value} px`;
  view.draw();
});

// Following -----------------------------------------------------------------------------------------------------

function follow() {
  if (isBegun()) return;
  const span = input("span").value;
  const others = state.drawn.filter((each) => each !== frame);
  const before = others.filter((each) => each < frame).pop();
  const after = others.find((each) => each > frame);
  const first = span === "after" ? frame : span === "next" && before !== undefined ? before : null;
  const last = span === "before" ? frame : span === "next" && after !== undefined ? after : null;
  const objects = input("which").value === "one" ? [chosen] : [];
  const anew = input("anew").checked;
  input("anew").checked = false;
  const { method, preset, size } = state.wanted;
  const [quality, direction] = [input("preset").value, input("direction").value];
  const whole = { ...(quality ? { preset: quality } : { method, preset }), size, direction, anew };
  return post("follow", anew || !state.followed ? whole : { objects, first, last, changed: span === "changed" });
}
at("follow").addEventListener("click", follow);
at("anew").addEventListener("change", working);
at("stop").addEventListener("click", () => {
  stopping = state.work.number;
  working();
  return post("stop");
});
/** Say where the chosen object is not there, or is. @param {string} kind @param {number} first @param {number | null} last */
const place = (kind, first, last) => send({ kind, frame: first, last });
const goneFrom = () => place("gone", frame, null);
const goneUntil = () => place("gone", 0, frame);
const here = () => place("here", frame, null);
at("gone").addEventListener("click", goneFrom);
at("gone-until").addEventListener("click", goneUntil);
at("here").addEventListener("click", here);
at("suggested").addEventListener("click", doubtful);
/** Which of the doubtful frames was gone to last. */
let doubted = -1;
async function doubtful() {
  const { suggested } = findings;
  if (!suggested.length) return;
  const next = (doubted + 1) % suggested.length;
  await seek(suggested[next]);
  if (frame !== suggested[next]) return;
  doubted = next;
  say(`Doubtful frame ${doubted + 1} of ${suggested.length}; first comes the one where a mask would help most.`);
}
for (const { name, meaning } of state.formats) {
  at("format").append(Object.assign(document.createElement("option"), { value: name, textContent: `${name}: ${meaning}` }));
}
at("export").addEventListener("click", () =>
  inTurn(async () => {
    at("exported").textContent = "Exporting …";
    try {
      const told = /** @type {any} */ (await api.post("export", { format: input("format").value, hard: input("hard").checked }));
      at("exported").textContent = `Written: ${told.changed}`;
      exported = state.work.number;
      working();
    } catch (error) {
      at("exported").textContent = sentence(/** @type {Error} */ (error).message);
    }
  }),
);
at("add").addEventListener("click", () => post("do", { kind: "add" }));

// Time ----------------------------------------------------------------------------------------------------------

function play() {
  playing = !playing && !isBegun();
  at("play").textContent = playing ? "❚❚ pause" : "▶ play";
  at("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  if (playing) tick(performance.now(), frame);
}
/** @param {number} since @param {number} from */
async function tick(since, from) {
  if (!playing) return;
  const passed = ((performance.now() - since) / 1000) * state.fps * Number(input("speed").value);
  const last = (state.count ?? state.ready) - 1;
  const wanted = Math.min(from + Math.floor(passed), last);
  if (wanted !== frame) await seek(wanted);
  if (!playing) return;
  if (wanted >= last) return play();
  requestAnimationFrame(() => tick(since, from));
}
at("play").addEventListener("click", play);
at("previous").addEventListener("click", () => seek(frame - 1));
at("next").addEventListener("click", () => seek(frame + 1));
input("frame").addEventListener("change", () => seek(Number(input("frame").value)));
input("style").addEventListener("change", () => {
  view.style = input("style").value;
  view.show();
});
input("onion").addEventListener("change", () => look());
input("split").addEventListener("change", () => {
  at("plain").hidden = !input("split").checked;
  view.fit(true);
  plain.fit(true);
});

// Keys ----------------------------------------------------------------------------------------------------------

const toggle = (/** @type {string} */ id) => {
  input(id).checked = !input(id).checked;
  input(id).dispatchEvent(new Event("change"));
};
let drawing = false;
/** Move the cross, and draw where that is begun. @param {number} x @param {number} y */
function nudge(x, y) {
  pointer = [
    Math.min(Math.max(pointer[0] + x, 0), state.width),
    Math.min(Math.max(pointer[1] + y, 0), state.height),
  ];
  pointed = true;
  tool.move([pointer], drawing);
  say(`${Math.floor(pointer[0])}, ${Math.floor(pointer[1])}`);
}
/** Begin and end a stroke, or set a corner, at the cross. */
function press() {
  if (drawing) {
    drawing = false;
    return tool.up();
  }
  if (!state.pen || view.frame !== frame) return;
  drawing = tool.strokes;
  tool.down(pointer);
}

/** Keys by name, what they do, and how. @type {[string, string, (event: KeyboardEvent) => void][]} */
const KEYS = [
  ...TOOLS.map(([key, name, meaning]) => /** @type {[string, string, () => void]} */ ([key, `${name}: ${meaning}`, () => take(key)])),
  ["[", "Smaller brush", () => resize(1 / 1.1)],
  ["]", "Larger brush", () => resize(1.1)],
  ["+", "Zoom in", () => view.zoom(1.25, pointer)],
  ["-", "Zoom out", () => view.zoom(0.8, pointer)],
  ["0", "Show the whole frame", () => view.fit(true)],
  ["Ctrl+z", "Undo", () => turn("undo")],
  ["Ctrl+y", "Redo", () => turn("redo")],
  ["Ctrl+Shift+z", "Redo", () => turn("redo")],
  ["Ctrl+s", "Save the masks that are drawn", save],
  ["ArrowLeft", "Previous frame", () => seek(frame - 1)],
  ["ArrowRight", "Next frame", () => seek(frame + 1)],
  ["Home", "First frame", () => seek(0)],
  ["End", "Last frame", () => seek(Infinity)],
  ["PageUp", "Mask before this one", () => seek(state.drawn.filter((each) => each < frame).pop() ?? frame)],
  ["PageDown", "Mask after this one", () => seek(state.drawn.find((each) => each > frame) ?? frame)],
  ["Shift+ArrowLeft", "Cross to the left, on the frame", () => nudge(-1, 0)],
  ["Shift+ArrowRight", "Cross to the right", () => nudge(1, 0)],
  ["Shift+ArrowUp", "Cross up", () => nudge(0, -1)],
  ["Shift+ArrowDown", "Cross down", () => nudge(0, 1)],
  ["Ctrl+ArrowLeft", "Cross far to the left", () => nudge(-10, 0)],
  ["Ctrl+ArrowRight", "Cross far to the right", () => nudge(10, 0)],
  ["Ctrl+ArrowUp", "Cross far up", () => nudge(0, -10)],
  ["Ctrl+ArrowDown", "Cross far down", () => nudge(0, 10)],
  ["x", "Begin or end a stroke at the cross, or set a corner", press],
  ["Enter", "End an outline, or paint a region", () => tool.isBusy && !drawing && tool.finish()],
  ["Ctrl+Enter", "Follow", (event) => event.repeat || follow()],
  ["Escape", "Drop what is begun", () => { drawing = false; tool.cancel(); }],
  ["Backspace", "Take back the last corner", () => tool.back()],
  ["k", "Play or pause", play],
  ["j", "Next doubtful frame, first where a mask would help most", doubtful],
  ["g", "The chosen object is gone from here on", goneFrom],
  ["u", "It is gone until here", goneUntil],
  ["h", "It is here again from here on", here],
  ["n", "Add an object", () => post("do", { kind: "add" })],
  ["o", "Outline of the frame before", () => toggle("onion")],
  ["v", "The frame as it is beside it", () => toggle("split")],
  ...[1, 2, 3, 4, 5, 6, 7, 8, 9].map((number) => /** @type {[string, string, () => void]} */ ([
    String(number), `Choose object ${number} of the list`, () => state.things[number - 1] && choose(state.things[number - 1].id),
  ])),
  ["?", "These keys", () => /** @type {HTMLDialogElement} */ (at("help")).showModal()],
];
/** A key as it is written on it. @param {string} key */
const sign = (key) =>
  key.replace(/Arrow(\w+)/, (_, way) => ARROWS[/** @type {keyof ARROWS} */ (way)]).replace(/(?<=^|\+)[a-z]$/, (letter) => letter.toUpperCase());
const ARROWS = { Left: "←", Right: "→", Up: "↑", Down: "↓" };
const shown = KEYS.filter(([key]) => !/[2-9]/.test(key)).map(([key, meaning]) =>
  key === "1" ? ["1 … 9", "Choose an object of the list"] : [sign(key), meaning]);
const rows = [...shown, ["Space + drag", "Move the frame"], ["Wheel", "Size of the brush, else zoom"], ["Ctrl + wheel", "Zoom"]];
for (const [key, meaning] of rows) {
  const row = document.createElement("tr");
  const [first, second] = [document.createElement("td"), document.createElement("td")];
  first.append(Object.assign(document.createElement("kbd"), { textContent: String(key) }));
  second.textContent = String(meaning);
  row.append(first, second);
  at("keys").append(row);
}
at("help-button").addEventListener("click", () => /** @type {HTMLDialogElement} */ (at("help")).showModal());

document.addEventListener("keydown", (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  if (document.querySelector("dialog[open]")) return;
  const isField = /^(INPUT|SELECT)$/.test(target.tagName) && input(target.id)?.type !== "checkbox";
  if (isField && !(target.tagName === "SELECT" && byPointer && event.key.length === 1 && event.key !== " ")) {
    // Keys are for the field; who is done with it gets those of the page back.
    if (event.key === "Enter" || event.key === "Escape") view.canvas.focus();
    return;
  }
  if (target.tagName === "BUTTON" && (event.key === "Enter" || event.key === " ")) return;
  const control = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  const letter = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const shift = event.shiftKey && (event.key.length > 1 || control) ? "Shift+" : "";
  const found = KEYS.find(([key]) => key === `${control}${shift}${letter}`);
  if (!found) return;
  event.preventDefault();
  found[2](event);
});
addEventListener("pagehide", () => {
  sessionStorage.setItem(state.out, JSON.stringify({ frame, chosen }));
  api.release();
});
// What is chosen with the pointer is done with; who has come by Tab walks through it by keys.
let byPointer = true;
document.addEventListener("pointerdown", () => { byPointer = true; }, true);
document.addEventListener("keydown", (event) => { if (event.key === "Tab") byPointer = false; }, true);
document.addEventListener("change", (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  if (byPointer && target.matches("select, [type=checkbox], [type=range]")) view.canvas.focus();
});

const { method, quality } = state.wanted;
if (method === "best" && ["fast", "balanced", "accurate"].includes(quality)) input("preset").value = quality;
else at("preset").prepend(new Option(`as it is: ${method}, ${quality}`, "", true, true));
input("direction").value = state.wanted.direction;
take("b");
input("radius").dispatchEvent(new Event("input"));
objects();
update(state);
await seek(kept.frame ?? state.drawn[0] ?? state.span[0]);
if (!state.things.length && state.pen) say("Draw around an object, or over it, and press Follow.");
watch();
