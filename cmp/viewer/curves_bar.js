// What the chart is set with: `cmpCurveBar({onChange, onReset, exportOf})` is the row above it, `cmpCurveSide({onRuns, onTag, onPin})` the lists of
// runs and tags beside it.
(() => {
  "use strict";

  const { el, setText, refill } = window.cmpDom;
  const DEFAULTS = { smoothing: 0.6, way: "past", axis: "step", logX: false, logY: false, outliers: true, trend: false, band: true, order: "low", tag: "", pins: [] };
  const WAYS = [["past", "running mean (TensorBoard's)"], ["centred", "centred mean, without lag"]];
  const AXES = [["step", "step"], ["relative", "time since the start"], ["wall", "wall time"]];
  const ORDERS = [["low", "lowest first"], ["high", "highest first"], ["listed", "as listed"]];
  const SWITCHES = [
    ["logY", "Log y", "Logarithmic axis of values"], ["logX", "Log x", "Logarithmic axis of steps or times"],
    ["outliers", "Ignore outliers", "The height of the chart is that of nearly all values; single ones may lie outside"],
    ["band", "95 % band", "Where the mean of each of 24 windows lies at 95 %, by a moving block bootstrap; of at most five runs"],
    ["trend", "Trend", "A straight line through all points of the window"],
  ];

  const isNarrow = () => window.matchMedia("(max-width: 860px)").matches; // there the chart is what one came for: all else is folded

  const choice = (label, choices, onChoose) => {
    const node = el("select", { class: "cmp-select", "aria-label": label, title: label, change: () => onChoose(node.value) });
    node.append(...choices.map(([value, text]) => el("option", { value, text })));
    return node;
  };

  window.cmpCurveBar = ({ onChange, onReset, exportOf }) => {
    let settings = { ...DEFAULTS };
    const change = (what, later) => { settings = { ...settings, ...what }; sync(); onChange(settings, later); };
    const slider = el("input", { type: "range", min: "0", max: "0.999", step: "0.001", class: "cmp-slider", "aria-label": "Smoothing" });
    const box = el("input", { type: "number", min: "0", max: "0.999", step: "0.001", class: "cmp-number", "aria-label": "Smoothing as a number" });
    slider.addEventListener("input", () => change({ smoothing: Number(slider.value) }, true));
    // The pointer and the box set it to a thousandth; by keys that would be a thousand strokes.
    slider.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const next = Number(slider.value) + way * (event.shiftKey ? 0.001 : 0.01);
      change({ smoothing: Number(Math.min(0.999, Math.max(0, next)).toFixed(3)) }, true);
    });
    box.addEventListener("change", () => {
      const wanted = Number(box.value);
      if (box.value !== "" && wanted >= 0 && wanted <= 0.999) change({ smoothing: wanted }); else sync();
    });
    const way = choice("How it is smoothed", WAYS, (value) => change({ way: value }));
    const axis = choice("Horizontal axis", AXES, (value) => change({ axis: value }));
    const order = choice("Order beside the pointer", ORDERS, (value) => change({ order: value }));
    const switches = SWITCHES.map(([name, text, title]) => [name, el("button", { type: "button", class: "cmp-switch", text, title, "data-set": name,
      click: () => change({ [name]: !settings[name] }) })]);
    const reset = el("button", { type: "button", class: "cmp-button", text: "Reset zoom", hidden: "", click: onReset });
    const files = ["csv", "png", "svg"].map((kind) => [kind, el("a", { class: "cmp-file", download: "", text: kind.toUpperCase(), title: `Save this chart as ${kind.toUpperCase()}` })]);
    for (const [kind, link] of files) link.addEventListener("pointerdown", () => { link.href = exportOf(kind); });
    for (const [kind, link] of files) link.addEventListener("focus", () => { link.href = exportOf(kind); });
    const named = (text, ...nodes) => el("label", { class: "cmp-named" }, el("span", { text }), ...nodes);
    const live = el("div", { class: "cmp-bar-group cmp-needs-source" }, named("Smoothing", slider), box, way);
    const more = el("div", { class: "cmp-bar-group cmp-needs-source" }, named("x", axis), named("Pointer", order));
    const saved = el("div", { class: "cmp-bar-group cmp-needs-source cmp-files", "aria-label": "Save" }, el("span", { text: "Save" }), ...files.map(([, link]) => link));
    const rest = [el("div", { class: "cmp-bar-group" }, ...switches.map(([, button]) => button)), more, saved];
    const folded = [el("details", { class: "cmp-fold cmp-more" }, el("summary", { text: "Scales, axes, files" }), ...rest)];
    const node = el("div", { class: "cmp-curves-bar" }, live, ...(isNarrow() ? folded : rest), reset);

    const sync = () => {
      for (const [input, value] of [[slider, settings.smoothing], [box, settings.smoothing], [way, settings.way], [axis, settings.axis], [order, settings.order]]) {
        if (input.value !== String(value)) input.value = String(value);
      }
      for (const [name, button] of switches) button.setAttribute("aria-pressed", String(Boolean(settings[name])));
    };
    sync();
    return { node, zoomed: (on) => { reset.hidden = !on; }, own: (on) => node.classList.toggle("is-own", on),
      set: (next) => { settings = { ...DEFAULTS, ...next }; sync(); return settings; } };
  };

  // A filter as people type it; one that is no regular expression is told, and filters nothing.
  const makeFilter = (label, onChange) => {
    const input = el("input", { type: "search", class: "cmp-filter", placeholder: `Filter ${label} (regex)`, "aria-label": `Filter ${label}`, spellcheck: "false" });
    const fault = el("p", { class: "cmp-fault", role: "alert", hidden: "" });
    let found = null;
    input.addEventListener("input", () => {
      try {
        found = input.value ? new RegExp(input.value, "i") : null;
        setText(fault, "");
      } catch (bad) {
        found = null;
        setText(fault, `Not a regular expression: ${bad.message.replace(/^Invalid regular expression: /, "")}`);
      }
      input.setAttribute("aria-invalid", String(!fault.hidden));
      onChange();
    });
    return { nodes: [input, fault], passes: (text) => !found || found.test(text) };
  };

  window.cmpCurveSide = ({ onRuns, onTag, onPin, colourOf }) => {
    let runs = [];
    let ticked = new Set();
    let tags = [];
    let chosen = { tag: "", pins: [] };
    const runFilter = makeFilter("runs", () => { drawRuns(); tell(); });
    const tagFilter = makeFilter("tags", () => drawTags());
    const runList = el("div", { class: "cmp-list", role: "group", "aria-label": "Runs" });
    const tagList = el("div", { class: "cmp-list", role: "group", "aria-label": "Tags" });
    const runsHead = el("summary", { text: "Runs" });
    const fold = (head, ...nodes) => el("details", { class: "cmp-fold", ...(isNarrow() ? {} : { open: "" }) }, head, ...nodes);
    const node = el("aside", { class: "cmp-side" }, fold(runsHead, ...runFilter.nodes, runList), fold(el("summary", { text: "Tags" }), ...tagFilter.nodes, tagList));

    const shown = () => runs.filter((run) => ticked.has(run.run) && runFilter.passes(`${run.label} ${run.run}`)).map((run) => run.run);
    const tell = (enters) => onRuns(shown(), enters);

    const drawRuns = () => {
      const listed = runs.filter((run) => runFilter.passes(`${run.label} ${run.run}`));
      setText(runsHead, `Runs · ${shown().length} of ${runs.length}`);
      refill(runList, listed.map((run) => {
        const box = el("input", { type: "checkbox", change: () => { if (box.checked) ticked.add(run.run); else ticked.delete(run.run); drawRuns(); tell("each"); } });
        box.checked = ticked.has(run.run);
        const swatch = el("i", { class: "cmp-tip-dot" });
        swatch.style.background = colourOf(run.run);
        return el("label", { class: "cmp-pick", title: run.run }, box, swatch, el("span", { text: run.label }),
          ...(run.training ? [el("em", { class: "cmp-live", title: "is being trained", text: "live" })] : []));
      }));
    };

    // In a long list the first run that is shown is in sight.
    const showTicked = () => {
      const row = runList.querySelector("input:checked")?.closest("label");
      const [list, own] = [runList, row].map((of) => of?.getBoundingClientRect());
      if (own && (own.top < list.top || own.bottom > list.bottom)) runList.scrollTop += own.top - list.top - list.height / 3;
    };

    const tagRow = (tag, text) => {
      const row = el("div", { class: "cmp-tag" }, el("button", { type: "button", class: "cmp-tag-name", "aria-pressed": String(chosen.tag === tag), title: tag || text,
        text, click: () => onTag(tag) }));
      const pinned = chosen.pins.includes(tag);
      row.append(el("button", { type: "button", class: "cmp-pin", "aria-pressed": String(pinned), title: pinned ? "Take this chart away" : "Keep a chart of it below",
        "aria-label": `Pin ${text}`, text: pinned ? "−" : "+", click: () => onPin(tag) }));
      return row;
    };
    const drawTags = () => {
      const groups = new Map();
      for (const tag of tags.filter((name) => tagFilter.passes(name))) {
        const group = tag.includes("/") ? tag.slice(0, tag.indexOf("/")) : "";
        groups.set(group, [...(groups.get(group) || []), tag]);
      }
      const nodes = [tagRow("", "Training loss")];
      for (const [group, names] of [...groups].sort(([a], [b]) => (a > b) - (a < b))) {
        const rows = names.map((tag) => tagRow(tag, group ? tag.slice(group.length + 1) : tag));
        nodes.push(...(group ? [el("details", { class: "cmp-group", open: "" }, el("summary", { text: `${group}/` }), ...rows)] : rows));
      }
      tagList.replaceChildren(...nodes);
    };
    return { node, shown,
      setRuns: (next, wanted) => {
        const before = [...ticked].join("\n");
        runs = next;
        if (wanted) ticked = new Set(wanted);
        drawRuns();
        if ([...ticked].join("\n") !== before) requestAnimationFrame(showTicked); // by then it has a size
      },
      setTags: (next, now) => { tags = next; chosen = now; drawTags(); } };
  };
  window.cmpCurveBar.DEFAULTS = DEFAULTS;
})();
