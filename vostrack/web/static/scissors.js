/** Paths along edges: the cheapest way between two points, where pixels on edges of luminance cost least (a "live wire"). */

const REACH = 160;

/** @typedef {{data: Uint8ClampedArray, width: number, height: number}} Pixels */

/** How much each pixel costs, between 0.03 on the strongest edges and 1. @param {Pixels} pixels @returns {Float32Array} */
export function costs({ data, width, height }) {
  const light = new Float32Array(width * height);
  for (let at = 0; at < light.length; at++) {
    light[at] = 0.299 * data[4 * at] + 0.587 * data[4 * at + 1] + 0.114 * data[4 * at + 2];
  }
  const found = new Float32Array(width * height).fill(1);
  for (let row = 1; row + 1 < height; row++) {
    for (let column = 1; column + 1 < width; column++) {
      const at = row * width + column;
      const across = light[at + 1] - light[at - 1];
      const down = light[at + width] - light[at - width];
      found[at] = Math.max(0.03, 1 / (1 + Math.hypot(across, down) / 12));
    }
  }
  return found;
}

/**
 * Dijkstra's algorithm over the eight neighbours of each pixel, in a box around both points.
 * @param {Float32Array} cost of pixels @param {number} width @param {number} height
 * @param {[number, number]} from @param {[number, number]} to
 * @returns {number[][]} centres of the pixels from one point to the other
 */
export function path(cost, width, height, from, to) {
  const clip = (/** @type {number} */ value, /** @type {number} */ most) => Math.min(Math.max(Math.floor(value), 0), most - 1);
  const [startX, startY, endX, endY] = [clip(from[0], width), clip(from[1], height), clip(to[0], width), clip(to[1], height)];
  if (Math.max(Math.abs(startX - endX), Math.abs(startY - endY)) > 3 * REACH) return [from, to];
  const left = Math.max(0, Math.min(startX, endX) - REACH / 4);
  const top = Math.max(0, Math.min(startY, endY) - REACH / 4);
  const columns = Math.min(width, Math.max(startX, endX) + REACH / 4 + 1) - left;
  const rows = Math.min(height, Math.max(startY, endY) + REACH / 4 + 1) - top;
  const best = new Float32Array(columns * rows).fill(Infinity);
  const came = new Int32Array(columns * rows).fill(-1);
  const heap = new Heap();
  const goal = (endY - top) * columns + endX - left;
  const begin = (startY - top) * columns + startX - left;
  best[begin] = 0;
  heap.push(0, begin);
  while (heap.size) {
    const [far, at] = heap.pop();
    if (at === goal) break;
    if (far > best[at]) continue;
    const x = at % columns;
    const y = (at - x) / columns;
    for (let dy = -1; dy <= 1; dy++) {
      for (let dx = -1; dx <= 1; dx++) {
        const [nx, ny] = [x + dx, y + dy];
        if ((!dx && !dy) || nx < 0 || ny < 0 || nx >= columns || ny >= rows) continue;
        const next = ny * columns + nx;
        const length = far + cost[(ny + top) * width + nx + left] * (dx && dy ? Math.SQRT2 : 1);
        if (length < best[next]) {
          best[next] = length;
          came[next] = at;
          heap.push(length, next);
        }
      }
    }
  }
  const found = [];
  for (let at = goal; at >= 0; at = came[at]) found.push([(at % columns) + left + 0.5, Math.floor(at / columns) + top + 0.5]);
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
