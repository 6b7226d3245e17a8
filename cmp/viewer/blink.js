// Blinking in place: `cmpBlink(grid)`. While B is held, the cell under the mouse, else the one at the keyboard, shows the picture of the first
// column; while V is held, that of the step before. Whose picture it is stands over it for as long as it is shown.
(() => {
  "use strict";

  const FINDERS = { b: "baseOf", v: "beforeOf" };

  window.cmpBlink = (grid) => {
    const { dom, root, part } = grid;
    let hovered = null;
    let held = "";
    let over = null; // what lies over a cell now
    let turn = 0;

    const end = () => {
      turn += 1;
      over?.remove();
      over = null;
    };

    const focused = () => document.activeElement?.closest?.("td.cmp-cell");
    const target = () => (hovered?.isConnected ? hovered : part.table.contains(focused()) ? focused() : null);

    const show = async () => {
      end();
      const mine = turn;
      const place = held && target() ? grid.placeOf(target()) : null;
      const found = place ? grid[FINDERS[held]](...place) : null;
      if (found?.record?.state !== "done") return;
      const img = dom.el("img", { draggable: "false", alt: grid.nameOf(found.record, found.r, found.c) });
      img.src = grid.url(found.record, "thumb") || grid.url(found.record, "full");
      try { await img.decode(); } catch { return; }
      if (mine !== turn) return;
      img.className = "is-loaded";
      const frame = grid.frameAt(...place);
      const pan = dom.el("div", { class: "cmp-pan" }, img);
      pan.style.transform = frame.querySelector(".cmp-pan").style.transform; // as far zoomed as the cell itself
      img.style.imageRendering = frame.querySelector("img")?.style.imageRendering || "auto";
      const [own] = grid.tell([found, { record: grid.cellAt(...place), r: place[0], c: place[1] }]).own;
      over = dom.el("div", { class: "cmp-blinking" }, pan, dom.el("span", { class: "cmp-blinking-name", text: own }));
      frame.append(over);
    };

    const release = () => { held = ""; end(); };

    document.addEventListener("keydown", (event) => {
      const key = event.key.toLowerCase();
      if (!FINDERS[key] || event.ctrlKey || event.metaKey || event.altKey || grid.full.isOpen()) return;
      if (!root.isConnected || !target() || event.target.closest?.("input:not([type=range]):not([type=checkbox]), textarea, select, [contenteditable], dialog")) return;
      event.preventDefault();
      if (held === key) return;
      held = key;
      show();
    });
    document.addEventListener("keyup", (event) => { if (event.key.toLowerCase() === held) release(); });
    window.addEventListener("blur", release);
    part.table.addEventListener("pointerover", (event) => {
      const now = event.pointerType === "touch" ? null : event.target.closest("td.cmp-cell");
      if (now === hovered) return;
      hovered = now;
      if (held) show();
    });
    part.table.addEventListener("pointerleave", () => { hovered = null; if (held) show(); });
    part.table.addEventListener("focusin", () => { if (held) show(); });
    grid.onChange(() => { if (held) show(); });
  };
})();
