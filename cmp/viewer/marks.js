// The checkpoints of a chart as buttons: `cmpMarks(root, {onPick, onLook, onLeave})` -> {update(marks, picking)}, for those who use no
// pointer and for those who miss small diamonds. The row is one stop of the Tab key; the arrow keys go through it.
(() => {
  "use strict";

  const KEYS = { ArrowLeft: (i) => i - 1, ArrowRight: (i) => i + 1, ArrowUp: (i) => i - 1, ArrowDown: (i) => i + 1, Home: () => 0, End: () => Infinity };

  window.cmpMarks = (root, { onPick, onLook, onLeave }) => {
    const { el, refill } = window.cmpDom;
    let current = 0;

    const stop = (i) => {
      const buttons = [...root.querySelectorAll("button")];
      current = Math.max(0, Math.min(i, buttons.length - 1));
      buttons.forEach((button, n) => { button.tabIndex = n === current ? 0 : -1; });
      return buttons[current];
    };

    const makeButton = (mark, i, { several, picking }) => {
      const diamond = el("i", { class: "cmp-diamond", "aria-hidden": "true", text: "◆" });
      diamond.style.color = mark.colour;
      const name = `checkpoint ${mark.step}${several ? ` of ${mark.label}` : ""}`;
      return el("button", { type: "button", class: "cmp-entry cmp-mark", tabindex: "-1", "aria-label": name, title: [name, picking].filter(Boolean).join("\n"),
        click: (event) => onPick(mark, event.currentTarget), focus: () => { stop(i); onLook(mark); }, blur: onLeave }, diamond, el("span", { text: String(mark.step) }));
    };

    root.addEventListener("keydown", (event) => {
      if (!KEYS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      stop(KEYS[event.key](current))?.focus();
    });

    const update = (marks, picking) => {
      const several = new Set(marks.map((mark) => mark.run)).size > 1;
      refill(root, marks.map((mark, i) => makeButton(mark, i, { several, picking })));
      root.hidden = !marks.length;
      stop(current);
    };
    return { update };
  };
})();
