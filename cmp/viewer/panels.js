// What a button of the bar opens lies over the matrix, as a menu does, and never moves the pictures: `cmpPanels(grid)` gives the grid
// `opens(button, panel, told)` and, for a narrow page, puts what the bar has no room for behind one button. One panel is open at a time;
// Esc, its button, and whatever is clicked or focused outside of it close it.
(() => {
  "use strict";

  const NARROW = 620; // pixels of the matrix

  window.cmpPanels = (grid) => {
    const { dom, root, part } = grid;
    let now = null; // what is open

    const close = (back = false) => {
      if (!now) return;
      const { button, panel } = now;
      now = null;
      const had = panel.contains(document.activeElement);
      panel.hidden = true;
      button.setAttribute("aria-expanded", "false");
      if (back || had) button.focus();
    };

    const open = (one) => {
      close();
      now = one;
      one.panel.hidden = false;
      one.button.setAttribute("aria-expanded", "true");
      one.told();
      place(one.panel);
    };

    // Below its button where there is room, else as far to the left as it must be.
    const place = (panel) => {
      panel.style.left = "0";
      const room = part.bar.clientWidth - panel.offsetWidth;
      panel.style.left = `${Math.max(0, Math.min(room, now.button.offsetLeft))}px`;
      panel.style.top = `${now.button.offsetTop + now.button.offsetHeight + 6}px`;
    };

    grid.opens = (button, panel, told = () => {}) => {
      const one = { button, panel, told };
      button.setAttribute("aria-expanded", "false");
      button.after(panel);
      panel.hidden = true;
      button.addEventListener("click", () => (now === one ? close() : open(one)));
    };

    const isOutside = (node) => now && !now.panel.contains(node) && !now.button.contains(node);
    let spent = false; // the press that closed a panel opens no picture below it
    document.addEventListener("pointerdown", (event) => {
      spent = Boolean(isOutside(event.target)) && part.box.contains(event.target);
      if (isOutside(event.target)) close();
    });
    root.addEventListener("click", (event) => {
      if (spent && event.detail && part.box.contains(event.target)) event.stopPropagation();
      spent = false;
    }, true);
    document.addEventListener("focusin", (event) => { if (isOutside(event.target)) close(); });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !now || !root.isConnected || event.target.closest?.("dialog")) return;
      event.stopPropagation();
      close(true);
    }, true);

    // On a narrow page the rest of the tools is a panel of its own; on a wide one it stands in the bar. The order of the keyboard is the same.
    const more = dom.el("button", { type: "button", class: "cmp-button cmp-more-open", text: "More", title: "Size, zoom, export and more" });
    part.first.after(more);
    grid.opens(more, part.more);
    const fit = () => {
      if (!root.clientWidth) return;
      const narrow = root.clientWidth < NARROW;
      if (narrow === root.classList.contains("is-narrow") && more.dataset.known) return void (now && place(now.panel));
      more.dataset.known = "1";
      close();
      root.classList.toggle("is-narrow", narrow);
      more.hidden = !narrow;
      part.more.hidden = narrow;
      part.more.classList.toggle("cmp-panel", narrow);
    };
    // before the tool itself hears of it: a dialog that it opens gives the focus back to what had it then
    part.more.addEventListener("click", (event) => { if (now?.panel === part.more && event.target.closest("button")) close(true); }, true);
    part.more.hidden = false;
    more.hidden = true;
    new ResizeObserver(fit).observe(root);
    grid.onChange(() => { if (now && !now.button.checkVisibility()) close(); });
  };
})();
