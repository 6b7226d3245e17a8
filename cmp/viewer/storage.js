// What is occupied: each disk as a bar, each run as a bar of its parts that opens to its checkpoints, and what can be brought back.
(() => {
  "use strict";

  const percent = (share) => `${Math.max(0, Math.min(1, share)) * 100}%`;

  // A bar of parts, told in words to those who do not see it.
  const barOf = (parts, width = 1) => {
    const { el } = window.cmpDom;
    const words = parts.map((part) => `${part.label} ${part.text}`).join(", ");
    const bar = el("div", { class: "cmp-sizes", role: "img", "aria-label": words, title: words });
    bar.style.width = percent(width);
    for (const part of parts) {
      const piece = el("span", { class: "cmp-size", "data-part": part.key });
      piece.style.width = percent(part.share);
      bar.append(piece);
    }
    return bar;
  };

  const legendOf = (parts) => {
    const { el } = window.cmpDom;
    const entries = parts.map((part) => el("li", {}, el("span", { class: "cmp-swatch", "data-part": part.key }), el("span", { text: part.label }), el("b", { text: part.text })));
    return el("ul", { class: "cmp-legend" }, ...entries);
  };

  const waitingFor = (busy) => {
    const { el } = window.cmpDom;
    if (!busy) return [];
    const fill = el("span", { class: "cmp-fill" });
    fill.style.width = percent(busy.share);
    return [el("div", { class: "cmp-busy", role: "status" }, el("span", { class: "cmp-track" }, fill), el("span", { text: busy.text }))];
  };

  const warning = (told) => (told ? [window.cmpDom.el("p", { class: told.bad ? "cmp-bad" : "cmp-told", text: told.text })] : []);

  window.cmpSizes = { percent, barOf, legendOf, waitingFor };

  window.cmpStorage = (root, { onPick, onEdit }) => {
    const { el } = window.cmpDom;
    const ticked = new Set();
    const open = new Set(); // runs whose checkpoints are shown
    const asked = new Set(); // what is being brought back
    let value = { disks: [], runs: [], undo: [], note: "" };
    root.classList.add("cmp-storage");

    const tell = () => onPick({ index: 0, value: [...ticked].join("\n"), ticked: [...ticked] });

    const diskOf = (disk) => el("section", { class: "cmp-disk" },
      el("div", { class: "cmp-line" }, el("h3", { text: disk.label }), el("span", { class: "cmp-free", text: disk.text })),
      barOf(disk.parts), legendOf(disk.parts), ...warning(disk.forecast));

    const insideOf = (run) => {
      const rows = run.checkpoints.map((one) => {
        const bar = el("span", { class: "cmp-size", "data-part": one.key === "compacted" ? "compacted" : "checkpoints" });
        bar.style.width = percent(one.share);
        return el("tr", {}, el("th", { scope: "row", text: one.label }), el("td", { class: "cmp-wide" }, el("div", { class: "cmp-sizes" }, bar)), el("td", { text: one.text }), el("td", { class: "cmp-sub", text: one.key }));
      });
      return el("div", { class: "cmp-inside" }, legendOf(run.parts), ...(run.could ? [el("p", { class: "cmp-told", text: run.could })] : []),
        ...(rows.length ? [el("div", { class: "cmp-box", tabindex: "0", role: "region", "aria-label": `checkpoints of ${run.label}` }, el("table", {}, el("tbody", {}, ...rows)))] : []));
    };

    const toggle = (run) => {
      if (!open.delete(run.key)) open.add(run.key);
      draw();
    };

    const tickOf = (run) => {
      const box = el("input", { type: "checkbox", "aria-label": `only ${run.label}`, change: () => {
        if (box.checked) ticked.add(run.key);
        else ticked.delete(run.key);
        draw();
        tell();
      } });
      box.checked = ticked.has(run.key);
      return box;
    };

    const runOf = (run) => {
      const shown = open.has(run.key);
      const name = el("button", { type: "button", class: "cmp-open", "aria-expanded": String(shown), text: run.label, click: () => toggle(run) });
      const live = run.live ? [el("span", { class: "cmp-live", text: "training" })] : [];
      const sub = run.sub ? [el("span", { class: "cmp-sub", text: run.sub })] : [];
      return el("li", { "data-key": run.key },
        el("div", { class: "cmp-run" }, ...(value.writable ? [tickOf(run)] : []), el("div", { class: "cmp-name" }, name, ...live, ...sub), el("div", { class: "cmp-wide" }, barOf(run.parts, run.share)), el("b", { text: run.text })),
        ...warning(run.forecast), ...(shown ? [insideOf(run)] : []));
    };

    const undoOf = (one) => {
      const waits = asked.has(one.key);
      const act = el("button", { type: "button", class: "cmp-button", text: waits ? "being done …" : one.act, "aria-label": `${one.act} ${one.label}`, click: () => {
        asked.add(one.key);
        draw();
        onEdit({ what: "undo", kind: one.kind, key: one.key });
      } });
      act.disabled = waits;
      return el("tr", { "data-key": one.key }, el("th", { scope: "row" }, el("span", { text: one.label }), el("span", { class: "cmp-sub", text: one.sub })),
        el("td", { text: one.text }), el("td", {}, ...(one.act ? [act] : [el("span", { class: "cmp-sub", text: "by hand" })])));
    };

    // What the colours of all bars mean; how much each is of a run stands in the run itself.
    const keyOf = () => {
      const labels = new Map(value.runs.flatMap((run) => run.parts.map((part) => [part.key, part.label])));
      return el("ul", { class: "cmp-legend" }, ...[...labels].map(([key, label]) => el("li", {}, el("span", { class: "cmp-swatch", "data-part": key }), el("span", { text: label }))));
    };

    const runsOf = () => {
      if (!value.runs.length) return [];
      const who = ticked.size ? `${ticked.size} of them ${ticked.size === 1 ? "is" : "are"} ticked: a preview is about ${ticked.size === 1 ? "it" : "them"} alone.` : "Tick runs to have a preview of them alone.";
      return [el("section", {}, el("div", { class: "cmp-line" }, el("h3", { text: "Runs" }), ...(value.writable ? [el("span", { class: "cmp-free", text: who })] : [])), keyOf(), el("ul", { class: "cmp-runs" }, ...value.runs.map(runOf)))];
    };

    const undosOf = () => {
      if (!value.undo.length) return [];
      const rows = el("tbody", {}, ...value.undo.map(undoOf));
      return [el("section", { class: "cmp-undo" }, el("h3", { text: "What can be brought back" }), el("div", { class: "cmp-box", tabindex: "0", role: "region", "aria-label": "what can be brought back" }, el("table", {}, rows)))];
    };

    const draw = () => {
      // of two runs of one name the one that has the focus keeps it
      const markOf = (node) => `${node.closest("[data-key]")?.dataset.key} ${node.getAttribute("aria-label") || node.textContent}`;
      const focused = root.contains(document.activeElement) ? markOf(document.activeElement) : null;
      const boxes = () => [...root.querySelectorAll(".cmp-box, .cmp-runs")];
      const nameOf = (box) => box.getAttribute("aria-label") || "runs";
      const scrolled = new Map(boxes().map((box) => [nameOf(box), box.scrollTop]));
      root.replaceChildren(...waitingFor(value.busy), ...(value.note ? [el("p", { class: "cmp-told", text: value.note })] : []),
        ...(value.begun || []).map((text) => el("p", { class: "cmp-bad", text })), ...value.disks.map(diskOf), ...runsOf(), ...undosOf());
      for (const box of boxes()) box.scrollTop = scrolled.get(nameOf(box)) || 0;
      if (focused) [...root.querySelectorAll("button, input, .cmp-box")].find((node) => markOf(node) === focused)?.focus({ preventScroll: true });
    };

    const update = (next) => {
      if (!next) return;
      value = next;
      const known = new Set(value.runs.map((run) => run.key));
      if (!value.busy) {
        asked.clear();
        for (const key of [...ticked]) if (!known.has(key)) ticked.delete(key);
      }
      draw();
    };
    return { update };
  };
})();
