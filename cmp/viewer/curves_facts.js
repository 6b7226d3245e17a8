// What stands below the chart in words: `cmpCurveFacts({onOpenSettings})` -> {node, reading(told), settings(told), clear()}.
(() => {
  "use strict";

  const { el } = window.cmpDom;
  const MOST_OPEN = 4; // cards; with more of them what stands below would be far away

  window.cmpCurveFacts = ({ onOpenSettings }) => {
    const read = el("div", { class: "cmp-readings" });
    const settings = el("details", { class: "cmp-fold cmp-settings" }, el("summary", { text: "Settings, data and logs, side by side" }));
    const body = el("div", { class: "cmp-settings-body" });
    settings.append(body);
    settings.addEventListener("toggle", () => { if (settings.open) onOpenSettings(); });
    const rest = el("details", { class: "cmp-fold", hidden: "" });
    const node = el("div", { class: "cmp-facts" }, read, rest, settings);

    const card = (title, ...nodes) => el("section", { class: "cmp-card" }, el("h4", { text: title }), ...nodes);
    const list = (lines) => el("ul", {}, ...lines.map((text) => el("li", { text })));

    const reading = ({ readings, pairs }) => {
      const several = readings.length > 1;
      const cards = readings.map(({ label, lines }) => card(several ? `How to read this curve: ${label}` : "How to read this curve", list(lines)));
      const open = cards.length > MOST_OPEN ? cards.slice(0, MOST_OPEN - 1) : cards;
      const others = cards.slice(open.length);
      read.replaceChildren(...(pairs.length ? [card("Runs that saw the same noise", list(pairs.map((pair) => pair.text)))] : []), ...open);
      const wasOpen = rest.open;
      rest.replaceChildren(el("summary", { text: `How to read the other ${others.length} curves` }), el("div", { class: "cmp-readings" }, ...others));
      [rest.hidden, rest.open] = [!others.length, wasOpen];
    };

    const showSettings = ({ runs, rows, lineage, logs = [] }) => {
      const head = el("tr", {}, el("th", { scope: "col", text: "" }), ...runs.map((name) => el("th", { scope: "col", text: name })));
      const lines = rows.map((row) => el("tr", { class: row.differs ? "is-different" : "" }, el("th", { scope: "row", text: row.name }),
        ...row.values.map((value) => el("td", { text: value || "–" }))));
      const nothing = rows.length ? [] : [el("p", { text: "Nothing was recorded." })];
      body.replaceChildren(el("div", { class: "cmp-scroll" }, el("table", { class: "cmp-side-by-side" }, el("thead", {}, head), el("tbody", {}, ...lines))), ...nothing,
        ...(lineage.length ? [el("h5", { text: "Where they come from" }), list(lineage)] : []),
        ...(logs.length ? [el("h5", { text: "Which logs are read" }), list(logs), el("p", { class: "cmp-menu-note" }, "If these are the wrong ones, ", el("code", { text: "python -m cmp curves RUN --logs DIR" }), " says which are right; it is remembered.")] : []));
    };

    return { node, reading, settings: showSettings, isOpen: () => settings.open, clear: () => { read.replaceChildren(); rest.hidden = true; } };
  };
})();
