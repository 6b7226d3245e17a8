// The few DOM helpers that the viewers share. Data reaches the page only through textContent, setAttribute and properties:
// run names, prompts and faults come from files that other people wrote.
(() => {
  "use strict";

  const el = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") node.addEventListener(name, value);
      else if (name === "text") node.textContent = value;
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };

  // Writing the same text again would collapse the reader's selection and wake screen readers.
  const setText = (node, text) => {
    const wanted = text === null || text === undefined ? "" : String(text);
    if (node.textContent !== wanted) node.textContent = wanted;
    node.hidden = wanted === "";
  };

  // Puts `nodes` under `parent` in this order; a node already in its place is not touched, so its images do not reload.
  const place = (parent, nodes) => {
    const wanted = new Set(nodes);
    for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
    nodes.forEach((node, i) => {
      if (parent.children[i] !== node) parent.insertBefore(node, parent.children[i] || null);
    });
  };

  // New nodes in the place of the old ones; who was at the third one with the keyboard is at the third one still.
  const refill = (parent, nodes) => {
    const at = [...parent.children].indexOf(document.activeElement);
    parent.replaceChildren(...nodes);
    if (at >= 0) parent.children[Math.min(at, nodes.length - 1)]?.focus();
  };

  // Keys name DOM nodes; two entries with one key must not fight over the same node.
  const uniqueKeys = (entries) => {
    const seen = new Map();
    return entries.map((entry, i) => {
      const key = String(entry.key ?? i);
      const times = seen.get(key) || 0;
      seen.set(key, times + 1);
      return times ? `${key}\u0000${times}` : key;
    });
  };

  // Storage may be forbidden (private window, sandboxed frame): then nothing is remembered and nothing breaks.
  const remember = (name, value) => {
    try { localStorage.setItem(name, String(value)); } catch { /* see above */ }
  };
  const recall = (name, otherwise) => {
    try { return localStorage.getItem(name) ?? otherwise; } catch { return otherwise; }
  };

  // A picture of few pixels shown large must show its pixels; one shown near its own size is smoothed.
  const sharpen = (img, width, height) => {
    const scale = Math.min(width / img.naturalWidth, height / img.naturalHeight);
    img.style.imageRendering = scale >= 2 ? "pixelated" : "auto";
    return scale;
  };

  window.cmpDom = { el, setText, place, refill, uniqueKeys, remember, recall, sharpen };
})();
