// All keys that do something now: `cmpHelp(grid)` gives the grid `help(where)`, which opens a dialog. What cannot be done now is not listed.
(() => {
  "use strict";

  // [keys, what they do, when]
  const matrix = (grid) => [
    ["The matrix", [
      ["← → ↑ ↓", "go to the next cell"],
      ["Home End", "first and last column"],
      ["PgUp PgDn", "first and last row"],
      ["Enter", "open the cell large"],
      ["B", "while held: the first column in place of the cell under the mouse or at the keyboard"],
      ["V", "while held: the step before in its place"],
      ["R", "add a row with a new seed below the cell", () => grid.value().rerolls?.length],
      ["Shift R", "replace the row by one with a new seed", () => grid.value().rerolls?.length],
    ]],
    ["Comparing", [
      ["X or Space", "choose the cell, four at most"],
      ["Ctrl click", "the same with the mouse (⌘ on a Mac)"],
      ["C", "compare the chosen cells", () => grid.chosen().length > 1],
    ]],
    ["Zoom", [
      ["+ −", "zoom all pictures together"],
      ["0", "the whole pictures again"],
      ["Ctrl wheel", "the same with the mouse; drag to move"],
    ]],
    ["Help", [["?", "this list"], ["Esc", "closes it"]]],
  ];

  const full = (grid) => {
    const { can } = grid.full;
    return [
      ["Other pictures", [
        ["← →", "column before and after, round at the ends", () => !can.chosen()],
        ["↑ ↓", "row above and below, round at the ends", () => !can.chosen()],
        ["← → ↑ ↓", "move all chosen cells together", can.chosen],
        ["Home End", "first and last column", () => !can.chosen()],
        ["PgUp PgDn", "first and last row", () => !can.chosen()],
        ["Swipe", "the same by touch"],
      ]],
      ["Comparing", [
        ["M", "next way: slider, hover, side by side, blink, difference (Shift M: the one before)"],
        ["C", "swap the pictures", can.several],
        ["X", "choose this cell to be compared with others, four at most", can.alone],
        ["B", "while held: the first column in its place; also holding the mouse on the picture", () => can.holds("is-base")],
        ["V", "while held: the step before in its place", () => can.holds("is-before")],
        [", .", "move the divider; or Tab to it, then ← →", can.slides],
        ["1 – 4", "show this picture", can.stacked],
        ["Space", "pause, or go on", can.blinks],
      ]],
      ["Zoom", [
        ["Z", "1:1, 2×, 4×, 8×, and the whole picture again"],
        ["+ − 0", "in, out, the whole picture"],
        ["Shift ← → ↑ ↓", "move the picture"],
        ["Wheel, drag", "the same with the mouse; a double click goes to 1:1 and back"],
      ]],
      ["The view", [
        ["I", "details on and off"],
        ["R", "add a row with a new seed below", () => grid.value().rerolls?.length && !can.chosen()],
        ["?", "this list"],
        ["Esc", "close; so does the browser's way back"],
      ]],
    ];
  };

  window.cmpHelp = (grid) => {
    const { dom, root, part } = grid;
    const { el } = dom;
    const list = el("div", { class: "cmp-help-list" });
    const close = el("button", { type: "button", class: "cmp-button", text: "Close" });
    const dialog = el("dialog", { class: "cmp-help", "aria-label": "Keyboard help" }, el("header", { class: "cmp-help-head" }, el("h2", { text: "Keys" }), close), list);
    const open = el("button", { type: "button", class: "cmp-button", text: "?", "aria-label": "Keyboard help", title: "All keys (?)" });
    root.append(dialog);
    part.more.append(open);

    const section = ([title, keys]) => {
      const now = keys.filter(([, , when]) => !when || when());
      if (!now.length) return [];
      return [el("section", {}, el("h3", { text: title }), el("dl", {}, ...now.flatMap(([key, does]) => [
        el("dt", {}, ...key.split(" ").map((one) => (/^(or|–|click|wheel,?|drag)$/i.test(one) ? el("span", { text: ` ${one} ` }) : el("kbd", { text: one })))),
        el("dd", { text: does })])))];
    };

    grid.help = (where = "matrix") => {
      list.replaceChildren(...(where === "full" ? full : matrix)(grid).flatMap(section));
      if (!dialog.open) dialog.showModal();
      close.focus();
    };

    open.addEventListener("click", () => grid.help());
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("keydown", (event) => { if (event.key !== "Escape" && event.key !== "Tab") event.stopPropagation(); });
    root.addEventListener("keydown", (event) => {
      if (event.key !== "?" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=range]):not([type=checkbox]), textarea, select")) return;
      event.preventDefault();
      grid.help();
    });
  };
})();
