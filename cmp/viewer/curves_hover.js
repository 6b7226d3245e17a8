// What stands beside the pointer: `cmpCurveTip(root)` -> {show(head, rows, note, event), hide()}, all runs at one step in the order that is
// wanted; and `cmpCurveMenu(root)` -> {open(mark, actions, at, onChoose), close()}, what can be done with a checkpoint.
(() => {
  "use strict";

  const { el, setText } = window.cmpDom;
  const MOST_ROWS = 24;
  const WORDS = { compare: "Compare it with the base model", convert: "Convert it …", star: "Mark it with a star" };

  const figure = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(4)).toString());

  window.cmpCurveTip = (root) => {
    const part = { head: el("b", { class: "cmp-tip-head" }), rows: el("div", { class: "cmp-tip-rows" }), note: el("p", { class: "cmp-tip-note" }) };
    const node = el("div", { class: "cmp-tip", hidden: "", role: "status" }, part.head, part.rows, part.note);
    root.append(node);

    const rowOf = ({ colour, label, y, raw, aside }) => {
      const swatch = el("i", { class: "cmp-tip-dot" });
      swatch.style.background = colour;
      return el("div", { class: "cmp-tip-row" }, swatch, el("span", { text: label }), el("b", { text: figure(y) }),
        el("small", { text: [raw === undefined ? "" : `raw ${figure(raw)}`, aside || ""].filter(Boolean).join(" ") }));
    };

    const show = (head, rows, note, event) => {
      setText(part.head, head);
      part.rows.replaceChildren(...rows.slice(0, MOST_ROWS).map(rowOf));
      setText(part.note, [rows.length > MOST_ROWS ? `and ${rows.length - MOST_ROWS} more` : "", note].filter(Boolean).join(" "));
      node.hidden = false;
      const frame = root.getBoundingClientRect();
      const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
      const left = x + 18 + node.offsetWidth > root.clientWidth ? x - 18 - node.offsetWidth : x + 18;
      Object.assign(node.style, { left: `${Math.max(2, left)}px`, top: `${Math.max(2, y - node.offsetHeight / 2)}px` });
    };
    return { show, hide: () => { node.hidden = true; } };
  };

  window.cmpCurveMenu = (root) => {
    const node = el("div", { class: "cmp-menu", role: "menu", hidden: "" });
    root.append(node);
    let before = null;

    const close = (back = true) => {
      if (node.hidden) return;
      node.hidden = true;
      if (back) before?.focus?.();
    };
    const open = (mark, title, actions, at, onChoose) => {
      before = document.activeElement;
      const items = actions.map((action) => {
        const text = action === "star" && mark.state === "starred" ? "Take the star away" : WORDS[action] || action;
        const able = action === "star" || mark.state !== "flawed";
        const item = el("button", { type: "button", role: "menuitem", class: "cmp-menu-item", "data-action": action, text,
          click: () => { close(false); onChoose(action); } });
        item.disabled = !able;
        return item;
      });
      const told = [mark.note, mark.score].filter(Boolean).join(" · ");
      node.replaceChildren(el("b", { class: "cmp-menu-title", text: title }), ...(told ? [el("p", { class: "cmp-menu-note", text: told })] : []), ...items);
      node.hidden = false;
      const frame = root.getBoundingClientRect();
      const left = Math.min(Math.max(4, at.x - frame.left + 8), Math.max(4, root.clientWidth - node.offsetWidth - 4));
      Object.assign(node.style, { left: `${left}px`, top: `${at.y - frame.top + 8}px` });
      items.find((item) => !item.disabled)?.focus();
    };
    node.addEventListener("keydown", (event) => {
      const items = [...node.querySelectorAll("button:not(:disabled)")];
      const at = items.indexOf(document.activeElement);
      if (event.key === "Escape") close();
      else if (event.key === "ArrowDown") items[(at + 1) % items.length]?.focus();
      else if (event.key === "ArrowUp") items[(at - 1 + items.length) % items.length]?.focus();
      else return;
      event.preventDefault();
    });
    node.addEventListener("focusout", (event) => { if (event.relatedTarget && !node.contains(event.relatedTarget)) close(false); });
    document.addEventListener("pointerdown", (event) => { if (!node.contains(event.target)) close(false); }, true);
    return { open, close, isOpen: () => !node.hidden };
  };
})();
