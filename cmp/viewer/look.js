// How all pictures look at once: brightness and contrast, and a tint by a score with its legend. `cmpLook(grid)`.
(() => {
  "use strict";

  const WAYS = [["", "off"], ["outline", "outline"], ["bar", "bar"], ["heat", "heat map"]];
  // viridis: it grows evenly brighter, and is read by those who see no red or green
  const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

  const colourAt = (share) => {
    const at = Math.max(0, Math.min(1, share)) * (STOPS.length - 1);
    const low = Math.min(Math.floor(at), STOPS.length - 2);
    return `rgb(${STOPS[low].map((from, i) => Math.round(from + (STOPS[low + 1][i] - from) * (at - low))).join(" ")})`;
  };

  const said = (number) => (number === 0 ? "0" : Math.abs(number) >= 0.001 && Math.abs(number) < 10000 ? String(Number(number.toPrecision(3))) : number.toExponential(1));
  const valueOf = (score, key) => {
    const told = score.of?.[key];
    const [value, low, high] = Array.isArray(told) ? told : [told];
    return typeof value === "number" && Number.isFinite(value) ? { value, low, high } : null;
  };

  const slider = (dom, label, told) => {
    const input = dom.el("input", { type: "range", min: "0.4", max: "2.5", step: "0.05", "aria-label": label, input: () => told(Number(input.value)) });
    input.value = "1";
    return { input, node: dom.el("label", { class: "cmp-slider" }, dom.el("span", { text: label }), input) };
  };

  window.cmpLook = (grid) => {
    const { dom, root, part } = grid;
    const { el } = dom;
    const open = el("button", { type: "button", class: "cmp-button", text: "Look", title: "Brightness, contrast, tint by a score" });
    const grade = { bright: 1, contrast: 1 };
    const set = (name) => (value) => { grade[name] = value; graded(); };
    const sliders = { bright: slider(dom, "Brightness", set("bright")), contrast: slider(dom, "Contrast", set("contrast")) };
    const reset = el("button", { type: "button", class: "cmp-button", text: "As drawn", click: () => {
      for (const name of Object.keys(grade)) { grade[name] = 1; sliders[name].input.value = "1"; }
      graded();
    } });
    const which = el("select", { class: "cmp-select", "aria-label": "Score to tint by", change: () => tint() });
    const way = el("select", { class: "cmp-select", "aria-label": "How to tint", change: () => { grid.remember("cmp.matrix.tint", way.value); tint(); } },
      ...WAYS.map(([value, text]) => el("option", { value, text })));
    way.value = grid.recall("cmp.matrix.tint", "");
    grid.onRuns(() => { way.value = grid.recall("cmp.matrix.tint", ""); });
    const legend = el("span", { class: "cmp-legend", hidden: "" });
    const tinting = el("span", { class: "cmp-check" }, el("span", { text: "Tint" }), way, which, legend);
    const panel = el("div", { class: "cmp-panel cmp-look", role: "group", "aria-label": "Look" },
      sliders.bright.node, sliders.contrast.node, reset, tinting);
    part.first.append(open);
    grid.opens(open, panel);

    const graded = () => {
      root.classList.toggle("is-graded", grade.bright !== 1 || grade.contrast !== 1);
      root.style.setProperty("--cmp-bright", grade.bright);
      root.style.setProperty("--cmp-contrast", grade.contrast);
    };

    const scores = () => [...(grid.value().scores || []), ...(grid.moreScores?.() || [])];
    const scoreNow = () => (way.value ? scores().find((score) => score.key === which.value) ?? null : null);

    const tintCell = (cell, score, span) => {
      const found = score && cell.record?.state === "done" ? valueOf(score, cell.record.key) : null;
      let node = cell.frame.querySelector(".cmp-tint");
      if (!found) return void node?.remove();
      if (!node) cell.frame.append(node = el("span", { class: "cmp-tint" }));
      const share = span.high > span.low ? (found.value - span.low) / (span.high - span.low) : 0.5;
      const good = score.better === "low" ? 1 - share : share;
      node.className = `cmp-tint is-${way.value}`;
      node.style.setProperty("--cmp-tint", colourAt(good));
      node.style.setProperty("--cmp-share", `${Math.round(100 * share)}%`);
      const between = typeof found.low === "number" && typeof found.high === "number" ? ` (${said(found.low)} to ${said(found.high)})` : "";
      cell.node.title = [`${score.label}: ${said(found.value)}${between}`, cell.record.caption].filter(Boolean).join("\n");
    };

    const drawLegend = (score, span) => {
      legend.hidden = !score;
      if (!score) return;
      const [left, right] = score.better === "low" ? [span.high, span.low] : [span.low, span.high];
      const hint = { high: "higher is better", low: "lower is better" }[score.better] || "";
      legend.replaceChildren(el("span", { text: said(left) }), el("i", { class: "cmp-scale", "aria-hidden": "true" }), el("span", { text: said(right) }), el("span", { text: hint }));
    };

    // The scale spans what is in the grid, also what is hidden now: hiding a column must not recolour the others.
    const tint = () => {
      const score = scoreNow();
      const values = score ? (grid.value().cells || []).map((cell) => valueOf(score, cell.key)?.value).filter((value) => value !== undefined) : [];
      const span = { low: Math.min(...values), high: Math.max(...values) };
      for (const cell of grid.cells()) tintCell(cell, score, span);
      which.hidden = !way.value;
      drawLegend(values.length ? score : null, span);
    };

    const draw = () => {
      const all = scores();
      const names = JSON.stringify(all.map(({ key, label }) => [key, label]));
      tinting.hidden = !all.length;
      if (names !== which.dataset.said) {
        const kept = which.value;
        which.replaceChildren(...all.map(({ key, label }) => el("option", { value: key, text: label })));
        if (all.some(({ key }) => key === kept)) which.value = kept;
        which.dataset.said = names;
      }
      tint();
    };

    grid.onChange(draw);
    grid.tintAgain = draw;
  };
})();
