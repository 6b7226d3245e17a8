// What stands in a cell of a table, and how two of them are ordered: `cmpTableCells` -> {textOf, sortOf, compare, contentOf}.
(() => {
  "use strict";
  const { el } = window.cmpDom;

  const textOf = (cell) => (cell && typeof cell === "object" ? cell.text : cell) ?? "";
  const sortOf = (cell) => (cell && typeof cell === "object" && "sort" in cell ? cell.sort : textOf(cell));

  const inWords = new Intl.Collator(undefined, { numeric: true });

  // What has no value stands last, whichever way the others are ordered.
  const compare = (a, b, down = false) => {
    const [x, y] = [sortOf(a), sortOf(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "number" && typeof y === "number" ? x - y : inWords.compare(String(x), String(y));
    return down ? -order : order;
  };

  const SVG = "http://www.w3.org/2000/svg";
  const svg = (tag, attributes) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };

  // Pictures over the steps, the oldest first; each with its step below.
  const stripOf = (cell) => {
    if (!cell.strip.length) return el("span", { class: "cmp-none", text: cell.text });
    const pictures = cell.strip.map(({ url, label }) => {
      const img = el("img", { src: url, alt: `step ${label}`, loading: "lazy", decoding: "async", draggable: "false" });
      const frame = el("span", { class: "cmp-strip-picture" }, img, el("span", { class: "cmp-strip-step", text: label }));
      img.addEventListener("load", () => window.cmpDom.sharpen(img, img.clientWidth, img.clientHeight));
      img.addEventListener("error", () => { frame.classList.add("is-lost"); img.remove(); });
      return frame;
    });
    return el("div", { class: "cmp-strip" }, el("div", { class: "cmp-strip-row" }, ...pictures), el("span", { class: "cmp-sub", text: cell.text }));
  };

  // The course of a value, scaled to its box; the last point is marked.
  const WIDE = 104, HIGH = 30, EDGE = 3;
  const lineOf = (cell) => {
    if (cell.pending) return el("span", { class: "cmp-line is-pending", role: "img", "aria-label": "the log is being read" });
    if (!cell.line.length) return null;
    const at = cell.line.map(([x, y]) => [EDGE + x * (WIDE - 2 * EDGE), HIGH - EDGE - y * (HIGH - 2 * EDGE)].map((n) => n.toFixed(1)));
    const [x, y] = at[at.length - 1];
    const node = svg("svg", { class: "cmp-line", viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `course of the loss, now ${cell.text}` });
    node.append(svg("polyline", { points: at.map((point) => point.join(",")).join(" ") }), svg("circle", { cx: x, cy: y, r: 2.4 }));
    return node;
  };

  // When something was written, as short as it can be said: the hour matters today, the year only of another one.
  const dayOf = (seconds) => {
    if (seconds === null) return "–";
    const [at, now] = [new Date(seconds * 1000), new Date()];
    if (at.toDateString() === now.toDateString()) return at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
    const year = at.getFullYear() === now.getFullYear() ? {} : { year: "numeric" };
    return at.toLocaleDateString("en-GB", { day: "numeric", month: "short", ...year });
  };
  const momentOf = (seconds) => (seconds === null ? "not known" : new Date(seconds * 1000).toLocaleString("en-GB", { dateStyle: "full", timeStyle: "short" }));

  const contentOf = (cell) => {
    if (cell && typeof cell === "object" && cell.strip) return [stripOf(cell)];
    if (cell && typeof cell === "object" && "line" in cell) return [el("div", { class: "cmp-loss" }, ...[lineOf(cell)].filter(Boolean), el("span", { text: cell.text }))];
    if (cell && typeof cell === "object" && "time" in cell) return [el("span", { text: dayOf(cell.time), title: momentOf(cell.time) })];
    return [String(textOf(cell)), ...(cell?.sub ? [el("span", { class: "cmp-sub is-whole", text: cell.sub })] : [])];
  };

  window.cmpTableCells = { textOf, sortOf, compare, contentOf };
})();
