// The colours of the page as Plotly can use them, and those of the runs: `cmpCurveTheme` -> {makeTheme(root), onTheme(root, redraw),
// colourOf(place, theme), makePlaces()}.
(() => {
  "use strict";

  // A line must stand out from the page by 3:1 at least, and from every other line. The first six come nearest to the colours of Okabe and
  // Ito, which are told apart with every common colour blindness; on a dark page each has a lighter one of the same kind.
  const LIGHT = ["#0072B2", "#C44E00", "#00875F", "#D23C9A", "#6A3FC8", "#8F6B00", "#0E93A8", "#A8001C", "#6B7280", "#1B2A7A", "#46620A", "#5E2410"];
  const DARK = ["#4FA8E8", "#F0833A", "#2FC08F", "#F7A3D4", "#B38CFA", "#E3B505", "#7CE6F2", "#FF4F5E", "#AEB6C2", "#5F70F0", "#B6E86A", "#B5794F"];
  const MANY = LIGHT.length;

  // `turn` counts how often all colours were given: from the second time on other dashes tell the lines apart.
  const colourOf = (place, theme) => ({ colour: (theme.dark ? DARK : LIGHT)[place % MANY], turn: Math.floor(place / MANY) });

  // Each run's place among the colours: `of(run)` by the order of the list, unless `show(runs)` had to part two that are shown together.
  const makePlaces = () => {
    const order = new Map();
    const given = new Map();
    const listed = (run) => {
      if (!order.has(run)) order.set(run, order.size);
      return order.get(run);
    };
    const lowest = (taken) => { let place = 0; while (taken.has(place)) place += 1; return place; };
    const show = (runs) => {
      const taken = new Set();
      const keep = (run, place) => { if (taken.has(place)) return false; taken.add(place); given.set(run, place); return true; };
      const rest = runs.filter((run) => !given.has(run) || !keep(run, given.get(run)));
      for (const run of rest) if (!keep(run, listed(run) % MANY)) keep(run, lowest(taken));
    };
    return { of: (run) => given.get(run) ?? listed(run), show };
  };

  // Plotly reads neither CSS variables nor the newer colour functions. What the style sheet made of them is painted on one pixel and read back.
  const makeTheme = (root) => {
    const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
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
      const [r, g, b] = text.match(/[\d.]+/g).map(Number);
      return { text, dark: 0.3 * r + 0.6 * g + 0.1 * b > 128, paper: rgb(style.backgroundColor), line: rgb(style.borderTopColor), muted: rgb(style.outlineColor),
        font: style.fontFamily, size: parseFloat(style.fontSize) || 13 };
    };
  };

  const onTheme = (root, redraw) => {
    const watch = new MutationObserver(() => (root.isConnected ? redraw() : watch.disconnect()));
    for (const node of [document.documentElement, document.body]) watch.observe(node, { attributes: true, attributeFilter: ["class", "style"] });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  };

  window.cmpCurveTheme = { makeTheme, onTheme, colourOf, makePlaces };
})();
