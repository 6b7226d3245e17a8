// The curves of `changes.js` in the matrix: `cmpChangeCurves(grid, {on, changeOf, top, figure})`. Below each row where the steps run across;
// in the heads of the columns where they run down, and of the rows where they are shown one at a time.
(() => {
  "use strict";

  const SVG = "http://www.w3.org/2000/svg";
  const HIGH = 30;
  const WIDE = 96;

  const svg = (tag, attributes) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };

  // `lines` are [[x, y]] with null for a gap.
  const path = (line) => line.map((point, n) => (point ? `${line[n - 1] ? "L" : "M"}${point[0].toFixed(2)} ${point[1].toFixed(2)}` : "")).join("");
  const draw = (width, lines, label) => {
    const node = svg("svg", { viewBox: `0 0 ${width} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": label, class: "cmp-change-svg" });
    node.append(svg("line", { x1: 0, x2: width, y1: HIGH - 1, y2: HIGH - 1, class: "cmp-change-zero" }), ...lines.map((line) => svg("path", { d: path(line), class: "cmp-change-line" })));
    return node;
  };
  const yOf = (value, top) => HIGH - 2 - (top ? (value / top) * (HIGH - 5) : 0);

  // Of one row: the pictures that differ in nothing but the step make a line.
  const linesOf = (grid, r, told) => {
    const { i } = grid.stepAxis();
    const lines = new Map();
    grid.arranged().columns.forEach((head, c) => {
      const record = grid.arranged().at(r, c);
      if (!grid.hasStep(record)) return;
      const value = told.changeOf(record);
      const others = JSON.stringify(record.at.filter((_, n) => n !== i));
      if (!lines.has(others)) lines.set(others, []);
      lines.get(others).push(value === null ? null : { c, value, name: [head.group, head.label].filter(Boolean).join(" ") });
    });
    return [...lines.values()].filter((line) => line.some(Boolean));
  };

  const below = (grid, r, told) => {
    const { dom } = grid;
    const { el } = dom;
    const count = grid.size().columns;
    const lines = linesOf(grid, r, told);
    const points = lines.flat().filter(Boolean).sort((a, b) => a.c - b.c);
    const label = points.length ? `Change since the step before: ${points.map(({ name, value }) => `${name} ${told.figure(value)}`).join(", ")}` : "Change since the step before: not known yet";
    const box = el("div", { class: "cmp-change-box" },
      draw(count * 100, lines.map((line) => line.map((point) => point && [point.c * 100 + 50, yOf(point.value, told.top)])), label),
      ...points.map(({ c, value }) => {
        const dot = el("i", { class: "cmp-change-dot", "aria-hidden": "true" });
        const text = el("span", { class: "cmp-change-value", "aria-hidden": "true", text: told.figure(value) });
        for (const node of [dot, text]) node.style.left = `${(100 * (c + 0.5)) / count}%`;
        dot.style.top = `${yOf(value, told.top)}px`;
        return [dot, text];
      }).flat());
    return el("tr", { role: "row", class: "cmp-change-row" }, el("th", { role: "rowheader", class: "cmp-head is-row", scope: "row" }, el("div", {}, el("span", { class: "cmp-sub", text: "change" }))),
      el("td", { role: "gridcell", colspan: count }, box));
  };

  const mean = (values) => { const known = values.filter((value) => value !== null); return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null; };

  // Over all steps, though only one of them is in sight: the mean of what stands in this row or column.
  const spark = (grid, records, told) => {
    const axis = grid.stepAxis();
    const steps = [...axis.shown].sort((a, b) => a - b);
    const values = steps.map((step) => mean(records.filter(grid.hasStep).map((record) => grid.atStep(record, step)).map((record) => (record && record.at[axis.i] === step ? told.changeOf(record) : null))));
    const x = (n) => 3 + (n * (WIDE - 6)) / Math.max(1, steps.length - 1);
    const names = steps.map((step, n) => (values[n] === null ? "" : `${axis.values[step].label} ${told.figure(values[n])}`)).filter(Boolean);
    const label = `Change since the step before: ${names.join(", ") || "not known yet"}`;
    const node = draw(WIDE, [values.map((value, n) => (value === null ? null : [x(n), yOf(value, told.top)]))], label);
    const here = axis.place === "" ? steps.indexOf(axis.picked) : -1;
    if (here >= 0) node.append(svg("line", { x1: x(here), x2: x(here), y1: 0, y2: HIGH, class: "cmp-change-here" }));
    const title = svg("title", {});
    title.textContent = label;
    node.prepend(title);
    node.classList.add("is-spark");
    return node;
  };

  window.cmpChangeCurves = (grid, told) => {
    for (const old of grid.part.table.querySelectorAll(".cmp-change-row, .is-spark")) old.remove();
    if (!told.on) return;
    const { rows, columns } = grid.size();
    const { place } = grid.stepAxis();
    const all = (count) => [...Array(count).keys()];
    const rowOf = (r) => grid.frameAt(r, 0)?.closest("tr");
    if (place === "x" || place === "X") for (const r of all(rows)) rowOf(r)?.after(below(grid, r, told));
    else if (place === "") for (const r of all(rows)) rowOf(r)?.querySelector("th > div")?.append(spark(grid, all(columns).map((c) => grid.arranged().at(r, c)), told));
    else {
      const heads = grid.part.head.querySelectorAll("th.cmp-head.is-col > div");
      for (const c of all(columns)) heads[c]?.append(spark(grid, all(rows).map((r) => grid.arranged().at(r, c)), told));
    }
  };
})();
