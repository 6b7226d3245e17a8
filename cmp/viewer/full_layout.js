// What the full view is made of: `cmpFullLayout(dom, panel, difference)` -> its nodes by name, laid out in `dialog`. What they do is told in
// `fullview.js`. On the page the stage comes before the buttons: so it is what is met first, also on a phone.
(() => {
  "use strict";

  const MODES = [["one", "One"], ["slider", "Slider"], ["hover", "Hover"], ["side", "Side by side"], ["blink", "Blink"], ["difference", "Difference"]];

  window.cmpFullLayout = (dom, panel, difference) => {
    const { el } = dom;
    const button = (text, more = {}) => el("button", { type: "button", class: "cmp-button", text, ...more });
    const part = {
      title: el("h2", { class: "cmp-full-title", "aria-live": "polite" }),
      place: el("span", { class: "cmp-full-place" }),
      moves: el("div", { class: "cmp-full-moves", role: "group", "aria-label": "Other pictures" },
        ...[["‹", "Column before", 0, -1], ["›", "Column after", 0, 1], ["↑", "Row above", -1, 0], ["↓", "Row below", 1, 0]]
          .map(([text, label, dr, dc]) => button(text, { "aria-label": label, title: label, "data-move": `${dr} ${dc}` }))),
      again: button("Add a row with a new seed", { title: "Below this one, which stays (R)" }),
      close: button("Close", { "aria-label": "Close the full view", title: "Esc" }),
      stage: el("div", { class: "cmp-stage" }),
      note: el("p", { class: "cmp-full-note", hidden: "" }),
      status: el("p", { class: "cmp-full-status", role: "status" }),
      modes: el("div", { class: "cmp-segments", role: "group", "aria-label": "How to compare (M)" }, ...MODES.map(([key, text]) => button(text, { "data-mode": key }))),
      against: el("select", { class: "cmp-select", "aria-label": "Compared with" }),
      swap: button("Swap", { title: "Changes the order of the pictures (C)" }),
      play: button("Pause", { title: "Space" }),
      blink: button("Hold B", { "aria-pressed": "false" }),
      before: button("Hold V", { "aria-pressed": "false" }),
      mark: button("Choose", { title: "Chooses this cell to be compared with others, up to four (X)", "aria-pressed": "false" }),
      leave: button("Only this one", { title: "Leaves the comparison of chosen cells" }),
      less: button("−", { "aria-label": "Zoom out" }),
      zoom: button("Fit", { title: "Fit, 1:1, 2×, 4×, 8× (Z); also wheel, drag, double click, two fingers" }),
      more: button("+", { "aria-label": "Zoom in" }),
      info: button("Info", { title: "Details of the picture (I)", "aria-expanded": "false" }),
      keys: button("?", { "aria-label": "Keyboard help", title: "All keys (?)" }),
    };
    const group = (...nodes) => el("div", { class: "cmp-full-group" }, ...nodes);
    const tools = el("div", { class: "cmp-full-tools", role: "toolbar", "aria-label": "Full view" },
      group(part.modes, part.against, part.swap, part.play, part.blink, part.before, part.mark, part.leave),
      group(part.less, part.zoom, part.more), group(part.info, part.keys));
    part.dialog = el("dialog", { class: "cmp-full", "aria-label": "Full view", tabindex: "-1" },
      el("header", { class: "cmp-full-head" }, part.title, part.place, part.moves, part.again, part.close),
      part.stage, el("div", { class: "cmp-full-under" }, difference.node, part.note, part.status, tools), panel.node);
    return part;
  };
  window.cmpFullLayout.modes = MODES.map(([key]) => key);
})();
