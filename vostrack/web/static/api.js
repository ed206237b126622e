/** What the server is asked. Its address, with the token, is that of the page. */

/**
 * @typedef {{id: number, name: string, color: string, locked: boolean, gone: [number, number | null][]}} Thing
 * @typedef {{number: number, running: boolean, phase: string, done: number, total: number | null,
 *   notes: [string, string, string][], error: string, stopped: boolean}} Progress
 * @typedef {{clip: string, out: string, width: number, height: number, count: number | null, ready: number, span: [number, number | null],
 *   error: string, number: number, revision: number, things: Thing[], drawn: number[], canUndo: boolean, canRedo: boolean,
 *   followed: boolean, wanted: {method: string, preset: string, quality: string, size: number | null, direction: string},
 *   older: Record<string, [number, number | null][]>, work: Progress, command: string,
 *   drawnIn: string, pen: boolean, fps: number, formats: {name: string, meaning: string}[], changed?: number[] | null}} State
 * @typedef {{confidence: Record<string, [number, number][]>, suggested: number[], cuts: number[]}} Findings
 * @typedef {{kind: string, frame?: number, last?: number | null, id?: number, points?: number[][], radius?: number, name?: string,
 *   color?: string, other?: number, locked?: boolean, only?: string, data?: string}} Step
 */

const client = Math.random().toString(36).slice(2);

/** An answer of the server that is a refusal, in its words. */
export class Refused extends Error {}

/** @param {string} path @param {RequestInit} [init] @returns {Promise<Response>} */
async function ask(path, init) {
  const mark = path.includes("?") ? "&" : "?";
  let answer;
  try {
    answer = await fetch(`${path}${mark}client=${client}`, { cache: "no-store", ...init });
  } catch {
    throw new Refused("The program does not answer. Is it still running?");
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Refused(told.error ?? `The program answered ${answer.status}.`);
  }
  return answer;
}

/** @returns {Promise<State>} */
export const state = async () => (await ask("state")).json();

/** @returns {Promise<Findings>} */
export const findings = async () => (await ask("findings")).json();

/** @param {string} path @param {object} [body] @returns {Promise<State>} */
export async function post(path, body = {}) {
  const headers = { "Content-Type": "application/json" };
  return (await ask(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

/** Let another tab draw: this one goes. */
export function release() {
  fetch(`release?client=${client}`, { method: "POST", keepalive: true }).catch(() => {});
}

/** A frame as the browser draws it. @param {number} index @returns {Promise<ImageBitmap>} */
export async function frame(index) {
  return createImageBitmap(await (await ask(`frame/${index}.jpg`)).blob());
}

const scratch = document.createElement("canvas");

/** Ids of a frame, row by row. @param {number} index @returns {Promise<Uint8Array>} */
export async function labels(index) {
  const blob = await (await ask(`mask/${index}.png`)).blob();
  // Values are ids, which no colour management may touch.
  const image = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  scratch.width = image.width;
  scratch.height = image.height;
  const context = /** @type {CanvasRenderingContext2D} */ (scratch.getContext("2d", { willReadFrequently: true }));
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  const ids = new Uint8Array(image.width * image.height);
  for (let at = 0; at < ids.length; at++) ids[at] = data[4 * at];
  return ids;
}
