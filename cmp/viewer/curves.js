// The loss chart: `cmpCurves(root, {onPick})` -> {update(value)}, drawn with Plotly.js. `value` is plain JSON; its fields are listed
// in the Python module beside this file. Points arrive thinned, so that SVG lines are enough and stay sharp.
(() => {
  "use strict";

  // Okabe and Ito's palette, told apart with every common colour blindness; without its yellow, which vanishes on white.
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8a8f98"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  // How far from a checkpoint's mark, in pixels, the pointer still means it.
  const REACH = 14;

  // On a dark page the same colours, nearer to white: the palette's blue would sink.
  const lift = (hex, share) => {
    const part = (i) => Math.round(parseInt(hex.slice(i, i + 2), 16) * (1 - share) + 255 * share);
    return `rgb(${part(1)}, ${part(3)}, ${part(5)})`;
  };
  const isLight = (colour) => {
    const [r, g, b] = (colour.match(/[\d.]+/g) || [0, 0, 0]).map(Number);
    return 0.3 * r + 0.6 * g + 0.1 * b > 128;
  };

  // Plotly reads <b>, <a href> and entities in every text; names must arrive as they are.
  const plain = (text) => String(text ?? "").replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\s+/g, " ");
  const short = (text, most = 60) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
  const keyOf = (series) => `${series.run}\u0000${series.tag}`;

  const build = (root, { el }) => {
    const part = {
      legend: el("div", { class: "cmp-legend" }),
      reset: el("button", { type: "button", class: "cmp-button", text: "Reset zoom", hidden: "" }),
      chart: el("div", { class: "cmp-chart", role: "img" }),
      marks: el("div", { class: "cmp-marks", role: "group", "aria-label": "Checkpoints", hidden: "" }),
      empty: el("p", { class: "cmp-empty", hidden: "" }),
      notes: el("ul", { class: "cmp-notes", hidden: "" }),
    };
    root.classList.add("cmp-curves");
    root.replaceChildren(el("div", { class: "cmp-curves-bar" }, part.legend, part.reset), part.chart, part.marks, part.empty, part.notes);
    return part;
  };

  // Plotly reads neither CSS variables nor the newer colour functions. What the style sheet made of them is painted on one pixel and read back.
  const makeTheme = (root) => {
    const pen = dot().getContext("2d", { willReadFrequently: true });
    const rgb = (colour) => {
      pen.clearRect(0, 0, 1, 1);
      pen.fillStyle = colour;
      pen.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
      return `rgba(${r}, ${g}, ${b}, ${a / 255})`;
    };
    return () => {
      const style = getComputedStyle(root);
      const text = rgb(style.color);
      return { text, dark: isLight(text), paper: rgb(style.backgroundColor), line: rgb(style.borderTopColor), muted: rgb(style.outlineColor),
        font: style.fontFamily, size: parseFloat(style.fontSize) || 13 };
    };
  };
  const dot = () => Object.assign(document.createElement("canvas"), { width: 1, height: 1 });

  // A run keeps the colour that it was first shown in, whatever else comes and goes.
  const makePalette = () => {
    const order = new Map();
    return (run, theme) => {
      if (!order.has(run)) order.set(run, order.size);
      const i = order.get(run);
      const colour = COLOURS[i % COLOURS.length];
      return { colour: theme.dark ? lift(colour, 0.24) : colour, faint: theme.dark ? 0.42 : 0.28, turn: Math.floor(i / COLOURS.length) };
    };
  };

  const styleOf = (series, palette, tags, theme) => {
    const { colour, faint, turn } = palette(series.run, theme);
    return { colour, faint, dash: DASHES[(tags.indexOf(series.tag) + turn) % DASHES.length] };
  };

  const linesOf = (series, style, visible) => {
    const strong = series.smooth || series.y;
    const name = plain(short(series.label || series.run));
    const hover = series.smooth ? "%{y:.4~g}  (raw %{customdata:.4~g})" : "%{y:.4~g}";
    const common = { type: "scatter", mode: "lines", x: series.x, connectgaps: false, visible, name, showlegend: false };
    const raw = { ...common, uid: `raw ${keyOf(series)}`, y: series.y, hoverinfo: "skip", opacity: style.faint,
      line: { color: style.colour, width: 1 } };
    const line = { ...common, uid: `line ${keyOf(series)}`, y: strong, customdata: series.y, hovertemplate: `${hover}<extra>%{fullData.name}</extra>`,
      line: { color: style.colour, width: series.smooth ? 2.2 : 1.3, dash: style.dash } };
    return series.smooth ? [raw, line] : [line];
  };

  // The height of a marker that was sent without one: its run's line at that step, between two points by proportion. A run that logs
  // every tenth step ends a little before its last checkpoint, so that a mark slightly outside takes the height of the line's end.
  const heightAt = ({ x, y, smooth }, step) => {
    const line = smooth || y;
    const last = x.length - 1;
    const slack = 0.05 * (x[last] - x[0]);
    if (!(step >= x[0] - slack && step <= x[last] + slack)) return null;
    const after = x.findIndex((at) => at >= step);
    if (after <= 0) return line[after < 0 ? last : 0] ?? null;
    const [low, high] = [line[after - 1], line[after]];
    if (low === null || high === null) return x[after] === step ? high : null;
    return low + ((step - x[after - 1]) / (x[after] - x[after - 1])) * (high - low);
  };

  const withHeights = (value) => value.markers.map((marker) => {
    const line = value.series.find((series) => series.run === marker.run);
    return { ...marker, y: marker.y ?? (line ? heightAt(line, marker.step) : null) };
  });

  const diamondsOf = (run, markers, colour, visible, theme) => ({
    type: "scatter", mode: "markers", uid: `marks ${run}`, visible, showlegend: false, cliponaxis: false,
    x: markers.map((marker) => marker.step), y: markers.map((marker) => marker.y),
    name: "", customdata: markers.map((marker) => `checkpoint ${marker.step}`),
    hovertemplate: "◆ %{customdata}<extra></extra>",
    marker: { symbol: "diamond", size: 11, color: colour, line: { color: theme.paper, width: 1.5 } },
  });

  const layoutOf = (value, theme, width, height) => {
    const axis = { gridcolor: theme.line, linecolor: theme.line, zeroline: false, color: theme.muted, tickcolor: theme.line, automargin: true };
    const lines = value.series.map(keyOf).sort().join("\u0001");
    return {
      width, height, showlegend: false, dragmode: "zoom", hovermode: "x unified", hoverdistance: REACH,
      paper_bgcolor: theme.paper, plot_bgcolor: theme.paper, margin: { l: 48, r: 14, t: 8, b: 36 },
      font: { family: theme.font, size: theme.size - 1, color: theme.text },
      hoverlabel: { bgcolor: theme.paper, bordercolor: theme.line, font: { color: theme.text, size: theme.size - 1 }, namelength: -1, align: "left" },
      xaxis: { ...axis, title: { text: "step", standoff: 6 }, showgrid: false, ticks: "outside", ticklen: 4,
        hoverformat: ",d", unifiedhovertitle: { text: "step %{x}" },
        showspikes: true, spikemode: "across", spikethickness: 1, spikedash: "solid", spikecolor: theme.muted, uirevision: lines },
      // Another scale means other units: a zoom kept across it would show an empty chart.
      yaxis: { ...axis, title: { text: yTitle(value), standoff: 8 }, type: value.log ? "log" : "linear", exponentformat: "power",
        uirevision: `${value.log ? "log" : "linear"} ${lines}` },
      uirevision: lines,
    };
  };

  const yTitle = (value) => {
    const tags = [...new Set(value.series.map((series) => series.tag))];
    const name = tags.length === 1 ? plain(short(String(tags[0] || "loss"), 40)) : "value";
    return value.log ? `${name} (log)` : name;
  };

  const isZoomed = (chart) => {
    const { xaxis, yaxis } = chart.layout;
    return xaxis.autorange === false || yaxis.autorange === false;
  };

  // In unified hover Plotly reports what lies at that step, however far above or below: the distance decides what was meant.
  const markerNear = (chart, markers, event) => {
    const { xaxis, yaxis } = chart._fullLayout;
    const box = chart.getBoundingClientRect();
    let best = null;
    for (const marker of markers) {
      if (marker.y === null) continue;
      const x = box.left + xaxis._offset + xaxis.d2p(marker.step);
      const y = box.top + yaxis._offset + yaxis.d2p(marker.y);
      const far = Math.hypot(event.clientX - x, event.clientY - y);
      if (far <= REACH && (!best || far < best.far)) best = { far, marker };
    }
    return best?.marker ?? null;
  };

  const onTheme = (root, redraw) => {
    const watch = new MutationObserver(() => (root.isConnected ? redraw() : watch.disconnect()));
    for (const node of [document.documentElement, document.body]) watch.observe(node, { attributes: true, attributeFilter: ["class", "style"] });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  };

  window.cmpCurves = (root, { onPick } = {}) => {
    const dom = window.cmpDom;
    const part = build(root, dom);
    const palette = makePalette();
    const themeNow = makeTheme(root);
    const hidden = new Set();
    let value = { series: [], markers: [], notes: [] };
    let seenTheme = "";
    let waiting = 0;

    const shownMarkers = () => {
      const visible = new Set(value.series.filter((series) => !hidden.has(keyOf(series))).map((series) => series.run));
      return value.markers.filter((marker) => visible.has(marker.run) && marker.y !== null);
    };

    const traces = (theme) => {
      const tags = [...new Set(value.series.map((series) => series.tag))];
      const lines = value.series.flatMap((series) => linesOf(series, styleOf(series, palette, tags, theme), !hidden.has(keyOf(series))));
      const runs = [...new Set(value.series.map((series) => series.run))];
      const marks = shownMarkers();
      const diamonds = runs.map((run) => {
        const own = marks.filter((marker) => marker.run === run);
        return diamondsOf(run, own, palette(run, theme).colour, own.length > 0, theme);
      });
      return [...lines, ...diamonds];
    };

    // The label that the pointer would bring up at that step.
    const look = ({ step }) => { if (part.chart._fullLayout) window.Plotly.Fx.hover(part.chart, { xval: step }); };
    const pick = ({ run, step }) => onPick?.({ index: step, value: run, run, step });
    const marks = window.cmpMarks(part.marks, { onPick: pick, onLook: look, onLeave: () => window.Plotly.Fx.unhover(part.chart) });

    const toggle = (key) => {
      if (!hidden.delete(key)) hidden.add(key);
      draw();
    };

    const drawLegend = (theme) => {
      const tags = [...new Set(value.series.map((series) => series.tag))];
      dom.refill(part.legend, value.series.map((series) => {
        const key = keyOf(series);
        const { colour, dash } = styleOf(series, palette, tags, theme);
        const swatch = dom.el("i", { class: "cmp-swatch" });
        swatch.style.borderTop = `3px ${{ solid: "solid", dash: "dashed", dot: "dotted", dashdot: "double" }[dash]} ${colour}`;
        const text = [series.label || series.run, tags.length > 1 ? series.tag : ""].filter(Boolean).join(" · ");
        return dom.el("button", { type: "button", class: "cmp-entry", "aria-pressed": String(!hidden.has(key)),
          title: `${text}\nClick to hide or show`, click: () => toggle(key) }, swatch, dom.el("span", { text }));
      }));
    };

    const draw = () => {
      const width = part.chart.clientWidth;
      // In a hidden tab there is no size yet; the observer below calls again when there is one.
      if (!width || !value.series.length) return;
      const theme = themeNow();
      seenTheme = JSON.stringify(theme);
      const layout = layoutOf(value, theme, width, part.chart.clientHeight);
      const config = { displayModeBar: false, displaylogo: false, doubleClick: "reset+autosize", responsive: false, showTips: false };
      const isNew = !part.chart._fullLayout;
      drawLegend(theme);
      marks.update(shownMarkers().map((marker) => ({ ...marker, colour: palette(marker.run, theme).colour })), value.picking);
      window.Plotly.react(part.chart, traces(theme), layout, config);
      if (isNew) listen();
      showReset();
    };

    // Many reasons to draw may come in one frame (value, size, theme): one drawing answers them all.
    const soon = () => {
      if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; draw(); });
    };

    const showReset = () => { part.reset.hidden = !isZoomed(part.chart); };

    const listen = () => {
      part.chart.on("plotly_click", ({ event }) => {
        const marker = markerNear(part.chart, shownMarkers(), event);
        if (marker) pick(marker);
      });
      part.chart.on("plotly_relayout", showReset);
      part.chart.addEventListener("pointermove", (event) => {
        part.chart.classList.toggle("is-at-marker", Boolean(markerNear(part.chart, shownMarkers(), event)));
      });
    };

    const update = (next) => {
      value = next && typeof next === "object" ? { ...next } : {};
      value.series = value.series || [];
      value.markers = value.markers || [];
      value.markers = withHeights(value);
      root.classList.toggle("is-empty", !value.series.length);
      dom.setText(part.empty, value.series.length ? "" : value.empty || "Nothing to show yet.");
      const lost = value.markers.filter((marker) => marker.y === null).length;
      const notes = [...(value.notes || []),
        ...(lost ? [`${lost} of ${value.markers.length} checkpoints lie where nothing was logged and have no mark.`] : [])];
      part.notes.replaceChildren(...notes.map((text) => dom.el("li", { text })));
      part.notes.hidden = !notes.length;
      part.chart.setAttribute("aria-label", `Chart of ${value.series.length} curves: ${value.series.map((series) => series.label).join(", ")}`);
      drawLegend(themeNow());
      soon();
    };

    part.reset.addEventListener("click", () => window.Plotly.relayout(part.chart, { "xaxis.autorange": true, "yaxis.autorange": true }));
    new ResizeObserver(soon).observe(part.chart);
    onTheme(root, () => { if (JSON.stringify(themeNow()) !== seenTheme) soon(); });
    update(null);
    return { update };
  };
})();
