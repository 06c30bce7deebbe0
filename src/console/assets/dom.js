// Makes and changes elements. Text only ever goes in as text, so what a job is called can never become markup.

export const byId = (id) => document.getElementById(id);

// el("p", {class: "note", hidden: true, onclick: f}, "text", child)
export function el(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

// The setters below touch the page only where something differs: with a hundred live rows that is what keeps
// it calm, and what keeps a screen reader from hearing the same thing again.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else {
    const text = value === true ? "" : String(value);
    if (node.getAttribute(name) !== text) node.setAttribute(name, text);
  }
}

// A button that cannot be pressed now. One that has the focus keeps it: `disabled` would take it away from whoever works by
// keyboard, and with it the reason that its title gives.
export function disable(button, isDisabled) {
  const holdsFocus = isDisabled && document.activeElement === button;
  setAttribute(button, "disabled", isDisabled && !holdsFocus);
  setAttribute(button, "aria-disabled", holdsFocus ? "true" : null);
}

export const isDisabled = (button) => button.disabled || button.getAttribute("aria-disabled") === "true";

const HELD = "button[aria-disabled=true]";
document.addEventListener("click", (event) => {
  if (!event.target.closest?.(HELD)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
}, true);
document.addEventListener("focusout", ({ target }) => {
  if (!target.matches?.(HELD)) return;
  target.removeAttribute("aria-disabled");
  target.disabled = true;
});

// Opens a dialog. The browser gives the focus back to where it was; where that is gone meanwhile, the page's heading has it.
export function openDialog(dialog) {
  if (dialog.open) return;
  dialog.showModal();
  dialog.addEventListener("close", () => requestAnimationFrame(() => {
    if (document.activeElement !== document.body || document.querySelector("dialog[open]")) return;
    const heading = [byId("page-heading"), document.querySelector(".resource-name")].find((one) => one?.checkVisibility());
    heading?.focus({ preventScroll: true });
  }), { once: true });
}

// For a screen reader: results politely, what went wrong at once. The same words twice are said twice.
export function say(text, urgent = false) {
  const node = byId(urgent ? "say-now" : "say");
  const line = el("p", {}, text);
  node.append(line);
  setTimeout(() => line.remove(), 10_000);
}

// A button that copies a text, and says that it did.
export function copyButton(what, text) {
  const button = el("button", { type: "button", class: "plain copy", "aria-label": `Copy ${what}` }, "Copy");
  button.addEventListener("click", async () => {
    let copied = false;
    try {
      // Browsers offer the clipboard only to https and localhost.
      await navigator.clipboard.writeText(text());
      copied = true;
    } catch {
      const source = button.previousElementSibling;
      if (source) getSelection().selectAllChildren(source);
    }
    setText(button, copied ? "Copied" : "Selected");
    say(copied ? `Copied ${what}` : `Selected ${what}: press Ctrl+C`);
    setTimeout(() => setText(button, "Copy"), 2_000);
  });
  return button;
}

// randomUUID exists on https and localhost only; a console on a plain address in a private network needs one too.
export function newId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// A link within the console.
export function link(address, text, properties = {}) {
  return el("a", { href: address, ...properties }, text);
}
