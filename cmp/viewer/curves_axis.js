// The axes of a chart: `cmpCurveAxis` -> {axisOf(settings, window), rangeX(axis, window, log, exact), rangeY(lines, settings), roomY(range,
// log)}, in the numbers that Plotly wants: days or seconds since the start, milliseconds of local time, powers of ten on a logarithmic one.
(() => {
  "use strict";

  const zone = (seconds) => new Date(seconds * 1000).getTimezoneOffset() * 60;
  const UNITS = [[172800, 86400, "days"], [7200, 3600, "hours"], [300, 60, "minutes"], [0, 1, "seconds"]];

  // How the axis of the value's x is shown: Plotly's numbers and back, its name, a place on it in words.
  const axisOf = ({ axis, logX }, [low, high]) => {
    if (axis === "wall") {
      return { type: "date", title: "", out: (x) => (x - zone(x)) * 1000, back: (p) => p / 1000 + zone(p / 1000),
        text: (x) => new Date(x * 1000).toLocaleString() };
    }
    const [, unit, name] = axis === "relative" ? UNITS.find(([least]) => high - low > least) || UNITS[3] : [0, 1, "step"];
    const title = axis === "relative" ? `${name} since the start` : "step";
    return { type: logX ? "log" : "linear", title, out: (x) => x / unit, back: (p) => p * unit,
      text: (x) => (axis === "relative" ? `${(x / unit).toFixed(2)} ${name}` : `step ${Math.round(x).toLocaleString("en")}`) };
  };

  const rangeX = (axis, [low, high], log, exact) => {
    const [a, b] = [axis.out(low), axis.out(high)].map((end) => (log ? Math.log10(Math.max(end, 1e-9)) : end));
    const room = exact ? 0 : 0.012 * (b - a) || 0.5;
    return [a - room, b + room];
  };

  const rangeY = (lines, { outliers, logY }) => {
    const ends = lines.map((line) => (outliers ? line.usual : line.full)).filter(Boolean);
    if (!ends.length) return logY ? [-1, 0] : [0, 1];
    let [low, high] = [Math.min(...ends.map((e) => e[0])), Math.max(...ends.map((e) => e[1]))];
    if (logY) [low, high] = [Math.log10(low), Math.log10(high)];
    const room = 0.07 * (high - low) || 0.1 * Math.abs(high) || 0.5;
    return [low - room, high + room];
  };

  // Pixels that the numbers beside an axis of values take. Where the margin is too small Plotly lays out and draws everything twice.
  const roomY = ([low, high], log) => {
    if (log) return 60;
    const decimals = Math.min(6, Math.max(0, Math.ceil(-Math.log10((high - low) / 8))));
    const longest = Math.max(Math.abs(low), Math.abs(high)).toFixed(decimals).length + (low < 0 ? 1 : 0);
    return 24 + 7 * Math.min(longest, 9);
  };

  window.cmpCurveAxis = { axisOf, rangeX, rangeY, roomY };
})();
