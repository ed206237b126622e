/** The time line: a row an object, with confidence as colour, given masks, spans without it, cuts and suggestions. */

/** @typedef {import("./api.js").State} State @typedef {import("./api.js").Findings} Findings */

const TOP = 14;
/** Room for names, on the left. */
const LEFT = 96;

export class Timeline {
  /** @param {HTMLCanvasElement} canvas @param {(frame: number) => void} seek */
  constructor(canvas, seek) {
    this.canvas = canvas;
    /** @type {State | null} */
    this.state = null;
    /** @type {Findings} */
    this.findings = { confidence: {}, suggested: [], cuts: [] };
    this.frame = 0;
    const go = (/** @type {PointerEvent} */ event) => {
      const box = canvas.getBoundingClientRect();
      seek(Math.floor(((event.clientX - box.left - LEFT) / (box.width - LEFT)) * this.count));
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      go(event);
    });
    canvas.addEventListener("pointermove", (event) => event.buttons && go(event));
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  get count() {
    return this.state?.count ?? Math.max(this.state?.ready ?? 1, 1);
  }

  /** @param {State} state @param {Findings} findings @param {number} frame */
  show(state, findings, frame) {
    Object.assign(this, { state, findings, frame });
    this.canvas.setAttribute("aria-valuemax", String(this.count - 1));
    this.canvas.setAttribute("aria-valuenow", String(frame));
    const older = olderAt(state, frame).map(({ name, id }) => name || `object ${id}`).join(", ");
    this.canvas.setAttribute("aria-valuetext", `frame ${frame} of ${this.count}${older && `; changed since it was followed: ${older}`}`);
    this.draw();
  }

  draw() {
    const { canvas, state } = this;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.scale(ratio, ratio);
    if (!state) return;
    const look = getComputedStyle(document.documentElement);
    const tone = (/** @type {string} */ name) => look.getPropertyValue(name).trim();
    const at = (/** @type {number} */ frame) => LEFT + (frame / this.count) * (width - LEFT);
    const wide = Math.max((width - LEFT) / this.count, 1);
    context.fillStyle = tone("--line");
    context.fillRect(LEFT, 0, at(state.ready) - LEFT, 3);
    const rows = state.things;
    const tall = Math.min(18, (height - TOP) / Math.max(rows.length, 1));
    context.font = "11px system-ui";
    rows.forEach(({ id, name, color, gone }, row) => {
      const y = TOP + row * tall;
      for (const [frame, sure] of this.findings.confidence[id] ?? []) {
        context.fillStyle = `hsl(${Math.round(370 - 160 * sure)} 70% 50% / ${1.05 - 0.6 * sure})`;
        context.fillRect(at(frame), y + 2, wide + 0.5, tall - 4);
      }
      const clear = (/** @type {number} */ first, /** @type {number | null} */ last) => {
        const long = at((last ?? this.count - 1) + 1) - at(first);
        context.fillStyle = tone("--card");
        context.fillRect(at(first), y + 1, long, tall - 2);
        return long;
      };
      for (const [first, last] of state.older[id] ?? []) {
        hatched(context, at(first), y + 2, clear(first, last), tall - 4, tone("--warn"), tone("--card"));
      }
      for (const [first, last] of gone) {
        const long = clear(first, last);
        context.fillStyle = tone("--soft");
        context.fillRect(at(first), y + tall / 2 - 1, long, 2);
      }
      context.fillStyle = color;
      context.fillRect(0, y + 2, 5, tall - 4);
      context.fillStyle = tone("--text");
      context.fillText(fitting(context, name || `object ${id}`), 9, y + tall / 2 + 4);
    });
    context.fillStyle = tone("--text");
    for (const cut of this.findings.cuts) for (let y = 0; y < height; y += 6) context.fillRect(at(cut), y, 1, 3);
    for (const frame of state.drawn) {
      context.fillStyle = tone("--main");
      context.beginPath();
      context.moveTo(at(frame) + wide / 2 - 5, 3);
      context.lineTo(at(frame) + wide / 2 + 5, 3);
      context.lineTo(at(frame) + wide / 2, TOP - 1);
      context.fill();
    }
    context.strokeStyle = tone("--warn");
    for (const frame of this.findings.suggested) {
      context.beginPath();
      context.arc(at(frame) + wide / 2, 8, 4, 0, 2 * Math.PI);
      context.stroke();
    }
    // What the run is not of.
    context.fillStyle = tone("--line");
    context.globalAlpha = 0.6;
    const [from, to] = state.span;
    context.fillRect(LEFT, 0, at(from) - LEFT, height);
    if (to !== null) context.fillRect(at(to + 1), 0, width, height);
    context.globalAlpha = 1;
    context.fillStyle = tone("--text");
    context.fillRect(at(this.frame) + wide / 2 - 1, 0, 2, height);
  }
}

/** Objects whose results at a frame are older than what is drawn. @param {State} state @param {number} frame */
function olderAt(state, frame) {
  const holds = (/** @type {[number, number | null]} */ [first, last]) => first <= frame && (last === null || frame <= last);
  return state.things.filter(({ id }) => state.older[id]?.some(holds));
}

/** What of a run is older than what is drawn, in words. @param {State} state */
export function olderText(state) {
  const words = state.things.filter(({ id }) => state.older[id]).map(({ id, name }) => {
    const spans = state.older[id].map(([first, last]) =>
      last === null ? `from ${first} on` : last === first ? `${first}` : `${first} to ${last}`);
    return `${name || `object ${id}`} (${spans.join(", ")})`;
  });
  return words.length ? `Changed since it was followed: ${words.join("; ")}.` : "";
}

/**
 * Stripes, with a line around them, and what they mean where there is room.
 * @param {CanvasRenderingContext2D} context @param {number} left @param {number} top @param {number} wide @param {number} tall
 * @param {string} color @param {string} paper
 */
function hatched(context, left, top, wide, tall, color, paper) {
  context.save();
  context.strokeStyle = color;
  context.strokeRect(left + 0.5, top + 0.5, Math.max(wide - 1, 1), tall - 1);
  context.beginPath();
  context.rect(left, top, wide, tall);
  context.clip();
  context.beginPath();
  for (let x = left - tall; x < left + wide; x += 6) {
    context.moveTo(x, top + tall);
    context.lineTo(x + tall, top);
  }
  context.stroke();
  context.restore();
  const words = "changed since it was followed";
  const long = context.measureText(words).width + 8;
  if (long > wide - 8) return;
  context.fillStyle = paper;
  context.fillRect(left + 8, top + 1, long, tall - 2);
  context.fillStyle = color;
  context.fillText(words, left + 12, top + tall / 2 + 4);
}

/** A name, cut so that it fits. @param {CanvasRenderingContext2D} context @param {string} name */
function fitting(context, name) {
  const fits = (/** @type {string} */ text) => context.measureText(text).width < LEFT - 14;
  if (fits(name)) return name;
  let text = name;
  while (text && !fits(`${text}…`)) text = text.slice(0, -1);
  return `${text}…`;
}
