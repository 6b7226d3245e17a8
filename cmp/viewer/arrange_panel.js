// What runs across and down, which values are shown and in which order: a panel over the matrix. All of it changes `grid.view()` only.
(() => {
  "use strict";

  const PLACES = [["x", "across"], ["X", "across, in groups"], ["y", "down"], ["Y", "down, in groups"], ["", "one at a time"]];
  const SWAPPED = { x: "y", y: "x", X: "Y", Y: "X", "": "" };

  window.cmpArrangePanel = (grid) => {
    const { dom } = grid;
    const { el } = dom;
    const open = el("button", { type: "button", class: "cmp-button", text: "Arrange", title: "What runs across and down; hide and reorder" });
    const swap = el("button", { type: "button", class: "cmp-button", text: "Swap axes", title: "What runs across runs down" });
    const panel = el("div", { class: "cmp-panel", role: "group", "aria-label": "Arrange" });
    grid.part.first.prepend(open);
    grid.part.more.prepend(swap);

    const place = (axis, to) => grid.setView({ place: { ...grid.view().place, [axis.key]: to } });

    const swapAll = () => {
      const places = Object.fromEntries(grid.arranged().axes.map((axis) => [axis.key, SWAPPED[axis.place]]));
      grid.setView({ place: places });
    };

    const setShown = (axis, at, on) => {
      const hidden = axis.keys.filter((_, i) => (i === at ? !on : !axis.rank.has(i)));
      if (hidden.length < axis.keys.length) grid.setView({ hidden: { ...grid.view().hidden, [axis.key]: hidden } });
      else { delete panel.dataset.said; draw(); } // the last one stays: an empty grid would leave nothing to click
    };

    const move = (axis, at, by) => {
      const order = [...axis.order];
      const n = order.indexOf(at);
      const to = n + by;
      if (to < 0 || to >= order.length) return;
      order.splice(to, 0, ...order.splice(n, 1));
      grid.setView({ order: { ...grid.view().order, [axis.key]: order.map((i) => axis.keys[i]) } });
    };

    const entry = (axis, at) => {
      const name = [axis.values[at].label, axis.values[at].sub].filter(Boolean).join(" ");
      const box = el("input", { type: "checkbox", change: () => setShown(axis, at, box.checked) });
      box.checked = axis.rank.has(at);
      const arrow = (text, by, said) => el("button", { type: "button", class: "cmp-move", text, "aria-label": `${said}: ${name}`, click: () => move(axis, at, by) });
      return el("li", {}, el("label", { class: "cmp-check", title: name }, box, el("span", { text: name })), arrow("↑", -1, "Earlier"), arrow("↓", 1, "Later"));
    };

    const section = (axis) => {
      const where = el("select", { class: "cmp-select", "aria-label": `Where ${axis.label} runs`, change: () => place(axis, where.value) },
        ...PLACES.map(([value, text]) => el("option", { value, text })));
      where.value = axis.place;
      return el("section", { class: "cmp-axis" }, el("label", { class: "cmp-check" }, el("strong", { text: axis.label }), where),
        el("ol", {}, ...axis.order.map((at) => entry(axis, at))));
    };

    // What is at the keyboard stays there when the panel is drawn anew.
    const focusOf = () => {
      const at = document.activeElement;
      return panel.contains(at) ? [...panel.querySelectorAll("input, select, button")].indexOf(at) : -1;
    };

    const draw = () => {
      const axes = grid.arranged().axes.filter((axis) => axis.values.length > 1);
      open.hidden = swap.hidden = !axes.length;
      if (panel.hidden) return;
      const said = JSON.stringify(axes.map(({ key, keys, order, shown, place }) => [key, keys, order, shown, place]));
      if (said === panel.dataset.said) return;
      panel.dataset.said = said;
      const at = focusOf();
      panel.replaceChildren(...axes.map(section),
        el("button", { type: "button", class: "cmp-button", text: "As it was", click: () => grid.setView({ place: null, order: null, hidden: null, pick: null }) }));
      if (at >= 0) [...panel.querySelectorAll("input, select, button")][at]?.focus();
    };

    grid.opens(open, panel, () => {
      delete panel.dataset.said;
      draw();
    });
    swap.addEventListener("click", swapAll);
    grid.onChange(draw);
  };
})();
