/** Tools: what the pointer and the keys do on the frame. Each gives steps, which the server does; nothing is painted here. */

import { costs, path } from "./scissors.js";

/** @typedef {import("./view.js").View} View @typedef {import("./api.js").Step} Step */

/**
 * What tools are given: steps that they send are for the chosen object, and made if there is none.
 * @typedef {{view: View, color: () => string, radius: () => number, propose: (step: Step) => Promise<string | undefined>,
 *   send: (step: Step) => Promise<void>, say: (text: string) => void}} Desk
 */

/** A tool does nothing until it is told what to do. */
class Tool {
  /** Whether it draws as long as it is pressed. */
  strokes = false;
  /** Whether it has a size. */
  sizes = false;

  /** @param {Desk} desk */
  constructor(desk) {
    this.desk = desk;
    /** @type {number[][]} */
    this.points = [];
  }

  /** Whether something is begun that is not done. */
  get isBusy() {
    return this.points.length > 0;
  }

  /** @param {[number, number]} point @param {boolean} [beside] whether Shift is held */
  down(point, beside) {}
  /** @param {[number, number][]} points @param {boolean} pressed */
  move(points, pressed) {}
  up() {}
  /** The outline is ended. */
  finish() {}
  /** The last corner is taken back. */
  back() {}
  /** What is begun is dropped. */
  cancel() {
    if (this.isBusy) this.desk.say(""); // what was said of it
    this.points = [];
    this.desk.view.draw();
  }
  /** What the last press began is dropped. */
  drop() {
    if (this.strokes) this.cancel();
    else this.back();
  }
  /** @param {CanvasRenderingContext2D} context @param {[number, number] | null} pointer that is over the frame */
  draw(context, pointer) {
    cross(context, pointer, this.desk.view);
  }
}

/** @param {CanvasRenderingContext2D} context @param {[number, number] | null} pointer @param {View} view */
function cross(context, pointer, view) {
  if (!pointer) return;
  const [x, y] = pointer;
  const arm = (9 * view.ratio) / view.scale;
  for (const [color, width] of /** @type {[string, number][]} */ ([["#000", 3], ["#fff", 1]])) {
    context.strokeStyle = color;
    context.lineWidth = (width * view.ratio) / view.scale;
    context.beginPath();
    context.moveTo(x - arm, y);
    context.lineTo(x + arm, y);
    context.moveTo(x, y - arm);
    context.lineTo(x, y + arm);
    context.stroke();
  }
}

/** @param {CanvasRenderingContext2D} context @param {number[][]} points @param {View} view @param {boolean} closed */
function outline(context, points, view, closed) {
  if (!points.length) return;
  for (const [color, width] of /** @type {[string, number][]} */ ([["#000", 4], ["#fff", 1.5]])) {
    context.strokeStyle = color;
    context.lineWidth = (width * view.ratio) / view.scale;
    context.beginPath();
    points.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
    if (closed) context.closePath();
    context.stroke();
  }
}

/** @typedef {{points: number[][], radius: number, color: string, image: ImageBitmap | null}} Stroke */

class Brush extends Tool {
  kind = "brush";
  strokes = true;
  sizes = true;
  /** Strokes that the server has not answered yet. @type {Set<Stroke>} */
  sent = new Set();

  /** @param {[number, number]} point */
  down(point) {
    this.points = [point];
    this.desk.view.draw();
  }

  /** @param {[number, number][]} points @param {boolean} pressed */
  move(points, pressed) {
    if (pressed && this.points.length) this.points.push(...points);
    this.desk.view.draw();
  }

  /** @returns {Stroke} */
  stroke() {
    const color = this.kind === "erase" ? "#ffffff" : this.desk.color();
    return { points: this.points, radius: this.desk.radius(), color, image: this.desk.view.image };
  }

  async up() {
    const stroke = this.stroke();
    const { points, radius } = stroke;
    if (!points.length) return;
    this.points = [];
    this.sent.add(stroke);
    try {
      await this.desk.send({ kind: this.kind, points, radius });
    } finally {
      this.sent.delete(stroke);
      this.desk.view.draw();
    }
  }

  /** @param {CanvasRenderingContext2D} context @param {[number, number] | null} pointer */
  draw(context, pointer) {
    const { view } = this.desk;
    context.globalAlpha = 0.6;
    context.lineCap = context.lineJoin = "round";
    for (const { points, radius, color, image } of [...this.sent, this.stroke()]) {
      if (!points.length || image !== view.image) continue;
      context.strokeStyle = color;
      context.lineWidth = 2 * radius;
      context.beginPath();
      points.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
      if (points.length === 1) context.lineTo(points[0][0], points[0][1]);
      context.stroke();
    }
    context.globalAlpha = 1;
    if (!pointer) return;
    for (const [color, width] of /** @type {[string, number][]} */ ([["#000", 3], ["#fff", 1]])) {
      context.strokeStyle = color;
      context.lineWidth = (width * view.ratio) / view.scale;
      context.beginPath();
      context.arc(pointer[0], pointer[1], Math.max(this.desk.radius(), 0.5), 0, 2 * Math.PI);
      context.stroke();
    }
  }
}

class Eraser extends Brush {
  kind = "erase";
}

class Polygon extends Tool {
  /** @param {[number, number]} point */
  down(point) {
    this.points.push(point);
    this.desk.view.draw();
  }

  /** @param {[number, number][]} points */
  move(points) {
    this.desk.view.draw();
  }

  back() {
    this.points.pop();
    if (this.points.length) this.desk.view.draw();
    else this.cancel();
  }

  /** The outline so far. @returns {number[][]} */
  corners() {
    return this.points;
  }

  async finish() {
    const points = this.corners();
    if (points.length < 3) return this.desk.say("An outline needs three corners.");
    this.cancel();
    await this.desk.send({ kind: "polygon", points });
  }

  /** @param {CanvasRenderingContext2D} context @param {[number, number] | null} pointer */
  draw(context, pointer) {
    const corners = this.corners();
    outline(context, corners.length && pointer ? [...corners, pointer] : corners, this.desk.view, false);
    super.draw(context, pointer);
  }
}

class Lasso extends Tool {
  strokes = true;

  /** @param {[number, number]} point */
  down(point) {
    this.points = [point];
  }

  /** @param {[number, number][]} points @param {boolean} pressed */
  move(points, pressed) {
    if (pressed && this.points.length) this.points.push(...points);
    this.desk.view.draw();
  }

  async up() {
    const { points } = this;
    this.cancel();
    if (points.length > 2) await this.desk.send({ kind: "polygon", points });
  }

  /** @param {CanvasRenderingContext2D} context @param {[number, number] | null} pointer */
  draw(context, pointer) {
    outline(context, this.points, this.desk.view, true);
    super.draw(context, pointer);
  }
}

/** A polygon whose sides follow edges of the image. */
class Scissors extends Polygon {
  /** @type {number[][][]} */
  sides = [];
  /** @type {number[][]} */
  side = [];
  /** @type {{image: ImageBitmap | null, cost: import("./scissors.js").Costs | null}} */
  known = { image: null, cost: null };

  /** Costs of the pixels of the frame that is shown. */
  cost() {
    const { view } = this.desk;
    if (this.known.image !== view.image && view.image) {
      const canvas = new OffscreenCanvas(view.width, view.height);
      const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
      context.drawImage(view.image, 0, 0, view.width, view.height);
      this.known = { image: view.image, cost: costs(context.getImageData(0, 0, view.width, view.height)) };
    }
    return this.known.cost;
  }

  /** @param {[number, number]} to @returns {number[][]} */
  wire(to) {
    const from = /** @type {[number, number]} */ (this.points[this.points.length - 1]);
    const cost = this.cost();
    return cost ? path(cost, from, to) : [from, to];
  }

  /** @param {[number, number]} point */
  down(point) {
    if (this.points.length) this.sides.push(this.wire(point));
    this.side = [];
    super.down(point);
  }

  /** @param {[number, number][]} points */
  move(points) {
    if (this.points.length) this.side = this.wire(points[points.length - 1]);
    super.move(points);
  }

  back() {
    this.sides.pop();
    this.side = [];
    super.back();
  }

  cancel() {
    this.sides = [];
    this.side = [];
    super.cancel();
  }

  corners() {
    return [...this.points.slice(0, 1), ...this.sides.flat()];
  }

  async finish() {
    if (this.points.length > 1) this.sides.push(this.wire(/** @type {[number, number]} */ (this.points[0])));
    await super.finish();
  }

  /** @param {CanvasRenderingContext2D} context @param {[number, number] | null} pointer */
  draw(context, pointer) {
    outline(context, [...this.corners(), ...this.side], this.desk.view, false);
    cross(context, pointer, this.desk.view);
  }
}

class Fill extends Tool {
  /** @param {[number, number]} point */
  async down(point) {
    await this.desk.send({ kind: "fill", points: [point] });
  }
}

/** A mask as an image of stripes. @param {string} data a PNG in base 64 @returns {Promise<ImageBitmap>} */
async function striped(data) {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }), { colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, image.width, image.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const inside = pixels.data[at] > 0;
    const stripe = ((at / 4) % image.width + Math.floor(at / 4 / image.width)) & 4;
    pixels.data.set(inside ? (stripe ? [255, 255, 255, 130] : [0, 0, 0, 130]) : [0, 0, 0, 0], at);
  }
  context.putImageData(pixels, 0, 0);
  return createImageBitmap(canvas);
}

/** Clicks on the object, and with Shift beside it, propose a region; Enter paints it. */
class Region extends Tool {
  wanted = "";
  /** What the clicks mean, once that is known. @type {Promise<string>} */
  asked = Promise.resolve("");
  /** @type {ImageBitmap | null} */
  shown = null;

  /** @param {[number, number]} point @param {boolean} [beside] */
  down(point, beside = false) {
    this.points.push(point);
    this.wanted += beside ? "0" : "1";
    this.asked = this.ask();
  }

  /** Ask what the clicks mean, and show it unless they are others by then. */
  async ask() {
    const { points, wanted } = this;
    const data = (await this.desk.propose({ kind: "region", points: [...points], data: wanted })) ?? "";
    const image = data ? await striped(data) : null;
    if (points !== this.points || wanted !== this.wanted) return data;
    this.shown = image;
    this.desk.view.draw();
    if (data) this.desk.say("Enter paints the region; Shift and click says what does not belong to it.");
    return data;
  }

  back() {
    this.points.pop();
    this.wanted = this.wanted.slice(0, -1);
    if (this.points.length) this.asked = this.ask();
    else this.cancel();
  }

  cancel() {
    this.wanted = "";
    this.asked = Promise.resolve("");
    this.shown = null;
    super.cancel();
  }

  async finish() {
    const { points } = this;
    const data = await this.asked;
    if (points !== this.points) return; // it was dropped
    this.cancel();
    if (data) await this.desk.send({ kind: "region", data });
  }

  /** @param {CanvasRenderingContext2D} context @param {[number, number] | null} pointer */
  draw(context, pointer) {
    if (this.shown) context.drawImage(this.shown, 0, 0);
    super.draw(context, pointer);
  }
}

/** Tools by name: key, what the button says, what it does. @type {[string, string, string, new (desk: Desk) => Tool][]} */
export const TOOLS = [
  ["b", "Brush", "paint the chosen object", Brush],
  ["e", "Eraser", "erase the chosen object", Eraser],
  ["p", "Polygon", "click corners, end with Enter or a double click", Polygon],
  ["l", "Lasso", "draw around", Lasso],
  ["s", "Scissors", "click along an edge, end with Enter or a double click", Scissors],
  ["r", "Region", "click on an object, with Shift beside it; Enter paints", Region],
  ["f", "Fill", "fill an area of one object or of background", Fill],
];

export { Tool };
