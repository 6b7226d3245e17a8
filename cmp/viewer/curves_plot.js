// One chart of curves, drawn with Plotly.js: `cmpCurvePlot({onZoom, onReset, onHover, onLeave, onClick, onToggle, onBeyond})` ->
// {node, draw(view), cross(x), told(x), dots(rows), marksNear(event), clear()}. All ranges are set here, so that a zoom stays where it is.
(() => {
  "use strict";

  // Plotly makes a selector of a trace's name, which a run's name would break.
  const plainName = (text) => text.replace(/[^a-zA-Z0-9-]/gu, (sign) => `_${sign.codePointAt(0).toString(16)}_`);

  const { el, setText, refill } = window.cmpDom;
  const { axisOf, rangeX, rangeY, roomY } = window.cmpCurveAxis;
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const SYMBOLS = { whole: "diamond", converted: "diamond", starred: "star", flawed: "diamond-open" };
  const REACH = 14; // pixels from a checkpoint's mark within which the pointer still means it
  const MOST_NAME = 60;
  const LEAST_SIDE = 30; // pixels, and a share of the longer side, which the shorter one of a zoomed box must have
  const LEAST_SHARE = 0.15;

  const colourOf = (place, theme) => window.cmpCurveTheme.colourOf(place, theme);
  const veil = (colour, share) => {
    const [r, g, b] = colour.startsWith("#") ? [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16)) : colour.match(/[\d.]+/g).map(Number);
    return `rgba(${r}, ${g}, ${b}, ${share})`;
  };

  const short = (text, most = MOST_NAME) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  const build = (hooks) => {
    const part = {
      title: el("h4", { class: "cmp-panel-title" }),
      legend: el("div", { class: "cmp-legend" }),
      tools: el("div", { class: "cmp-panel-tools" }),
      chart: el("div", { class: "cmp-chart", role: "img" }),
      cross: el("i", { class: "cmp-cross", hidden: "" }),
      told: el("i", { class: "cmp-cross is-told", hidden: "" }),
      dots: el("div", { class: "cmp-dots", "aria-hidden": "true" }),
      beyond: el("button", { type: "button", class: "cmp-beyond", hidden: "", title: "Outliers lie outside of what is shown", click: () => hooks.onBeyond() }),
      none: el("p", { class: "cmp-none", hidden: "" }),
    };
    const over = el("div", { class: "cmp-over" }, part.chart, part.cross, part.told, part.dots, part.beyond, part.none);
    part.node = el("section", { class: "cmp-panel" }, el("header", { class: "cmp-panel-head" }, part.title, part.legend, part.tools), over);
    part.over = over;
    return part;
  };

  // A strip has a line for what it shows, and for whose it is where that could be asked.
  const stripTitle = ({ title, settings, lines, several }) => [`${title.toLowerCase()}${settings.smoothing ? ", smoothed" : ""}`, ...(several && lines.length === 1 ? [lines[0].label] : [])].join(" · ");

  // Where a page has a base, Plotly names its clip paths by the page's whole address, and they are lost as soon as that changes.
  const withoutBase = (draw) => {
    const base = document.querySelector("base[href]"), href = base?.getAttribute("href");
    base?.removeAttribute("href");
    try {
      return draw();
    } finally {
      base?.setAttribute("href", href);
    }
  };

  window.cmpCurvePlot = (hooks) => {
    const part = build(hooks);
    let view = null;
    let axis = null;
    let heard = false;
    let down = null;
    let dragged = [0, 0]; // pixels along x and y
    let clicked = -Infinity;

    const shown = () => view.lines.filter((line) => !view.hidden.has(line.key));
    const styleOf = (line) => {
      const { colour, turn } = colourOf(view.placeOf(line.run), view.theme);
      const tags = [...new Set(view.lines.map((other) => other.tag))];
      const own = tags.filter((tag) => view.lines.some((other) => other.run === line.run && other.tag === tag));
      return { colour, dash: DASHES[(own.indexOf(line.tag) + turn) % DASHES.length] };
    };
    const flat = (points) => points.map((x) => axis.out(x));

    const linesOf = (line) => {
      const { colour, dash } = styleOf(line);
      const faint = view.theme.dark ? 0.34 : 0.26;
      const few = line.raw.x.length < 60;
      const common = { type: "scatter", connectgaps: false, hoverinfo: "skip", showlegend: false };
      const traces = [];
      for (const [i, old] of line.abandoned.entries()) {
        traces.push({ ...common, mode: "lines", uid: `old ${i} ${line.key}`, x: flat(old.x), y: old.y, line: { color: veil(view.theme.muted, 0.4), width: 1 } });
      }
      if (line.smooth) {
        traces.push({ ...common, mode: "lines", uid: `raw ${line.key}`, x: flat(line.raw.x), y: line.raw.y, opacity: faint, line: { color: colour, width: 1 } });
      }
      const strong = line.smooth || line.raw;
      traces.push({ ...common, mode: few ? "lines+markers" : "lines", uid: `line ${line.key}`, x: flat(strong.x), y: strong.y, marker: { color: colour, size: 5 },
        line: { color: colour, width: few ? 2 : line.smooth ? 1.5 : 1.2, dash } });
      return traces;
    };

    const extrasOf = (line) => {
      const { colour } = styleOf(line);
      const common = { type: "scatter", hoverinfo: "skip", showlegend: false };
      const traces = [];
      if (line.band?.length) {
        const middle = ([a, b]) => axis.out(view.settings.logX ? Math.sqrt(a * b) : (a + b) / 2);
        const back = [...line.band].reverse();
        traces.push({ ...common, mode: "lines", uid: `band ${line.key}`, x: [...line.band, ...back, line.band[0]].map(middle), fill: "toself",
          y: [...line.band.map((w) => w[4]), ...back.map((w) => w[3]), line.band[0][4]], fillcolor: veil(view.theme.paper, 0.66), line: { width: 1.2, color: colour } });
      }
      if (line.trend) {
        const ends = [line.trend.low, line.trend.high];
        const inner = view.settings.logX ? Array.from({ length: 32 }, (_, i) => ends[0] * (ends[1] / ends[0]) ** (i / 31)) : ends;
        const at = (x) => line.trend.from + ((x - ends[0]) / (ends[1] - ends[0])) * (line.trend.to - line.trend.from);
        traces.push({ ...common, mode: "lines", uid: `trend ${line.key}`, x: flat(inner), y: inner.map(at), line: { color: colour, width: 1.6, dash: "longdash" } });
      }
      if (line.broken?.length) {
        traces.push({ ...common, mode: "markers", uid: `broken ${line.key}`, x: flat(line.broken), y: line.broken.map(() => 0.02), yaxis: "y2",
          marker: { symbol: "x", color: colour, size: 7 } });
      }
      const marks = marksOf(line);
      traces.push({ ...common, mode: "markers", uid: `marks ${line.key}`, cliponaxis: false, visible: marks.length > 0,
        x: flat(marks.map((mark) => mark.x)), y: marks.map((mark) => mark.y),
        marker: { symbol: marks.map((mark) => SYMBOLS[mark.state] || "diamond"), size: marks.map((mark) => (mark.state === "starred" ? 15 : view.compact ? 8 : 11)),
          color: colour, line: { color: marks.map((mark) => (mark.state === "flawed" ? colour : view.theme.paper)), width: 1.5 } } });
      return traces;
    };

    // A mark outside of the window would be drawn on the chart's edge, since marks may overlap it.
    const marksOf = (line) => {
      const [low, high] = rangeX(axis, view.window, view.settings.logX, view.exact);
      const [bottom, top] = layoutY();
      const inside = (mark) => {
        const [x, y] = [scaled(axis.out(mark.x), view.settings.logX), scaled(mark.y, view.settings.logY)];
        return x >= low && x <= high && y >= bottom && y <= top;
      };
      return (line.marks || []).filter(([, , y]) => y !== null).map(([step, x, y]) => ({ ...view.markOf(line.run, step), run: line.run, step, x, y })).filter(inside);
    };
    const scaled = (value, log) => (log ? Math.log10(value) : value);
    const layoutY = (of = view) => of.zoomY || rangeY(of.lines.filter((line) => !of.hidden.has(line.key)), of.settings);
    const room = (of) => (of.lines.length ? roomY(layoutY(of), of.settings.logY) : 0);

    const layoutOf = (width, height) => {
      const { theme, compact } = view;
      const line = { gridcolor: theme.line, linecolor: theme.line, zeroline: false, color: theme.muted, tickcolor: theme.line, automargin: true };
      return {
        width, height, showlegend: false, dragmode: "zoom", hovermode: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        margin: { l: view.room, r: 24, t: 15, b: compact ? 36 : 54 },
        font: { family: theme.font, size: theme.size - (compact ? 2 : 1), color: theme.text },
        xaxis: { ...line, type: axis.type, ...(view.settings.axis === "step" && axis.type === "linear" && view.window[1] - view.window[0] <= 12 ? { dtick: 1 } : {}), range: rangeX(axis, view.window, view.settings.logX, view.exact), showgrid: false, ticks: "outside", ticklen: 4,
          ...(compact || !axis.title ? {} : { title: { text: `${axis.title}${view.settings.logX ? " (log)" : ""}`, standoff: 6 } }) }, // an empty title takes room, too
        yaxis: { ...line, type: view.settings.logY ? "log" : "linear", range: layoutY(), exponentformat: "power", nticks: compact ? 4 : 8,
          zeroline: Boolean(view.zero), zerolinecolor: theme.muted, zerolinewidth: 1.5 },
        yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
      };
    };

    const drawLegend = () => {
      const tags = [...new Set(view.lines.map((line) => line.tag))];
      refill(part.legend, view.compact && view.lines.length < 2 ? [] : view.lines.map((line) => {
        const { colour, dash } = styleOf(line);
        const swatch = el("i", { class: "cmp-swatch" });
        swatch.style.borderTop = `3px ${{ solid: "solid", dash: "dashed", dot: "dotted", dashdot: "double" }[dash]} ${colour}`;
        const text = [line.label, tags.length > 1 ? line.tag : ""].filter(Boolean).join(" · ");
        return el("button", { type: "button", class: "cmp-entry", "aria-pressed": String(!view.hidden.has(line.key)), title: `${text}\nClick to hide or show`,
          click: () => hooks.onToggle(line.key) }, swatch, el("span", { text }));
      }));
    };

    const draw = (next) => {
      view = next;
      part.node.classList.toggle("is-compact", Boolean(view.compact));
      setText(part.title, view.compact ? stripTitle(view) : view.title);
      const width = part.over.clientWidth;
      setText(part.none, view.lines.length ? "" : view.none);
      part.chart.style.visibility = view.lines.length ? "visible" : "hidden";
      drawLegend();
      if (!width || !view.lines.length) return; // a hidden tab has no size yet; the component calls again when there is one
      axis = axisOf(view.settings, view.window);
      const lines = shown();
      const traces = [...lines.flatMap(linesOf), ...lines.flatMap(extrasOf)];
      for (const trace of traces) Object.assign(trace, { meta: trace.uid, uid: plainName(trace.uid) });
      const config = { displayModeBar: false, displaylogo: false, doubleClick: false, responsive: false, showTips: false };
      withoutBase(() => window.Plotly.react(part.chart, traces, layoutOf(width, part.chart.clientHeight), config));
      part.chart.setAttribute("aria-label", `Chart of ${view.lines.length} curves: ${view.lines.map((line) => line.label).join(", ")}`);
      if (!heard) listen();
      sayBeyond(lines);
    };

    const sayBeyond = (lines) => {
      const [low, high] = layoutY();
      const out = (edge, below) => lines.some((line) => line.full && (below ? scaled(line.full[0], view.settings.logY) < edge : scaled(line.full[1], view.settings.logY) > edge));
      const where = [out(high, false) ? "▲" : "", out(low, true) ? "▼" : ""].join("");
      setText(part.beyond, where && view.settings.outliers && !view.zoomY && !view.compact ? `${where} more beyond` : "");
    };

    const box = () => {
      const { l, t, w, h } = part.chart._fullLayout._size;
      return { left: l, top: t, width: w, height: h };
    };
    const placeX = (x) => {
      const [low, high] = part.chart._fullLayout.xaxis.range.map((end) => (axis.type === "date" ? Date.parse(dated(end)) : end));
      const { left, width } = box();
      return left + ((scaled(axis.out(x), axis.type === "log") - low) / (high - low)) * width;
    };
    const placeY = (y) => {
      const [low, high] = part.chart._fullLayout.yaxis.range;
      const { top, height } = box();
      return top + (1 - (scaled(y, part.chart._fullLayout.yaxis.type === "log") - low) / (high - low)) * height;
    };
    const dated = (text) => (typeof text === "number" ? new Date(text).toISOString() : `${String(text).replace(" ", "T")}${String(text).includes(":") ? "" : "T00:00"}Z`);
    const unplaced = (end) => axis.back(axis.type === "date" ? Date.parse(dated(end)) : axis.type === "log" ? 10 ** end : Number(end));
    const valueAt = (event) => {
      const { left, width } = box();
      const share = (event.clientX - part.chart.getBoundingClientRect().left - left) / width;
      if (share < -0.02 || share > 1.02) return null;
      const [low, high] = part.chart._fullLayout.xaxis.range.map((end) => (axis.type === "date" ? Date.parse(dated(end)) : end));
      const at = low + share * (high - low);
      return axis.back(axis.type === "log" ? 10 ** at : at);
    };

    const markNear = (event) => {
      if (!view || !part.chart._fullLayout) return null;
      const frame = part.chart.getBoundingClientRect();
      let best = null;
      for (const mark of shown().flatMap(marksOf)) {
        const far = Math.hypot(event.clientX - frame.left - placeX(mark.x), event.clientY - frame.top - placeY(mark.y));
        if (far <= REACH && (!best || far < best.far)) best = { far, mark };
      }
      return best?.mark ?? null;
    };

    // A drag that is all but straight means the axis that it runs along; the other one would be cut to a sliver.
    const sidesMeant = () => {
      const [less, most] = [Math.min(...dragged), Math.max(...dragged)];
      const both = less >= LEAST_SIDE && less >= LEAST_SHARE * most;
      return { x: both || dragged[0] >= dragged[1], y: both || dragged[1] > dragged[0] };
    };

    const listen = () => {
      heard = true;
      part.chart.on("plotly_relayout", (what) => {
        const read = (name) => (what[`${name}.range[0]`] !== undefined ? [what[`${name}.range[0]`], what[`${name}.range[1]`]] : null);
        const [x, y] = [read("xaxis"), read("yaxis")];
        const along = x && y ? sidesMeant() : { x, y };
        if (x && !along.x) window.Plotly.relayout(part.chart, { "xaxis.range": rangeX(axis, view.window, view.settings.logX, view.exact) });
        if (y && !along.y) window.Plotly.relayout(part.chart, { "yaxis.range": layoutY() });
        if (x || y) hooks.onZoom(along.x ? x.map(unplaced) : null, along.y ? y.map(Number) : null);
      });
      part.over.addEventListener("pointermove", (event) => {
        if (event.buttons) return hooks.onLeave();
        const x = valueAt(event);
        const mark = markNear(event);
        part.chart.classList.toggle("is-at-marker", Boolean(mark));
        return x === null ? hooks.onLeave() : hooks.onHover(x, event, mark);
      });
      part.over.addEventListener("pointerleave", () => hooks.onLeave());
      part.chart.addEventListener("pointerdown", (event) => { down = event.button === 0 ? { x: event.clientX, y: event.clientY } : null; });
      // Before the mouseup at which Plotly zooms.
      window.addEventListener("pointerup", (event) => {
        if (down) dragged = [Math.abs(event.clientX - down.x), Math.abs(event.clientY - down.y)];
        const still = down && Math.hypot(...dragged) < 5;
        down = null;
        if (!still || !part.chart.isConnected) return;
        // Plotly lays a cover over the page while a button is down, so that no double click ever reaches the chart
        const again = event.timeStamp - clicked < 400;
        clicked = again ? -Infinity : event.timeStamp;
        const mark = markNear(event);
        if (again && !mark) hooks.onReset(); else hooks.onClick(valueAt(event), event, mark);
      });
    };

    // Whether it was drawn for another size than it has now.
    const isOutgrown = () => {
      const { width, height } = part.chart._fullLayout ?? {};
      return !view || Boolean(view.lines.length && part.over.clientWidth && (width !== part.over.clientWidth || height !== part.chart.clientHeight));
    };

    const put = (node, x) => {
      const there = view && part.chart._fullLayout && x !== null ? placeX(x) : NaN;
      const inside = there >= box0().left - 1 && there <= box0().left + box0().width + 1;
      node.hidden = !inside;
      if (inside) Object.assign(node.style, { left: `${there}px`, top: `${box0().top}px`, height: `${box0().height}px` });
    };
    const box0 = () => (part.chart._fullLayout ? box() : { left: 0, top: 0, width: 0, height: 0 });

    const dots = (rows) => part.dots.replaceChildren(...rows.filter((row) => row.y !== null).map((row) => {
      const dot = el("i", { class: "cmp-dot" });
      Object.assign(dot.style, { left: `${placeX(row.x)}px`, top: `${Math.max(box().top, Math.min(placeY(row.y), box().top + box().height))}px`, background: row.colour });
      return dot;
    }));

    return { node: part.node, part, draw, room, dots, markNear, cross: (x) => put(part.cross, x), told: (x) => put(part.told, x), styleOf,
      lines: () => (view ? shown() : []), text: (x) => axis?.text(x) ?? "", visibleMarks: () => (view && axis ? shown().flatMap(marksOf) : []),
      isOutgrown };
  };
  window.cmpCurvePlot.short = short;
  window.cmpCurvePlot.colourOf = colourOf;
})();
