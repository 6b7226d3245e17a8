// The loss chart: `cmpCurves(root, {onPick, onEdit})` -> {update(value)}. `value` is plain JSON; its fields are listed in the Python module
// beside this file. It either brings its own points, or names the address below which they are asked for.
(() => {
  "use strict";

  const { el, setText, place } = window.cmpDom;
  const MOST_BANDS = 5; // of more runs nobody could tell them apart
  const LIVE = 1000; // ms between two looks at a run that is being trained: what was logged is drawn within two seconds
  const RESTING = 10; // times as long for one that is not

  window.cmpCurves = (root, { onPick, onEdit } = {}) => {
    const { makeData, ownLines, viewOf } = window.cmpCurveData;
    const choice = window.cmpCurveChoice;
    const places = window.cmpCurveTheme.makePlaces(); // a run keeps the colour that it was first shown in, whatever else comes and goes
    const placeOf = places.of;
    const themeNow = window.cmpCurveTheme.makeTheme(root);
    const plots = new Map(); // key of a chart -> {plot, lines, window, zoomY}
    const hidden = new Set();
    let value = {};
    let data = null;
    let settings = { ...window.cmpCurveBar.DEFAULTS };
    let zoom = null;
    let runs = []; // ids of those shown
    let known = { runs: [], notes: [], stamp: "", training: false };
    let pairs = [];
    let [turn, round, waiting, ticks] = [0, 0, 0, 0];
    let missed = false; // a drawing, since the tab was hidden
    let seenTheme = "";

    const bar = window.cmpCurveBar({ onChange: (next, later) => adopt(next, later), onReset: () => reset(), exportOf: (kind) => data?.address(`curves.${kind}`, runs, { ...viewOf(settings, zoom), tag: settings.tag }) ?? "" });
    const side = window.cmpCurveSide({ onRuns: (ids, enters) => choose(ids, enters), onTag: (tag) => adopt({ ...settings, tag }),
      onPin: (tag) => adopt({ ...settings, pins: settings.pins.includes(tag) ? settings.pins.filter((pin) => pin !== tag) : [...settings.pins, tag] }),
      colourOf: (run) => window.cmpCurvePlot.colourOf(placeOf(run), themeNow()).colour });
    const facts = window.cmpCurveFacts({ onOpenSettings: () => askSettings() });
    const part = { panels: el("div", { class: "cmp-panels" }), marks: el("div", { class: "cmp-marks", role: "group", "aria-label": "Checkpoints", hidden: "" }),
      empty: el("p", { class: "cmp-empty", hidden: "" }), notes: el("ul", { class: "cmp-notes", hidden: "" }), fault: el("p", { class: "cmp-fault", role: "alert", hidden: "" }) };
    root.classList.add("cmp-curves");
    root.replaceChildren(side.node, el("div", { class: "cmp-main" }, bar.node, part.fault, part.panels, part.marks, facts.node, part.notes), part.empty);
    const tip = window.cmpCurveTip(root);
    const menu = window.cmpCurveMenu(root);
    const pointer = window.cmpCurvePointer({ root, tip, plots, settings: () => settings, main: () => plots.get(`tag ${settings.tag}`) });
    const marks = window.cmpMarks(part.marks, { onPick: (mark, node) => act(mark, node), onLook: pointer.look, onLeave: pointer.leave });

    const markOf = (run, step) => (known.runs.find((one) => one.run === run)?.checkpoints || []).find((mark) => mark.step === step) || {};
    const labelOf = (run) => (value.runs || []).find((one) => one.run === run)?.label ?? run;

    const charts = () => choice.chartsOf({ settings, runs, pairs, labelOf, alone: !data || value.compact });

    const plotOf = (chart) => {
      if (!plots.has(chart.key)) {
        const entry = { lines: [], window: [0, 1], zoomY: null };
        entry.plot = window.cmpCurvePlot({
          onZoom: (x, y) => { entry.zoomY = y || entry.zoomY; if (x) zoom = x; if (x && data) load(); else soon(); },
          onReset: () => reset(), onToggle: (key) => { if (!hidden.delete(key)) hidden.add(key); soon(); },
          onBeyond: () => adopt({ ...settings, outliers: false }),
          onHover: (x, event, mark) => pointer.hover(entry, x, event, mark), onLeave: pointer.leave,
          onClick: (x, event, mark) => click(entry, x, event, mark) });
        plots.set(chart.key, entry);
      }
      return plots.get(chart.key);
    };

    const viewOfChart = (chart, theme) => {
      const entry = plotOf(chart);
      return { lines: entry.lines, window: data ? entry.window : zoom || entry.window, exact: Boolean(zoom), zoomY: entry.zoomY,
        settings: { ...settings, axis: entry.axis ?? settings.axis, ...(chart.zero ? { logY: false } : {}) }, hidden, theme, compact: value.compact,
        title: chart.title, several: (value.runs || []).length > 1, zero: chart.zero, placeOf, markOf,
        none: settings.axis !== "step" ? "No times were logged for this." : "None of the chosen runs logged this." };
    };

    // Lines are drawn over the axis that they were asked for: until those of another have come, the chart stays as it is.
    const draw = () => {
      const theme = themeNow();
      seenTheme = JSON.stringify(theme);
      const list = charts();
      for (const key of [...plots.keys()]) if (!list.some((chart) => chart.key === key)) plots.delete(key);
      place(part.panels, list.map((chart) => plotOf(chart).plot.node));
      const views = list.map((chart) => viewOfChart(chart, theme));
      const room = Math.max(...views.map((view, i) => plotOf(list[i]).plot.room(view))); // the same for all, so that equal steps stand below each other
      list.forEach((chart, i) => {
        const { part: { tools }, draw: drawn } = plotOf(chart).plot;
        tools.replaceChildren(...(chart.pinned ? [el("button", { type: "button", class: "cmp-pin", text: "−", title: "Take this chart away",
          "aria-label": `Unpin ${chart.title}`, click: () => adopt({ ...settings, pins: settings.pins.filter((pin) => pin !== chart.tag) }) })] : []));
        drawn({ ...views[i], room });
      });
      bar.zoomed(Boolean(zoom) || [...plots.values()].some((entry) => entry.zoomY));
      drawMarks(theme);
      pointer.again();
    };

    // Many reasons to draw may come in one frame (value, size, theme): one drawing answers them all.
    const soon = () => {
      if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; missed = !root.clientWidth; if (!missed) draw(); });
    };

    const drawMarks = (theme) => {
      const shown = value.compact ? [] : (plots.get(`tag ${settings.tag}`)?.plot.lines() || []).flatMap((line) => (line.marks || []).filter(([, , y]) => y !== null)
        .map(([step]) => ({ run: line.run, step, label: line.label, ...markOf(line.run, step), colour: window.cmpCurvePlot.colourOf(placeOf(line.run), theme).colour })));
      marks.update(shown, value.actions?.length > 1 ? "What can be done with it" : value.picking);
    };

    // -- what is asked of the server ------------------------------------------------------------------------------------------

    const load = async () => {
      const mine = ++turn;
      const zoomed = zoom;
      const { axis } = settings;
      const list = charts();
      try {
        const told = await Promise.all(list.map((chart) => data.points(chart.only || runs, { ...viewOf(settings, zoomed), tag: chart.tag, minus: chart.minus })));
        if (mine !== turn) return;
        list.forEach((chart, i) => {
          const lines = told[i].lines.map((line) => ({ ...line, label: labelOf(line.run) }));
          Object.assign(plotOf(chart), { lines, window: told[i].window, axis });
        });
        setText(part.fault, "");
        draw();
        root.dispatchEvent(new CustomEvent("cmp:curves-drawn"));
        if (settings.band && !value.compact && runs.length <= MOST_BANDS) await bands(mine, list, zoomed);
      } catch (fault) {
        if (mine === turn) setText(part.fault, `The curves could not be read: ${fault.message}`);
      }
    };

    const bands = async (mine, list, zoomed) => {
      for (const chart of list) {
        const told = await data.ask("band", chart.only || runs, { ...viewOf(settings, zoomed), tag: chart.tag, minus: chart.minus });
        if (mine !== turn) return;
        for (const line of plotOf(chart).lines) line.band = told.lines.find((other) => other.run === line.run && other.tag === line.tag && other.kind === line.kind)?.band;
        soon();
      }
    };

    const catalogue = async () => {
      const wanted = runs;
      const told = await data.ask("catalogue", wanted);
      if (wanted !== runs) return;
      known = told;
      const tags = [...new Set(told.runs.flatMap((run) => run.tags))].sort();
      if (settings.tag && !tags.includes(settings.tag)) { settings = bar.set({ ...settings, tag: "" }); load(); } // what was remembered was of another run
      side.setTags(tags, settings);
      notes(told.notes);
      soon();
    };

    // It speaks of the training loss, and stands beside no other curve.
    let read = null;
    const tellReading = () => { if (settings.tag || !read) facts.clear(); else facts.reading(read); };
    const words = async () => {
      const wanted = runs;
      if (value.compact) return;
      const told = await data.ask("reading", wanted);
      if (wanted !== runs) return;
      read = told;
      tellReading();
      const before = JSON.stringify(pairs);
      pairs = told.pairs;
      if (JSON.stringify(pairs) !== before) load();
      if (facts.isOpen()) askSettings();
    };
    const askSettings = async () => { if (data) facts.settings(await data.ask("settings", runs)); };

    const all = (enters) => {
      if (!runs.length) return nothing();
      if (data && !value.compact && root.clientWidth) window.cmpRunLink?.write(runs, enters);
      root.classList.remove("is-empty");
      setText(part.empty, "");
      const late = (fault) => setText(part.fault, `The curves could not be read: ${fault.message}`);
      catalogue().catch(late);
      const mine = ++round;
      load().then(() => (mine === round ? words() : null)).catch(late); // of runs ticked one after another only the last choice is read
    };
    const nothing = () => {
      turn += 1;
      for (const entry of plots.values()) entry.lines = [];
      pairs = [];
      facts.clear();
      root.classList.toggle("is-empty", !(value.runs || []).length);
      setText(part.empty, (value.runs || []).length ? "" : value.empty || "Nothing to show yet.");
      soon();
    };

    // While a shown run is being trained, only a stamp is asked for; what has changed is read again and the zoom stays. One that rests may go
    // on, which is looked for less often.
    const live = async () => {
      if (!root.isConnected) return clearInterval(ticking);
      if (!data || !known.stamp || !root.clientWidth || document.hidden || (ticks++ % RESTING && !known.training)) return;
      try {
        const told = await data.ask("stamp", runs);
        if (told.stamp !== known.stamp) { known.stamp = told.stamp; all(); }
        known.training = told.training;
      } catch { /* the dashboard may be restarting: asked again in a moment */ }
    };
    const ticking = setInterval(live, LIVE);

    // -- what the user does ---------------------------------------------------------------------------------------------------

    let later = 0;
    const adopt = (next, wait) => {
      const moved = next.axis !== settings.axis || next.logX !== settings.logX;
      if (moved || next.logY !== settings.logY) for (const entry of plots.values()) entry.zoomY = null; // another scale means other units
      if (next.axis !== settings.axis) zoom = null;
      settings = bar.set(next);
      if (runs.length && data && !value.compact) choice.keepSettings(runs[0], settings);
      side.setTags([...new Set(known.runs.flatMap((run) => run.tags || []))].sort(), settings);
      if (!data) return ownDraw();
      tellReading();
      clearTimeout(later);
      later = setTimeout(load, wait ? 60 : 0);
    };

    const choose = (ids, enters) => {
      if (JSON.stringify(ids) === JSON.stringify(runs)) return;
      const first = ids[0] !== runs[0];
      [runs, known.stamp] = [ids, ""];
      places.show(ids);
      if (data && !value.compact) choice.keepRuns(ids);
      if (first && ids.length) settings = bar.set(value.compact ? {} : choice.settingsOf(ids[0]));
      all(enters);
    };
    window.addEventListener("popstate", () => {
      const named = (window.cmpRunLink?.named("curves") ?? []).filter((run) => (value.runs || []).some((one) => one.run === run));
      if (!data || value.compact || !root.isConnected || !named.length) return;
      side.setRuns(value.runs, named);
      choose(side.shown());
    });

    const reset = () => {
      zoom = null;
      for (const entry of plots.values()) entry.zoomY = null;
      if (data) load(); else soon();
    };

    const act = (mark, node) => {
      const actions = value.actions || ["compare"];
      if (actions.length < 2) return done(mark, actions[0]);
      const box = node?.getBoundingClientRect?.() || { left: mark.at.x, bottom: mark.at.y };
      menu.open(mark, `${labelOf(mark.run)} · step ${mark.step.toLocaleString("en")}`, actions, { x: box.left, y: box.bottom }, (action) => done(mark, action));
    };
    const done = (mark, action) => {
      const { run, step, id, state } = mark;
      if (action === "compare") onPick?.({ index: step, value: run, run, step });
      else onEdit?.({ what: action, run, step, id, on: state === "starred" });
    };

    const click = (entry, x, event, mark) => {
      if (mark) return act({ ...mark, at: { x: event.clientX, y: event.clientY } });
      if (x !== null && entry.lines.length) pointer.touch(entry, x);
    };

    // -- the value ------------------------------------------------------------------------------------------------------------

    const notes = (lines) => {
      part.notes.replaceChildren(...lines.map((text) => el("li", { text })));
      part.notes.hidden = !lines.length || Boolean(value.compact);
    };

    const ownDraw = () => {
      places.show([...new Set((value.series || []).map((series) => series.run))]);
      const lines = ownLines(value, settings.logY);
      const all = (value.markers || []).length;
      const lost = lines.flatMap((line) => line.marks).filter(([, , y]) => y === null).length;
      const xs = lines.flatMap((line) => [line.raw.x[0], line.raw.x.at(-1)]).filter(Number.isFinite);
      Object.assign(plotOf(charts()[0]), { lines, window: xs.length ? [Math.min(...xs), Math.max(...xs)] : [0, 1] });
      notes([...(value.notes || []), ...(lost ? [`${lost} of ${all} checkpoints lie where nothing was logged and have no mark.`] : [])]);
      soon();
    };

    const update = (next) => {
      const before = value;
      value = next && typeof next === "object" ? { ...next } : {};
      root.classList.toggle("is-compact", Boolean(value.compact));
      if (value.compact) for (const { node } of [side, bar]) node.remove(); // a strip has no room for them
      root.classList.toggle("has-source", Boolean(value.source));
      for (const { run } of value.runs || []) placeOf(run);
      if (!value.source) {
        data = null;
        if (typeof value.log === "boolean") {
          if (value.log !== settings.logY) for (const entry of plots.values()) entry.zoomY = null;
          settings = bar.set({ ...settings, logY: value.log });
        }
        root.classList.toggle("is-empty", !(value.series || []).length);
        setText(part.empty, (value.series || []).length ? "" : value.empty || "Nothing to show yet.");
        return ownDraw();
      }
      const isNew = before.source !== value.source;
      if (isNew) data = makeData(value.source);
      side.setRuns(value.runs || [], choice.runsOf(value, runs, isNew));
      if (JSON.stringify(side.shown()) === JSON.stringify(runs)) all(); else choose(side.shown());
    };

    // Not for what stands around the charts: drawing takes longest of all that is done here.
    new ResizeObserver(() => { if (missed || [...plots.values()].some(({ plot }) => plot.isOutgrown())) soon(); }).observe(root);
    window.cmpCurveTheme.onTheme(root, () => { if (JSON.stringify(themeNow()) !== seenTheme) soon(); });
    update(null);
    return { update };
  };
})();
