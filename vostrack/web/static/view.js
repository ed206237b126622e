/** The frame with its masks, zoomed and moved; knows nothing of tools. Coordinates of the frame are in its pixels. */

/** @typedef {import("./api.js").Thing} Thing */

/** @param {string} color @returns {[number, number, number]} */
const levels = (color) => {
  const packed = parseInt(color.slice(1), 16);
  return [packed >> 16, (packed >> 8) & 255, packed & 255];
};

/** @param {number} width @param {number} height */
function layer(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
}

export class View {
  /** @param {HTMLCanvasElement} canvas @param {number} width @param {number} height of the frame */
  constructor(canvas, width, height) {
    this.canvas = canvas;
    this.width = width;
    this.height = height;
    this.scale = 1;
    this.left = this.top = 0;
    this.isWhole = true;
    /** @type {ImageBitmap | null} */
    this.image = null;
    /** Number of the frame that is shown; -1 before there is one. */
    this.frame = -1;
    /** @type {Uint8Array} */
    this.labels = new Uint8Array(width * height);
    /** @type {Uint8Array | null} */
    this.onion = null;
    /** @type {Thing[]} */
    this.things = [];
    /** @type {Set<number>} */
    this.hidden = new Set();
    this.style = "tint";
    this.masks = layer(width, height);
    /** Draws what a tool shows; called with the context in pixels of the frame. @type {(c: CanvasRenderingContext2D) => void} */
    this.extra = () => {};
    this.waits = false;
    new ResizeObserver(() => this.fit(false)).observe(canvas);
    this.fit(true);
  }

  /** Device pixels for one CSS pixel. */
  get ratio() {
    return window.devicePixelRatio || 1;
  }

  /** Adjust to the size of the canvas; and show the whole frame if it is not zoomed, or if that is wanted. @param {boolean} whole */
  fit(whole) {
    const [width, height] = [this.canvas.clientWidth * this.ratio, this.canvas.clientHeight * this.ratio].map(Math.round);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      const wasWhole = this.isWhole;
      this.canvas.width = width;
      this.canvas.height = height;
      whole ||= wasWhole;
    }
    if (whole || !this.scale) {
      this.scale = Math.min(width / this.width, height / this.height) || 1;
      this.left = (width - this.width * this.scale) / 2;
      this.top = (height - this.height * this.scale) / 2;
      this.isWhole = true;
    }
    this.draw();
  }

  /** Where a pointer is in the frame. @param {{clientX: number, clientY: number}} event @returns {[number, number]} */
  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = (event.clientX - box.left) * this.ratio;
    const y = (event.clientY - box.top) * this.ratio;
    return [(x - this.left) / this.scale, (y - this.top) / this.scale];
  }

  /** Zoom by a factor; the point of the frame stays where it is. @param {number} factor @param {[number, number]} point */
  zoom(factor, [x, y]) {
    const scale = Math.min(Math.max(this.scale * factor, 0.05), 64);
    this.left += x * (this.scale - scale);
    this.top += y * (this.scale - scale);
    this.scale = scale;
    this.isWhole = false;
    this.draw();
  }

  /** Move by CSS pixels. @param {number} x @param {number} y */
  pan(x, y) {
    this.left += x * this.ratio;
    this.top += y * this.ratio;
    this.isWhole = false;
    this.draw();
  }

  /** Show other labels, or the same in other colours. @param {Uint8Array} [labels] */
  show(labels = this.labels) {
    this.labels = labels;
    const { width, height } = this;
    const pixels = this.masks.createImageData(width, height);
    const data = new Uint32Array(pixels.data.buffer);
    const flat = new Uint32Array(256);
    const edge = new Uint32Array(256);
    for (const { id, color } of this.things) {
      if (this.hidden.has(id)) continue;
      const [red, green, blue] = levels(color);
      const packed = (blue << 16) | (green << 8) | red;
      flat[id] = this.style === "tint" ? (packed | (115 << 24)) >>> 0 : 0;
      edge[id] = (packed | (255 << 24)) >>> 0;
    }
    const ground = this.style === "cutout" || this.style === "checkerboard";
    for (let row = 0, at = 0; row < height; row++) {
      for (let column = 0; column < width; column++, at++) {
        const id = labels[at];
        if (!id) {
          if (ground) data[at] = this.style === "cutout" || ((row >> 3) + (column >> 3)) % 2 ? 0xff606060 : 0xff909090;
          continue;
        }
        const border =
          (column && labels[at - 1] !== id) || (column + 1 < width && labels[at + 1] !== id) ||
          (row && labels[at - width] !== id) || (row + 1 < height && labels[at + width] !== id);
        data[at] = border && !ground ? edge[id] : flat[id];
      }
    }
    if (this.onion) this.outline(data, this.onion);
    this.masks.putImageData(pixels, 0, 0);
    this.draw();
  }

  /** Dots along the edges of other labels. @param {Uint32Array} data @param {Uint8Array} labels */
  outline(data, labels) {
    const { width, height } = this;
    for (let row = 1; row < height; row++) {
      for (let column = 1; column < width; column++) {
        const at = row * width + column;
        const border = labels[at] !== labels[at - 1] || labels[at] !== labels[at - width];
        if (border && ((row + column) & 3) < 2) data[at] = 0xffffffff;
      }
    }
  }

  /** Draw before the next picture of the screen. */
  draw() {
    if (this.waits) return;
    this.waits = true;
    requestAnimationFrame(() => {
      this.waits = false;
      const context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, this.canvas.width, this.canvas.height);
      context.setTransform(this.scale, 0, 0, this.scale, this.left, this.top);
      context.imageSmoothingEnabled = this.scale < 3;
      if (this.image) context.drawImage(this.image, 0, 0, this.width, this.height);
      context.imageSmoothingEnabled = false;
      context.drawImage(this.masks.canvas, 0, 0);
      this.extra(context);
    });
  }
}
