// How far each picture is from that of the step before, so that one sees where the model stops moving: `cmpChanges(grid)`. The mean OKLab
// distance of the small pictures, calculated while the page has nothing else to do, and only once somebody looks: for the curves that the
// button "Change" shows, or as the score "change" by which the cells can be tinted.
(() => {
  "use strict";

  const SIDE = 256; // pixels: the pictures are looked at as small as they are told apart
  const KEPT = 24; // pictures whose colours are at hand
  const OFTEN = 250; // ms between two drawings while it is calculated
  const NAME = "cmp.matrix.change";

  const idle = () => new Promise((go) => { if (window.requestIdleCallback) requestIdleCallback(go, { timeout: 400 }); else setTimeout(go, 16); });
  const figure = (value) => (value === 0 ? "0" : value < 0.001 ? "< 0.001" : value < 0.1 ? value.toFixed(3) : value.toFixed(2));

  const load = async (url) => {
    const img = new Image();
    img.src = url;
    await img.decode();
    return img;
  };

  // The mean distance of two pictures by their addresses. Unequal sizes are brought to the larger one.
  const meter = () => {
    const colours = new Map();
    const colourOf = (url, img, width, height) => {
      const name = `${width} ${height} ${url}`;
      const found = colours.get(name) ?? window.cmpOklab.labOf(window.cmpOklab.pixels(img, width, height));
      colours.delete(name);
      colours.set(name, found);
      while (colours.size > KEPT) colours.delete(colours.keys().next().value);
      return found;
    };
    return async (one, two) => {
      if (one === two) return 0;
      const [a, b] = await Promise.all([load(one), load(two)]);
      const most = a.naturalWidth * a.naturalHeight >= b.naturalWidth * b.naturalHeight ? a : b;
      const scale = Math.min(1, SIDE / Math.max(most.naturalWidth, most.naturalHeight));
      const size = [Math.max(1, Math.round(most.naturalWidth * scale)), Math.max(1, Math.round(most.naturalHeight * scale))];
      const [left, right] = [await colourOf(one, a, ...size), await colourOf(two, b, ...size)];
      let sum = 0;
      for (let i = 0; i < size[0] * size[1]; i += 1) sum += window.cmpOklab.far(left, right, i);
      return sum / (size[0] * size[1]);
    };
  };

  // Calculates what `missing()` names, one after the other; `told` hears of it now and then.
  const worker = (missing, told) => {
    const measure = meter();
    let works = false;
    let last = 0;
    const run = async () => {
      if (works || !window.cmpOklab.readsTrue()) return;
      works = true;
      let some = 0;
      for (let next = missing(); next; next = missing()) {
        await idle();
        let value = NaN; // is not tried again
        try { value = await measure(next.urls[0], next.urls[1]); } catch { /* the cell says that it could not be loaded */ }
        next.keep(value);
        some += 1;
        if (performance.now() - last > OFTEN) { last = performance.now(); told(); }
      }
      works = false;
      if (some) told();
    };
    return run;
  };

  window.cmpChanges = (grid) => {
    const { dom, part } = grid;
    const toggle = dom.el("button", { type: "button", class: "cmp-button", text: "Change", "aria-pressed": "false",
      title: "How far each picture is from that of the step before" });
    const note = dom.el("p", { class: "cmp-change-note", hidden: "" });
    part.more.append(toggle);
    part.under.append(note);
    const found = new Map();
    let on = grid.recall(NAME, "0") === "1";
    grid.onRuns(() => { on = grid.recall(NAME, "0") === "1"; });
    let wanted = false;
    let before = new Map(); // record -> the one at the step before
    let queue = [];
    let top = 0;

    const available = () => grid.stepAxis()?.shown.length > 1;
    const pairOf = (record) => { const other = before.get(record); return other ? `${other.key}\u0000${record.key}` : ""; };
    const changeOf = (record) => { const value = found.get(pairOf(record)); return Number.isFinite(value) ? value : null; };

    // As they were trained, in whatever order they are looked at.
    const pair = () => {
      before = new Map();
      if (!available()) return;
      const steps = [...grid.stepAxis().shown].sort((a, b) => a - b);
      const { i } = grid.stepAxis();
      for (const record of grid.value().cells || []) {
        if (record.state !== "done" || !grid.hasStep(record)) continue;
        for (let n = steps.indexOf(record.at[i]) - 1; n >= 0; n -= 1) {
          const other = grid.atStep(record, steps[n]);
          if (!other) continue;
          if (other.state === "done") before.set(record, other);
          break;
        }
      }
      queue = [...before.keys()];
    };

    const address = (record) => grid.url(record, "thumb") || grid.url(record, "full");
    const missing = () => {
      while (grid.root.isConnected && queue.length) {
        const record = queue.shift();
        const name = pairOf(record);
        if (name && !found.has(name)) return { urls: [address(before.get(record)), address(record)], keep: (value) => found.set(name, value) };
      }
      return null;
    };
    const run = worker(missing, () => { draw(); grid.tintAgain?.(); });

    // Looking at the values is what makes them be calculated.
    grid.changeScore = () => ({ key: "change", label: "change since the step before", better: "", get of() {
      if (!wanted) { wanted = true; setTimeout(run); }
      return Object.fromEntries([...before.keys()].map((record) => [record.key, changeOf(record)]).filter(([, value]) => value !== null));
    } });
    grid.moreScores = () => (available() ? [grid.changeScore()] : []);

    const tellNote = () => {
      if (!on || !available()) return void dom.setText(note, "");
      const known = [...before.keys()].filter((record) => changeOf(record) !== null).length;
      const going = known < before.size && [...before.keys()].some((record) => !found.has(pairOf(record)));
      const text = !window.cmpOklab.readsTrue() ? `${window.cmpOklab.falsified}, so no change is told.`
        : `Change since the step before: mean OKLab ΔE of the small pictures, curves from 0 to ${figure(top)}${going ? ` · ${known} of ${before.size}` : ""}`;
      dom.setText(note, text);
    };

    const draw = () => {
      const values = [...before.keys()].map(changeOf).filter((value) => value !== null);
      top = values.reduce((most, value) => Math.max(most, value), 0);
      toggle.hidden = !available();
      toggle.setAttribute("aria-pressed", String(on));
      window.cmpChangeCurves(grid, { on: on && available(), changeOf, top, figure });
      tellNote();
    };

    toggle.addEventListener("click", () => {
      on = !on;
      grid.remember(NAME, on ? 1 : 0);
      if (on) run();
      draw();
    });
    grid.onChange(() => {
      pair();
      draw();
      if (on || wanted) run();
    });
  };
})();
