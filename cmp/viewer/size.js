// How large the cells are: a slider, and a button that makes all columns fit into the width. What was chosen is remembered.
(() => {
  "use strict";

  const SIZE = { name: "cmp.matrix.size", min: 48, max: 512, step: 16 };
  const ROOMY = { least: 96, most: 192, head: 210, gap: 12 };
  const FIT = "fit";

  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

  // Until a size is chosen the columns share the width. In steps of 32: small pictures then grow by whole or half factors.
  const roomySize = (width, columns) => clamp(Math.floor(shareOf(width, columns) / 32) * 32, ROOMY.least, ROOMY.most);
  const shareOf = (width, columns, head = ROOMY.head) => (width - head) / Math.max(1, columns) - ROOMY.gap;

  window.cmpSize = (grid) => {
    const { dom, root, part } = grid;
    const { el } = dom;
    const slider = el("input", { type: "range", min: SIZE.min, max: SIZE.max, step: SIZE.step, "aria-label": "Size of a cell in pixels" });
    const fit = el("button", { type: "button", class: "cmp-button", text: "Fit width", title: "Makes all columns fit into the width", "aria-pressed": "false" });
    part.more.append(fit, el("label", { class: "cmp-slider" }, el("span", { text: "Size" }), slider));
    const stored = () => {
      const told = grid.recall(SIZE.name, 0);
      return told === FIT ? FIT : clamp(Number(told) || 0, 0, SIZE.max);
    };
    let chosen = stored();
    grid.onRuns(() => { chosen = stored(); });
    let pixels = 0;
    let room = { width: 0, columns: 0 };
    grid.pixels = () => pixels;
    grid.setPixels = (size) => choose(clamp(size, SIZE.min, SIZE.max));

    // A scroll bar that comes and goes with the size of the cells must not make them flip for ever: small changes of width do not count.
    const roomNow = () => {
      const now = { width: root.clientWidth, columns: grid.size().columns };
      if (now.columns !== room.columns || Math.abs(now.width - room.width) > 40) room = now;
      return room;
    };

    const sizeNow = () => {
      const { width, columns } = roomNow();
      // beside the heads of the rows as they are: on a phone they are narrow
      if (chosen === FIT) return clamp(Math.floor(shareOf(width - 20, columns, part.corner.offsetWidth || ROOMY.head)), SIZE.min, SIZE.max);
      return chosen || roomySize(width, columns);
    };

    const set = () => {
      const next = sizeNow();
      fit.setAttribute("aria-pressed", String(chosen === FIT));
      if (next === pixels) return;
      pixels = next;
      slider.value = String(pixels);
      root.style.setProperty("--cmp-size", `${pixels}px`);
      root.style.setProperty("--cmp-pixels", String(Math.round(pixels))); // for counting lines
      for (const cell of grid.cells()) cell.sharpen();
    };

    const choose = (size) => {
      chosen = size;
      grid.remember(SIZE.name, size);
      set();
    };

    slider.addEventListener("input", () => choose(Number(slider.value)));
    fit.addEventListener("click", () => choose(chosen === FIT ? 0 : FIT));
    grid.onChange(set);
    // A matrix in a hidden tab learns its width only when it is shown.
    new ResizeObserver(() => { if (root.clientWidth) set(); }).observe(root);
  };
})();
