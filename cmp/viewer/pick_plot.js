// One rule's scores drawn by hand: `cmpPickPlot(root, {onPick})` -> {update(panel, picked), svg()}. Checkpoints along x, a bar for each interval,
// the window shaded, the best marked, the base model a dashed line. Everything that it shows stands in the table below it, too.
(() => {
  "use strict";

  const SVG = "http://www.w3.org/2000/svg";
  const HIGH = 210, TOP = 14, BOTTOM = 34, RIGHT = 14;
  const MOST_WIDE = 8; // times the spread of the values: intervals that are wider than this are cut, and end in an arrow
  const LETTER = 6.6; // pixels of a figure

  const node = (tag, attributes = {}, text = "") => {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text) made.textContent = text;
    return made;
  };

  const ticksOf = (low, high, most) => {
    const rough = (high - low) / most || 1;
    const size = 10 ** Math.floor(Math.log10(rough));
    const every = [1, 2, 5, 10].map((times) => times * size).find((step) => step >= rough);
    const ticks = [];
    for (let n = Math.ceil(low / every - 1e-9); n * every <= high + every * 1e-9; n += 1) ticks.push(n * every);
    return { ticks, digits: Math.max(0, -Math.floor(Math.log10(every) + 1e-9)) };
  };

  const figure = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))));

  // The lowest and highest value to be shown; one wide interval must not make all points one.
  const rangeOf = ({ points, base }) => {
    const values = [...points.map((point) => point.value), ...(base === null ? [] : [base])];
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const room = (most - least) * MOST_WIDE || Infinity;
    const ends = points.flatMap(({ low, high }) => [low, high]).filter((end) => end !== null && end > least - room && end < most + room);
    const [low, high] = [Math.min(least, ...ends), Math.max(most, ...ends)];
    const edge = (high - low) * 0.07 || Math.abs(high) * 0.1 || 1;
    return [low - edge, high + edge];
  };

  const makeScales = (panel, width) => {
    const [low, high] = rangeOf(panel);
    const { ticks, digits } = ticksOf(low, high, 5);
    const texts = ticks.map((tick) => tick.toFixed(digits));
    const left = 12 + LETTER * Math.max(...texts.map((text) => text.length), 2);
    const xs = panel.points.map((point) => point.x);
    const [first, last] = [Math.min(...xs), Math.max(...xs)];
    const edge = Math.min(46, width * 0.07);
    const x = (value) => left + edge + ((value - first) / (last - first || 1)) * (width - left - RIGHT - 2 * edge);
    const y = (value) => TOP + ((high - value) / (high - low)) * (HIGH - TOP - BOTTOM);
    return { x, y, left, low, high, ticks: ticks.map((tick, i) => [tick, texts[i]]) };
  };

  // Shades from halfway to the neighbour before to halfway to the one behind; a window may be in several pieces.
  const shade = (svg, points, { x, left }, width) => {
    const between = (i) => (i < 0 ? left : i >= points.length - 1 ? width - RIGHT : (x(points[i].x) + x(points[i + 1].x)) / 2);
    points.forEach((point, i) => {
      if (!point.window || points[i - 1]?.window) return;
      let last = i;
      while (points[last + 1]?.window) last += 1;
      const [from, to] = [between(i - 1), between(last)];
      svg.append(node("rect", { class: "cmp-pick-window", x: from.toFixed(1), y: TOP, width: Math.max(0, to - from).toFixed(1), height: HIGH - TOP - BOTTOM }));
    });
  };

  const frame = (svg, { ticks, y, left }, width) => {
    for (const [tick, text] of ticks) {
      svg.append(node("line", { class: "cmp-pick-rule", x1: left, x2: width - RIGHT, y1: y(tick).toFixed(1), y2: y(tick).toFixed(1) }),
        node("text", { class: "cmp-pick-tick", x: left - 6, y: (y(tick) + 4).toFixed(1), "text-anchor": "end" }, text));
    }
  };

  // As many labels as fit beside each other; the last one stands always.
  const labels = (svg, panel, { x }) => {
    let end = Infinity;
    for (const point of [...panel.points].reverse()) {
      const text = point.label.replace(/^step (?=\d)/, "");
      const half = (Math.min(text.length, 12) * LETTER) / 2 + 4;
      if (x(point.x) + half > end) continue;
      end = x(point.x) - half;
      svg.append(node("text", { class: "cmp-pick-tick", x: x(point.x).toFixed(1), y: HIGH - 14, "text-anchor": "middle" }, text.length > 12 ? `${text.slice(0, 11)}…` : text));
    }
  };

  const interval = (group, { low, high }, at, scales) => {
    const [from, to] = [Math.max(low, scales.low), Math.min(high, scales.high)];
    const [bottom, top] = [scales.y(from).toFixed(1), scales.y(to).toFixed(1)];
    group.append(node("line", { class: "cmp-pick-bar", x1: at, x2: at, y1: bottom, y2: top }));
    const cap = (y, cut, way) => node("path", { class: "cmp-pick-bar", d: cut ? `M${at - 4} ${Number(y) + 5 * way}L${at} ${y}L${at + 4} ${Number(y) + 5 * way}` : `M${at - 4} ${y}H${at + 4}` });
    group.append(cap(bottom, low < scales.low, -1), cap(top, high > scales.high, 1));
  };

  const mark = (point, scales, picked) => {
    const [at, y] = [Number(scales.x(point.x).toFixed(1)), scales.y(point.value).toFixed(1)];
    const group = node("g", { class: ["cmp-pick-point", point.window ? "is-window" : "", point.best ? "is-best" : "", point.id === picked ? "is-picked" : ""].filter(Boolean).join(" "), "data-id": point.id });
    if (point.low !== null && point.high !== null) interval(group, point, at, scales);
    if (point.id === picked) group.append(node("circle", { class: "cmp-pick-ring", cx: at, cy: y, r: 8.5 }));
    if (point.best) group.append(node("path", { class: "cmp-pick-dot", d: `M${at} ${y - 6.5}L${at + 6.5} ${y}L${at} ${Number(y) + 6.5}L${at - 6.5} ${y}Z` }));
    else group.append(node("circle", { class: "cmp-pick-dot", cx: at, cy: y, r: 4.5 }));
    return group;
  };

  // Its name stands at the end where the nearest point leaves more room.
  const base = (svg, panel, { y, left }, width) => {
    if (panel.base === null) return;
    const at = y(panel.base);
    const room = (point) => Math.abs(y(point.value) - at);
    const start = room(panel.points[0]) > room(panel.points.at(-1));
    const words = { class: "cmp-pick-tick cmp-pick-of-base", x: start ? left + 4 : width - RIGHT - 4, y: (at > TOP + 18 ? at - 5 : at + 14).toFixed(1), "text-anchor": start ? "start" : "end" };
    svg.append(node("line", { class: "cmp-pick-base", x1: left, x2: width - RIGHT, y1: at.toFixed(1), y2: at.toFixed(1) }), node("text", words, "base model"));
  };

  const words = (point, panel) => {
    const range = point.low === null || point.high === null ? "interval not known" : `${figure(point.low)} to ${figure(point.high)} at 95 %`;
    const place = point.best ? "the best" : point.window ? "in the window" : "";
    return [figure(point.value), range, `${point.n} ${point.n === 1 ? panel.counts.replace(/s$/, "") : panel.counts}`, place].filter(Boolean);
  };

  // A file by itself: what the page's style sheet says of each part is written into it.
  const STYLED = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "paint-order", "font-size", "font-weight"];
  const standalone = (svg, background) => {
    const copy = svg.cloneNode(true);
    const [own, made] = [[...svg.querySelectorAll("*")], [...copy.querySelectorAll("*")]];
    own.forEach((part, i) => {
      const style = getComputedStyle(part);
      for (const name of STYLED) made[i].setAttribute(name, style.getPropertyValue(name));
      if (part.tagName === "text") made[i].setAttribute("font-family", "system-ui, sans-serif");
    });
    copy.setAttribute("xmlns", SVG);
    copy.prepend(node("rect", { width: "100%", height: "100%", fill: background }));
    return new XMLSerializer().serializeToString(copy);
  };

  window.cmpPickPlot = (root, { onPick }) => {
    const { el } = window.cmpDom;
    const tip = el("div", { class: "cmp-pick-tip", hidden: "" });
    const box = el("div", { class: "cmp-pick-chart" });
    root.append(box, tip);
    let panel = null, picked = "", svg = null, scales = null, drawn = 0;

    const nearest = (event) => {
      const at = event.clientX - svg.getBoundingClientRect().left;
      return panel.points.reduce((best, point) => (Math.abs(scales.x(point.x) - at) < Math.abs(scales.x(best.x) - at) ? point : best));
    };

    const hover = (event) => {
      const point = nearest(event);
      tip.replaceChildren(el("strong", { text: point.label }), ...words(point, panel).map((text) => el("span", { text })));
      tip.hidden = false;
      const right = scales.x(point.x) > box.clientWidth / 2;
      tip.style.left = right ? "auto" : `${scales.x(point.x) + 14}px`;
      tip.style.right = right ? `${box.clientWidth - scales.x(point.x) + 14}px` : "auto";
      for (const part of svg.querySelectorAll(".cmp-pick-point")) part.classList.toggle("is-near", part.dataset.id === point.id);
    };

    const leave = () => {
      tip.hidden = true;
      for (const part of svg?.querySelectorAll(".is-near") ?? []) part.classList.remove("is-near");
    };

    const draw = () => {
      const width = drawn = box.clientWidth;
      if (!panel || !width) return;
      scales = makeScales(panel, width);
      svg = node("svg", { viewBox: `0 0 ${width} ${HIGH}`, width, height: HIGH, role: "img", "aria-label": `${panel.name}: ${panel.sentence}` });
      shade(svg, panel.points, scales, width);
      frame(svg, scales, width);
      base(svg, panel, scales, width);
      svg.append(...panel.points.map((point) => mark(point, scales, picked)));
      labels(svg, panel, scales);
      svg.addEventListener("pointermove", hover);
      svg.addEventListener("pointerleave", leave);
      svg.addEventListener("click", (event) => onPick(nearest(event).id));
      box.replaceChildren(svg);
      leave();
    };
    new ResizeObserver(() => { if (box.clientWidth !== drawn) draw(); }).observe(box);

    const update = (next, wanted) => {
      [panel, picked] = [next, wanted];
      draw();
    };
    return { update, svg: () => standalone(svg, getComputedStyle(root).backgroundColor) };
  };
  window.cmpPickPlot.figure = figure;
})();
