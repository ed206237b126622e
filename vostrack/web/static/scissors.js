/** Paths along edges: the cheapest way between two points along the sides of pixels, where edges cost least (a "live wire"). */

const REACH = 160;

/** @typedef {{data: Uint8ClampedArray, width: number, height: number}} Pixels */

/**
 * What it costs to go along the sides of pixels, between 0.03 where luminance differs most across a side, and 1.
 * @typedef {{width: number, height: number, across: Float32Array, down: Float32Array}} Costs
 *   across: of the upper sides of pixels, (height + 1) rows of width; down: of the left sides, height rows of width + 1
 */

/** @param {Pixels} pixels @returns {Costs} */
export function costs({ data, width, height }) {
  const light = new Float32Array(width * height);
  for (let at = 0; at < light.length; at++) {
    light[at] = 0.299 * data[4 * at] + 0.587 * data[4 * at + 1] + 0.114 * data[4 * at + 2];
  }
  const cost = (/** @type {number} */ one, /** @type {number} */ other) =>
    Math.max(0.03, 1 / (1 + Math.abs(light[one] - light[other]) / 8));
  // The border of the frame may be that of an object.
  const across = new Float32Array((height + 1) * width).fill(0.2);
  const down = new Float32Array(height * (width + 1)).fill(0.2);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const at = row * width + column;
      if (row) across[at] = cost(at, at - width);
      if (column) down[row * (width + 1) + column] = cost(at, at - 1);
    }
  }
  return { width, height, across, down };
}

/**
 * Dijkstra's algorithm over the corners of pixels, in a box around both points.
 * @param {Costs} costs @param {[number, number]} from @param {[number, number]} to
 * @returns {number[][]} corners from one point to the other
 */
export function path({ width, height, across, down }, from, to) {
  const near = (/** @type {number} */ value, /** @type {number} */ most) => Math.min(Math.max(Math.round(value), 0), most);
  const [startX, startY, endX, endY] = [near(from[0], width), near(from[1], height), near(to[0], width), near(to[1], height)];
  if (Math.max(Math.abs(startX - endX), Math.abs(startY - endY)) > 3 * REACH) return [from, to];
  const left = Math.max(0, Math.min(startX, endX) - REACH / 4);
  const top = Math.max(0, Math.min(startY, endY) - REACH / 4);
  const columns = Math.min(width, Math.max(startX, endX) + REACH / 4) + 1 - left;
  const rows = Math.min(height, Math.max(startY, endY) + REACH / 4) + 1 - top;
  const best = new Float64Array(columns * rows).fill(Infinity); // as exact as sums, or paths could run in circles
  const came = new Int32Array(columns * rows).fill(-1);
  const heap = new Heap();
  const goal = (endY - top) * columns + endX - left;
  const begin = (startY - top) * columns + startX - left;
  best[begin] = 0;
  heap.push(0, begin);
  /** @param {number} far @param {number} before @param {number} next */
  const reach = (far, before, next) => {
    if (far >= best[next]) return;
    best[next] = far;
    came[next] = before;
    heap.push(far, next);
  };
  while (heap.size) {
    const [far, at] = heap.pop();
    if (at === goal) break;
    if (far > best[at]) continue;
    const x = at % columns;
    const y = (at - x) / columns;
    const side = (y + top) * width + x + left;
    const post = (y + top) * (width + 1) + x + left;
    if (x) reach(far + across[side - 1], at, at - 1);
    if (x + 1 < columns) reach(far + across[side], at, at + 1);
    if (y) reach(far + down[post - width - 1], at, at - columns);
    if (y + 1 < rows) reach(far + down[post], at, at + columns);
  }
  const found = [];
  for (let at = goal; at >= 0; at = came[at]) found.push([(at % columns) + left, Math.floor(at / columns) + top]);
  return found.reverse();
}

/** A heap of numbers with keys, the least key on top. */
class Heap {
  constructor() {
    /** @type {number[]} */
    this.keys = [];
    /** @type {number[]} */
    this.values = [];
  }

  get size() {
    return this.keys.length;
  }

  /** @param {number} key @param {number} value */
  push(key, value) {
    let at = this.keys.length;
    while (at) {
      const parent = (at - 1) >> 1;
      if (this.keys[parent] <= key) break;
      this.keys[at] = this.keys[parent];
      this.values[at] = this.values[parent];
      at = parent;
    }
    this.keys[at] = key;
    this.values[at] = value;
  }

  /** @returns {[number, number]} */
  pop() {
    const top = /** @type {[number, number]} */ ([this.keys[0], this.values[0]]);
    const key = /** @type {number} */ (this.keys.pop());
    const value = /** @type {number} */ (this.values.pop());
    if (this.keys.length) {
      let at = 0;
      for (;;) {
        let child = 2 * at + 1;
        if (child >= this.keys.length) break;
        if (child + 1 < this.keys.length && this.keys[child + 1] < this.keys[child]) child++;
        if (this.keys[child] >= key) break;
        this.keys[at] = this.keys[child];
        this.values[at] = this.values[child];
        at = child;
      }
      this.keys[at] = key;
      this.values[at] = value;
    }
    return top;
  }
}
