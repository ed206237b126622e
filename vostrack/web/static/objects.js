/** The list of objects, and questions to the person. */

/** @typedef {import("./api.js").Thing} Thing */

/** What an object is called. @param {Thing} thing */
export const title = (thing) => thing.name || `object ${thing.id}`;

/**
 * Shows the objects.
 * @param {HTMLElement} list @param {Thing[]} things
 * @param {number} chosen id @param {Set<number>} hidden ids
 * @param {{choose: (id: number) => void, hide: (id: number) => void, rename: (thing: Thing) => void,
 *   send: (step: import("./api.js").Step) => void}} act what buttons do
 */
export function listed(list, things, chosen, hidden, act) {
  const items = things.map((thing) => {
    const item = document.createElement("li");
    if (thing.id === chosen) item.setAttribute("aria-current", "true");
    const { id, locked } = thing;
    const color = Object.assign(document.createElement("input"), { type: "color", value: thing.color });
    color.setAttribute("aria-label", `Colour of ${title(thing)}`);
    color.addEventListener("change", () => act.send({ kind: "recolor", id, color: color.value }));
    const button = (/** @type {string} */ text, /** @type {string} */ label, /** @type {() => void} */ press) => {
      const made = Object.assign(document.createElement("button"), { type: "button", textContent: text, title: label });
      made.setAttribute("aria-label", `${label}: ${title(thing)}`);
      made.addEventListener("click", press);
      return made;
    };
    const name = button(title(thing), "Choose", () => act.choose(id));
    const lock = button(locked ? "locked" : "lock", locked ? "Unlock" : "Lock", () => act.send({ kind: "lock", id, locked: !locked }));
    const hide = button(hidden.has(id) ? "○" : "●", hidden.has(id) ? "Show" : "Hide", () => act.hide(id));
    [name.className, lock.className, hide.className] = ["name", "lock", "hide"];
    name.addEventListener("dblclick", () => act.rename(thing));
    item.append(
      color,
      name,
      button("✎", "Rename", () => act.rename(thing)),
      lock,
      hide,
      button("⇢", "Make part of the chosen object", () => act.send({ kind: "merge", id, other: chosen })),
      button("✕", "Delete", () => act.send({ kind: "delete", id })),
    );
    return item;
  });
  const { current } = list.dataset;
  list.replaceChildren(...items);
  list.dataset.current = String(chosen);
  const item = items[things.findIndex(({ id }) => id === chosen)];
  if (!item || current === String(chosen)) return;
  const top = item.offsetTop - list.offsetTop; // the list alone is scrolled, so that no button moves
  list.scrollTop = Math.max(Math.min(list.scrollTop, top), top + item.offsetHeight - list.clientHeight);
}

/** @param {string} title @param {string} text @param {string} value @returns {Promise<string | null>} */
export function question(title, text, value) {
  const at = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
  const dialog = /** @type {HTMLDialogElement} */ (at("ask"));
  const input = /** @type {HTMLInputElement} */ (at("ask-value"));
  at("ask-title").textContent = title;
  at("ask-text").textContent = text;
  input.value = value;
  dialog.returnValue = "";
  dialog.showModal();
  input.select();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue ? input.value : null), { once: true });
  });
}
