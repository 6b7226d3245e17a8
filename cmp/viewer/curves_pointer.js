// What the pointer brings up, and the step that is told to other views and by them: `cmpCurvePointer({root, tip, plots, settings, main})` ->
// {hover, leave, look, touch, again}. `plots` holds the charts with their plots and windows, `main` gives the first of them.
(() => {
  "use strict";

  window.cmpCurvePointer = ({ root, tip, plots, settings, main }) => {
    const { nearest } = window.cmpCurveData;
    let at = null; // the step that was last told of from elsewhere

    // The logged place nearest to the pointer, and every run's value there or at its own nearest one.
    const snapped = (entry, x) => {
      const log = settings().logX;
      const far = (other) => (log ? Math.abs(Math.log(other / x)) : Math.abs(other - x));
      let best = null;
      for (const line of entry.plot.lines()) {
        const points = line.hover;
        if (!points.x.length) continue;
        const i = nearest(points.x, x);
        if (!best || far(points.x[i]) < far(best.x)) best = { x: points.x[i], step: points.s[i], run: line.run };
      }
      return best;
    };

    const rowsAt = (entry, place) => {
      const reach = 0.02 * (entry.window[1] - entry.window[0]);
      const rows = entry.plot.lines().map((line) => {
        const points = line.hover;
        const i = nearest(points.x, place.x);
        if (!points.x.length || Math.abs(points.x[i] - place.x) > Math.max(reach, line.raw.x.length < 60 ? Infinity : 0)) return null;
        const raw = line.smooth ? points.r?.[i] : undefined;
        const tags = new Set(entry.lines.map((other) => other.tag)).size > 1;
        return { colour: entry.plot.styleOf(line).colour, label: window.cmpCurvePlot.short([line.label, tags ? line.tag : ""].filter(Boolean).join(" · ")), x: points.x[i], y: points.y[i],
          raw, aside: points.s[i] === place.step ? "" : `at ${points.s[i].toLocaleString("en")}` };
      }).filter(Boolean);
      const sign = { low: 1, high: -1, listed: 0 }[settings().order];
      return rows.sort((a, b) => sign * ((a.y ?? Infinity) - (b.y ?? Infinity)));
    };

    const hover = (entry, x, event, mark) => {
      const place = mark || snapped(entry, x);
      if (!place) return;
      const rows = rowsAt(entry, place);
      const head = settings().axis === "step" ? `step ${place.step.toLocaleString("en")}` : `${entry.plot.text(place.x)} · step ${place.step.toLocaleString("en")}`;
      const note = mark ? [`◆ checkpoint ${mark.step}`, mark.note, mark.score, mark.state === "flawed" ? "cannot be used" : "click for what can be done"].filter(Boolean).join(" · ") : "";
      tip.show(head, rows, note, event);
      for (const other of plots.values()) {
        other.plot.cross(place.x);
        other.plot.dots(other === entry ? rows : []);
      }
      spread(place);
    };
    const leave = () => {
      tip.hide();
      for (const entry of plots.values()) { entry.plot.cross(null); entry.plot.dots([]); }
    };

    let spreadAt = null;
    const spread = (place) => {
      if (!place || (spreadAt && spreadAt.run === place.run && spreadAt.step === place.step)) return;
      spreadAt = { run: place.run, step: place.step };
      window.dispatchEvent(new CustomEvent("cmp:step", { detail: { run: place.run, step: place.step, from: "curves" } }));
    };
    // A step that another view tells of: a line where it lies, told to nobody.
    const tell = (step) => {
      at = step;
      for (const entry of plots.values()) {
        const line = entry.plot.lines().find((one) => one.raw.x.length);
        entry.plot.told(step === null || !line ? null : settings().axis === "step" ? step : line.raw.x[nearest(line.raw.s, step)]);
      }
    };
    window.addEventListener("cmp:step", ({ detail }) => {
      if (root.isConnected && detail && detail.from !== "curves") tell(Number.isFinite(detail.step) ? detail.step : null);
    });
    const look = (mark) => {
      const entry = main();
      const own = entry?.plot.visibleMarks().find((other) => other.run === mark.run && other.step === mark.step);
      if (!own) return;
      const frame = entry.plot.part.chart.getBoundingClientRect();
      hover(entry, own.x, { clientX: frame.left + frame.width / 2, clientY: frame.top + 40 }, own);
    };
    const touch = (entry, x) => spread(snapped(entry, x));
    return { hover, leave, look, touch, again: () => tell(at) };
  };
})();
