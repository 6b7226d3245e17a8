// Small charts beside each other with one scale for all: `cmpPickSmall(root)` -> {update(charts, {base, label})}, charts being
// `[{name, points: [{label, x, value, low, high}]}]`. A line over the checkpoints, its interval as a ribbon, `base` dashed. All of it
// stands in a table below.
(() => {
  "use strict";

  const SVG = "http://www.w3.org/2000/svg";
  const WIDE = 210, HIGH = 96, LEFT = 40, RIGHT = 6, TOP = 8, BOTTOM = 18;

  const node = (tag, attributes = {}, text = "") => {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text) made.textContent = text;
    return made;
  };

  const figure = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))));

  const scalesOf = (charts, base) => {
    const points = charts.flatMap((chart) => chart.points);
    const ends = [...points.flatMap(({ value, low, high }) => [value, low ?? value, high ?? value]), base];
    const xs = points.map((point) => point.x);
    const [low, high, first, last] = [Math.min(...ends), Math.max(...ends), Math.min(...xs), Math.max(...xs)];
    const edge = (high - low) * 0.08 || 0.1;
    return {
      x: (value) => LEFT + 4 + ((value - first) / (last - first || 1)) * (WIDE - LEFT - RIGHT - 8),
      y: (value) => TOP + ((high + edge - value) / (high - low + 2 * edge)) * (HIGH - TOP - BOTTOM),
      ticks: high - low > 1e-9 ? [low, high] : [low],
    };
  };

  const path = (points, x, y) => points.map(([at, value], i) => `${i ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");

  const drawn = ({ name, points }, { x, y, ticks }, base, label) => {
    const svg = node("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `${label}, ${name}: ${points.map((point) => `${point.label} ${figure(point.value)}`).join(", ")}` });
    const ribbon = points.filter((point) => point.low !== null && point.high !== null);
    if (ribbon.length > 1) svg.append(node("path", { class: "cmp-pick-ribbon", d: `${path([...ribbon.map((p) => [p.x, p.high]), ...ribbon.toReversed().map((p) => [p.x, p.low])], x, y)}Z` }));
    svg.append(node("line", { class: "cmp-pick-base", x1: LEFT, x2: WIDE - RIGHT, y1: y(base).toFixed(1), y2: y(base).toFixed(1) }), node("path", { class: "cmp-pick-line", d: path(points.map((p) => [p.x, p.value]), x, y) }));
    for (const point of points) svg.append(node("circle", { class: "cmp-pick-spot", cx: x(point.x).toFixed(1), cy: y(point.value).toFixed(1), r: 2.4 }));
    for (const tick of ticks) svg.append(node("text", { class: "cmp-pick-tick", x: LEFT - 4, y: (y(tick) + 3.5).toFixed(1), "text-anchor": "end" }, figure(Number(tick.toPrecision(2)))));
    [[points[0], "start"], [points.at(-1), "end"]].forEach(([point, anchor]) => svg.append(node("text", { class: "cmp-pick-tick", x: anchor === "start" ? LEFT : WIDE - RIGHT, y: HIGH - 4, "text-anchor": anchor }, point.label.replace(/^step (?=\d)/, ""))));
    return svg;
  };

  const tableOf = (charts, label, el) => {
    const rows = charts[0].points.map(({ id, label: name }) => el("tr", {}, el("th", { scope: "row", text: name }), ...charts.map((chart) => {
      const point = chart.points.find((one) => one.id === id);
      const range = point && point.low !== null && charts.length === 1 ? ` (${figure(point.low)} to ${figure(point.high)})` : "";
      return el("td", { text: point ? `${figure(point.value)}${range}` : "–" });
    })));
    const head = ["checkpoint", ...charts.map((chart) => chart.name)].map((text) => el("th", { scope: "col", text }));
    const table = el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
    const box = el("div", { class: "cmp-scroll", tabindex: "0", role: "region", "aria-label": `${label}, in figures` }, table);
    return el("details", { class: "cmp-pick-table" }, el("summary", { text: "In figures" }), box);
  };

  window.cmpPickSmall = (root) => {
    const { el } = window.cmpDom;
    let shown = "";
    const update = (charts, { base, label }) => {
      const told = JSON.stringify([charts, base, label]);
      if (told === shown) return; // what somebody has unfolded stays so
      shown = told;
      const scales = scalesOf(charts, base);
      const boxes = charts.map((chart) => el("figure", { class: "cmp-pick-small" }, ...(charts.length > 1 ? [el("figcaption", { text: chart.name })] : []), drawn(chart, scales, base, label)));
      root.replaceChildren(el("div", { class: "cmp-pick-smalls" }, ...boxes), tableOf(charts, label, el));
    };
    return { update };
  };
})();
