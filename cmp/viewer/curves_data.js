// Where the chart's points come from: `cmpCurveData` reads the answers of the server, or takes the series that came with the value.
// Lines come out alike: {key, run, tag, kind, raw: {x, y, s}, smooth: {x, y, s}|null, usual, full, marks: [[step, x, y]], …}; x is a step,
// seconds since the start, or Unix seconds; s are the steps of the points.
(() => {
  "use strict";

  const undelta = (deltas, scale) => {
    let sum = 0;
    return deltas.map((delta) => (sum += delta) / scale);
  };

  const decoded = (points, axis) => {
    if (!points) return null;
    const x = undelta(points.x, axis === "step" ? 1 : 1000);
    return { x, y: points.y, e: points.e ? undelta(points.e, 1) : null, r: points.r, s: points.s ? undelta(points.s, 1) : x };
  };

  const keyOf = (line) => `${line.run}\u0000${line.tag}`;

  // The points of a line that may be compared with another line's: the rest of a thinned one was chosen by how high or low it is.
  const compared = (points) => {
    const taken = (values) => (values && points.e ? points.e.map((i) => values[i]) : values);
    return { x: taken(points.x), y: taken(points.y), r: taken(points.r), s: taken(points.s) };
  };

  const decodeLine = (line, axis) => withHover({ ...line, key: keyOf(line), raw: decoded(line.raw, axis), smooth: decoded(line.smooth, axis),
    abandoned: (line.abandoned || []).map((points) => decoded(points, axis)) });

  const withHover = (line) => ({ ...line, hover: compared(line.smooth || line.raw) });

  // The place of the last x that is not above `x`, -1 before the first.
  const lastAt = (xs, x) => {
    let [low, high] = [0, xs.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (xs[middle] <= x) low = middle + 1; else high = middle;
    }
    return low - 1;
  };

  const nearest = (xs, x) => {
    const at = lastAt(xs, x);
    if (at < 0) return 0;
    return at + 1 < xs.length && xs[at + 1] - x < x - xs[at] ? at + 1 : at;
  };

  const quantile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.round(share * (sorted.length - 1)))];
  const finite = (values, log) => values.filter((v) => v !== null && Number.isFinite(v) && (!log || v > 0)).sort((a, b) => a - b);

  const heights = (y, smooth, log) => {
    const [all, mean] = [finite(y, log), finite(smooth || y, log)];
    if (!all.length) return { full: null, usual: null };
    const [low, high] = [quantile(all, 0.05), quantile(all, 0.95)];
    const wide = log ? 0 : 0.35 * (high - low);
    const ends = [Math.min(low - wide, quantile(mean, 0.01) ?? low), Math.max(high + wide, quantile(mean, 0.99) ?? high)];
    return { full: [all[0], all.at(-1)], usual: [Math.max(all[0], ends[0]), Math.min(all.at(-1), ends[1])] };
  };

  // The height of a marker that was sent without one: its run's line at that step, between two points by proportion. A run that logs
  // every tenth step ends a little before its last checkpoint, so that a mark slightly outside takes the height of the line's end.
  const heightAt = ({ x, y }, step) => {
    const last = x.length - 1;
    const slack = 0.05 * (x[last] - x[0]);
    if (!(step >= x[0] - slack && step <= x[last] + slack)) return null;
    const at = lastAt(x, step);
    if (at < 0 || at === last) return y[Math.max(at, 0)] ?? null;
    const [low, high] = [y[at], y[at + 1]];
    if (low === null || high === null) return x[at] === step ? low : null;
    return low + ((step - x[at]) / (x[at + 1] - x[at])) * (high - low);
  };

  // The lines of a value that brings its own points.
  const ownLines = (value, log) => (value.series || []).map((series, i, all) => {
    const raw = { x: series.x, y: series.y, s: series.x };
    const smooth = series.smooth ? { x: series.x, y: series.smooth, r: series.y, s: series.x } : null;
    const first = all.findIndex((other) => other.run === series.run) === i;
    const marks = first ? (value.markers || []).filter((mark) => mark.run === series.run)
      .map((mark) => [mark.step, mark.step, mark.y ?? heightAt(smooth || raw, mark.step)]) : [];
    return withHover({ ...series, key: keyOf(series), kind: first ? "loss" : "tag", raw, smooth, marks, ...heights(series.y, series.smooth, log), abandoned: [] });
  });

  const query = (runs, more) => {
    const told = new URLSearchParams();
    for (const run of runs) told.append("run", run);
    for (const [name, what] of Object.entries(more)) if (what !== null && what !== undefined && what !== "") told.set(name, String(what));
    return told;
  };

  // How the chart is looked at, in the words of an address.
  const viewOf = (settings, zoom) => ({ axis: settings.axis, smooth: settings.smoothing, way: settings.way, logx: settings.logX ? 1 : "",
    logy: settings.logY ? 1 : "", trend: settings.trend ? 1 : "", low: zoom?.[0], high: zoom?.[1] });

  const makeData = (source) => {
    const address = (name, runs, more = {}) => `${source}${name}?${query(runs, more)}`;
    const ask = async (name, runs, more) => {
      const answer = await fetch(address(name, runs, more), { headers: { Accept: "application/json" } });
      const told = await answer.json().catch(() => null);
      if (!answer.ok || !told) throw new Error(told?.detail?.error || `the dashboard answered ${answer.status}`);
      return told;
    };
    const points = async (runs, more) => {
      const told = await ask("points", runs, more);
      return { window: told.window, lines: told.lines.map((line) => decodeLine(line, told.axis)) };
    };
    return { address, ask, points };
  };

  window.cmpCurveData = { makeData, ownLines, viewOf, keyOf, lastAt, nearest };
})();
