// The verdicts on a run: `cmpPick(root, {onPick, onEdit})` -> {update(value)}. On top what all rules come to, then one panel for each; below what
// can be done with the checkpoint that is picked. Where nothing is known it is said what to do, and no empty chart is drawn.
(() => {
  "use strict";

  const GIVE_UP = 20_000; // ms
  const SOON = 2000; // ms between two looks whether something has changed

  window.cmpPick = (root, { onPick, onEdit }) => {
    const { el, setText, refill } = window.cmpDom;
    const { figure } = window.cmpPickPlot;
    let value = { runs: [], panels: [], picks: [], next: [], actions: [] };
    let picked = "";
    let isOwn = false; // picked by somebody; until then it follows the verdict
    let shownRun = null;
    let looked = 0;
    const plots = new Map(); // by rule; what was logged and what was measured may go by one name

    const choice = el("select", { class: "cmp-select", "aria-label": "Run", change: (event) => { wait(); onEdit({ what: "run", run: event.target.value }); } });
    const told = el("p", { class: "cmp-pick-told", role: "status" });
    const next = el("ul", { class: "cmp-pick-next" });
    const panels = el("div", { class: "cmp-pick-panels" });
    const which = el("select", { class: "cmp-select", "aria-label": "Checkpoint to go on with", change: (event) => pick(event.target.value) });
    const button = (name, act) => el("button", { type: "button", class: "cmp-button", "data-do": name, click: act });
    const compare = button("compare", () => { lookFor(); onPick({ index: 0, value: value.ends.join("\n"), run: value.run, ids: value.ends }); });
    const convert = button("convert", () => onEdit({ what: "convert", run: value.run, id: picked }));
    const measure = button("measure", () => toMeasure());
    const star = button("star", () => onEdit({ what: "star", run: value.run, id: picked, on: !value.picks.find((one) => one.id === picked)?.star }));
    const vote = el("a", { class: "cmp-button", "data-do": "vote", target: "_blank", rel: "noopener", text: "Vote" });
    const csv = el("a", { class: "cmp-item", download: "", text: "Scores (CSV)" });
    const json = el("a", { class: "cmp-item", download: "", text: "Verdicts (JSON)" });
    const files = el("details", { class: "cmp-export" }, el("summary", { class: "cmp-button", text: "Export" }), el("div", { class: "cmp-menu" }, csv, json));
    const share = window.cmpShare();
    const doing = el("div", { class: "cmp-pick-doing" }, el("label", {}, el("span", { text: "Go on with" }), which), convert, star, compare, measure, vote, files, share.menu);
    const empty = el("p", { class: "cmp-empty", role: "status", text: "Reading …" }); // until something is known
    const whole = el("div", { class: "cmp-pick-whole", hidden: "" }, told, next, doing, share.told, panels);
    root.classList.add("cmp-pick");
    root.replaceChildren(el("div", { class: "cmp-pick-top" }, el("label", { hidden: "" }, el("span", { text: "Run" }), choice)), empty, whole);
    document.addEventListener("click", (event) => { if (!files.contains(event.target)) files.open = false; });
    files.addEventListener("keydown", (event) => { if (event.key === "Escape") { files.open = false; files.querySelector("summary").focus(); } });

    // The section lies below; it opens on its own time.
    const toMeasure = () => {
      onEdit({ what: "measure", run: value.run });
      setTimeout(() => document.querySelector("#pick-measure")?.scrollIntoView({ behavior: "smooth", block: "start" }), 250);
    };

    const stepOf = ({ text, do: does }) => el("li", {}, ...(does ? [el("button", { type: "button", class: "cmp-pick-step", text, click: toMeasure })] : [el("span", { text })]));

    // Until the other tab has opened: whether both were drawn before may take a moment to find.
    let looking = [];
    const lookFor = () => { looking = [setTimeout(() => setText(compare, "Looking for pictures …"), 250), setTimeout(() => drawDoing(), GIVE_UP)]; };
    new ResizeObserver(() => { if (root.clientWidth || !looking.length) return; looking.forEach(clearTimeout); looking = []; drawDoing(); }).observe(root);

    const wait = () => root.setAttribute("aria-busy", "true");

    const save = (text, name) => {
      const url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
      el("a", { href: url, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    };

    const tableOf = (panel) => {
      const head = ["checkpoint", panel.metric, "95 %", panel.counts, "verdict"].map((text) => el("th", { scope: "col", text }));
      const rows = panel.points.map((point) => el("tr", {}, el("th", { scope: "row", text: point.label }), el("td", { text: figure(point.value) }),
        el("td", { text: point.low === null || point.high === null ? "–" : `${figure(point.low)} to ${figure(point.high)}` }), el("td", { text: String(point.n) }),
        el("td", { text: point.best ? "best" : point.window ? "in the window" : "" })));
      const more = panel.base === null ? [] : [el("tr", {}, el("th", { scope: "row", text: "base model" }), el("td", { text: figure(panel.base) }), el("td", { text: "–" }), el("td"), el("td"))];
      return el("div", { class: "cmp-scroll", tabindex: "0", role: "region", "aria-label": `${panel.name}, scores` }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows, ...more)));
    };

    // On how many items the scores stand.
    const standsOn = ({ points, counts, means }) => {
      const [least, most] = [Math.min(...points.map(({ n }) => n)), Math.max(...points.map(({ n }) => n))];
      const told = `${least === most ? most : `${least} to ${most}`} ${most === 1 ? counts.replace(/s$/, "") : counts}`;
      return means ? `means of the ${told} logged before each checkpoint` : told;
    };

    const makePanel = (rule) => {
      const name = el("h3");
      const about = el("span", { class: "cmp-pick-about" });
      const file = el("button", { type: "button", class: "cmp-pick-file", text: "SVG", title: "This chart as a picture" });
      const sentence = el("p", { class: "cmp-pick-sentence" });
      const notes = el("ul", { class: "cmp-notes" });
      const table = el("details", { class: "cmp-pick-table" }, el("summary", { text: "As a table" }), el("div"));
      const node = el("section", { class: "cmp-pick-panel", "data-rule": rule }, el("div", { class: "cmp-pick-head" }, name, about, file));
      const plot = window.cmpPickPlot(node, { onPick: pick });
      const limits = el("div", { class: "cmp-pick-limits" }, el("p", { text: "What it does not say" }), el("ul", {}));
      const heart = el("details", { class: "cmp-pick-more", "data-part": "gap", open: "" }, el("summary", { text: "Learned by heart" }), el("p", { text: "Held-out minus training loss, in shares of the base model's: above 0 the training images gained more than the others." }), el("div"));
      const times = el("details", { class: "cmp-pick-more", "data-part": "bands" }, el("summary", { text: "By timestep" }), el("p", { text: "Loss at each timestep t as a share of the base model's, which is 1: low t is fine detail, high t is composition." }), el("div"));
      const parts = el("details", { class: "cmp-pick-more", "data-part": "blocks" }, el("summary", { text: "By block" }), el("p", { text: "The same of each block of the model: where the training has changed it most." }), el("div"));
      const [gap, bands, blocks] = [heart, times, parts].map((part) => window.cmpPickSmall(part.lastElementChild));
      node.append(sentence, notes, heart, times, parts, limits, table);
      file.addEventListener("click", () => save(plot.svg(), `${value.name} ${name.textContent}.svg`.replace(/[^\p{L}\p{N}.]+/gu, "-")));
      const set = (panel) => {
        setText(name, panel.name);
        file.setAttribute("aria-label", `${panel.name} as SVG`);
        setText(about, [panel.metric === panel.name ? "" : panel.metric, panel.better && `${panel.better} is better`, standsOn(panel), panel.decides ? "" : "does not decide"].filter(Boolean).join(" · "));
        setText(sentence, panel.sentence);
        notes.replaceChildren(...[...panel.warnings, ...(panel.unknown.length ? [`Not judged: ${panel.unknown.join(", ")}.`] : [])].map((text) => el("li", { text })));
        notes.hidden = !notes.children.length;
        limits.hidden = !panel.limits.length;
        limits.lastElementChild.replaceChildren(...panel.limits.map((text) => el("li", { text })));
        [heart.hidden, times.hidden, parts.hidden] = [!panel.gap, !panel.bands.length, !panel.blocks.length];
        if (panel.gap) gap.update([panel.gap], { base: 0, label: "Learned by heart" });
        if (panel.bands.length) bands.update(panel.bands, { base: 1, label: panel.name });
        if (panel.blocks.length) blocks.update(panel.blocks, { base: 0, label: panel.name });
        table.lastElementChild.replaceChildren(tableOf(panel));
        node.classList.toggle("is-leading", panel.leads);
        node.setAttribute("aria-label", panel.name);
      };
      return { node, plot, set };
    };

    const pick = (id) => {
      if (!value.picks.some((one) => one.id === id)) return;
      picked = id;
      isOwn = true;
      draw();
    };

    const labelOf = (id) => value.picks.find((one) => one.id === id)?.label ?? "";

    const drawDoing = () => {
      refill(which, value.picks.map(({ id, label, star: on }) => el("option", { value: id, text: `${on ? "★ " : ""}${label}` })));
      which.value = picked;
      const may = (name) => value.actions.includes(name);
      const starred = value.picks.find((one) => one.id === picked)?.star;
      setText(convert, may("convert") ? `Convert ${labelOf(picked)}` : "");
      setText(star, may("star") ? (starred ? "Take the star away" : "Star it") : "");
      star.setAttribute("aria-pressed", String(Boolean(starred)));
      const [first, last] = value.ends;
      setText(compare, last ? `Compare ${labelOf(first)} and ${labelOf(last)}` : `Compare ${labelOf(first)} with the base model`);
      setText(measure, may("measure") ? "Measure …" : "");
      vote.hidden = !may("vote");
      vote.href = value.vote;
      csv.href = `${value.scores}/scores.csv`;
      json.href = `${value.scores}/verdicts.json`;
      files.hidden = !value.panels.length;
      share.set(may("share") ? value.share : "", picked, labelOf(picked));
    };

    const draw = () => {
      const runs = value.runs.map(({ key, label }) => el("option", { value: key, text: label }));
      if (JSON.stringify(value.runs) !== choice.dataset.told) choice.replaceChildren(...runs);
      choice.dataset.told = JSON.stringify(value.runs);
      choice.value = value.run;
      choice.parentElement.hidden = runs.length < 2;
      setText(empty, value.empty);
      whole.hidden = Boolean(value.empty);
      if (value.empty) return;
      setText(told, value.told);
      root.dataset.agree = String(value.agree);
      next.replaceChildren(...value.next.map(stepOf));
      next.hidden = !value.next.length;
      drawDoing();
      const keys = window.cmpDom.uniqueKeys(value.panels.map(({ rule }) => ({ key: rule })));
      for (const key of plots.keys()) if (!keys.includes(key)) plots.delete(key);
      keys.forEach((key, i) => { if (!plots.has(key)) plots.set(key, makePanel(value.panels[i].rule)); });
      window.cmpDom.place(panels, keys.map((key) => plots.get(key).node));
      value.panels.forEach((panel, i) => {
        plots.get(keys[i]).set(panel);
        plots.get(keys[i]).plot.update(panel, picked);
      });
    };

    // Votes are cast on a page of their own: who comes back from it wants to see them.
    const look = () => {
      if (!root.isConnected || document.hidden || !root.clientWidth || !value.run || Date.now() - looked < SOON) return;
      looked = Date.now();
      onEdit({ what: "look", run: value.run });
    };
    document.addEventListener("visibilitychange", look);
    window.addEventListener("focus", look);

    const update = (given) => {
      if (!given) return;
      value = { actions: [], ends: [], ...given };
      root.removeAttribute("aria-busy");
      if (value.run !== shownRun || !value.picks.some((one) => one.id === picked)) isOwn = false;
      if (!isOwn) picked = value.pick ?? "";
      shownRun = value.run;
      draw();
      if (value.reading) setTimeout(() => { if (root.isConnected && root.clientWidth) onEdit({ what: "look", run: value.run }); }, SOON / 2);
    };
    return { update };
  };
})();
