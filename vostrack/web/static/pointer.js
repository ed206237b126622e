/** Pointers on the frame: one draws; two fingers, Space and the wheel move and zoom. */

/**
 * What is drawn with.
 * @typedef {{tool: () => import("./tools.js").Tool, may: () => boolean, at: (point: [number, number]) => void,
 *   away: () => void, resize: (factor: number) => void}} Hand
 */

/** @param {import("./view.js").View} view @param {Hand} hand */
export function listen(view, hand) {
  const { canvas } = view;
  /** Where pointers are that are down, by number. @type {Map<number, PointerEvent>} */
  const down = new Map();
  /** @type {number | null} */
  let drawing = null;
  let panning = false;
  let space = false;

  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus();
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, event);
    if (down.size > 1) {
      if (drawing !== null) hand.tool().drop();
      drawing = null;
      return;
    }
    const point = view.point(event);
    hand.at(point);
    panning = event.button === 1 || space;
    canvas.classList.toggle("panning", panning);
    if (panning || event.button || !hand.may()) return;
    drawing = event.pointerId;
    hand.tool().down(point, event.shiftKey);
  });

  canvas.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId);
    if (before) down.set(event.pointerId, event);
    if (before && down.size > 1) return pinch(before, event);
    if (before && panning) return view.pan(event.clientX - before.clientX, event.clientY - before.clientY);
    const events = event.getCoalescedEvents?.() ?? [];
    const points = (events.length ? events : [event]).map((each) => view.point(each));
    hand.at(points[points.length - 1]);
    hand.tool().move(points, drawing === event.pointerId);
  });

  /** Move and zoom by what one of two fingers did. @param {PointerEvent} before @param {PointerEvent} now */
  function pinch(before, now) {
    const other = [...down.values()].find((each) => each.pointerId !== now.pointerId);
    if (!other) return;
    const apart = (/** @type {PointerEvent} */ one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    view.pan((now.clientX - before.clientX) / 2, (now.clientY - before.clientY) / 2);
    const middle = { clientX: (now.clientX + other.clientX) / 2, clientY: (now.clientY + other.clientY) / 2 };
    view.zoom(apart(now) / Math.max(apart(before), 1), view.point(middle));
  }

  /** @param {PointerEvent} event @param {boolean} dropped whether the system has taken the pointer away */
  function up(event, dropped) {
    if (!down.delete(event.pointerId)) return;
    panning = false;
    canvas.classList.remove("panning");
    if (drawing !== event.pointerId) return;
    drawing = null;
    if (dropped) hand.tool().drop();
    else hand.tool().up();
  }
  canvas.addEventListener("pointerup", (event) => up(event, false));
  canvas.addEventListener("pointercancel", (event) => up(event, true));
  canvas.addEventListener("lostpointercapture", (event) => up(event, true));
  canvas.addEventListener("pointerleave", () => hand.away());
  canvas.addEventListener("dblclick", () => hand.tool().finish());
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      if (hand.tool().sizes && !event.ctrlKey && !event.metaKey) hand.resize(event.deltaY < 0 ? 1.1 : 1 / 1.1);
      else view.zoom(Math.exp(-event.deltaY / 400), view.point(event));
    },
    { passive: false },
  );
  canvas.addEventListener("keydown", (event) => {
    if (event.key !== " ") return;
    space = true;
    event.preventDefault();
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === " ") space = false;
  });
  addEventListener("blur", () => {
    space = false;
  });
}
