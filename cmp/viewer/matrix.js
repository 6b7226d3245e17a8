// The matrix of images: `cmpMatrix(root, {onPick})` -> {update(value)}. `value` is plain JSON; its fields are
// listed in the Python module beside this file. Rows and columns are found again by their key, cells by the pair,
// and a cell whose record did not change is not touched: a grid that is being drawn updates without a flicker.
(() => {
  "use strict";

  const SIZE = { name: "cmp.matrix.size", min: 48, max: 512, step: 16 };
  const ROOMY = { least: 96, most: 192, head: 210, gap: 10 };

  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

  // What the user last chose, or 0.
  const storedSize = (dom) => clamp(Number(dom.recall(SIZE.name, 0)) || 0, 0, SIZE.max);

  // Until a size is chosen the columns share the width. In steps of 32: small pictures then grow by whole or half factors.
  const roomySize = (width, columns) => {
    const share = (width - ROOMY.head) / Math.max(1, columns) - ROOMY.gap;
    return clamp(Math.floor(share / 32) * 32, ROOMY.least, ROOMY.most);
  };

  const build = (root, dom) => {
    const { el } = dom;
    const part = {
      title: el("h3", { class: "cmp-title" }),
      progress: el("div", { class: "cmp-progress", role: "progressbar", "aria-valuemin": "0", "aria-label": "Cells finished" }),
      fill: el("i", { class: "cmp-progress-fill" }),
      count: el("span", { class: "cmp-count" }),
      size: el("input", { type: "range", min: SIZE.min, max: SIZE.max, step: SIZE.step, "aria-label": "Size of a cell in pixels" }),
      note: el("p", { class: "cmp-note" }),
      corner: el("td", { class: "cmp-corner" }),
      head: el("tr", { role: "row" }),
      body: el("tbody", { role: "rowgroup" }),
    };
    part.progress.append(part.fill);
    part.tools = el("div", { class: "cmp-tools" }, el("label", { class: "cmp-slider" }, el("span", { text: "Size" }), part.size));
    part.table = el("table", { class: "cmp-grid", role: "grid" }, el("thead", { role: "rowgroup" }, part.head), part.body);
    part.box = el("div", { class: "cmp-box" }, part.table);
    root.classList.add("cmp-matrix");
    root.replaceChildren(
      el("div", { class: "cmp-bar" }, part.title, el("div", { class: "cmp-done" }, part.progress, part.count), part.tools), part.note, part.box);
    return part;
  };

  const makeHead = (dom, kind) => {
    const label = dom.el("span", { class: "cmp-label" });
    const sub = dom.el("span", { class: "cmp-sub" });
    const scope = kind === "columnheader" ? "col" : "row";
    const node = dom.el("th", { class: `cmp-head is-${scope}`, role: kind, scope }, dom.el("div", {}, label, sub));
    const again = dom.el("button", { type: "button", class: "cmp-again", text: "⟳ new seed", title: "Draws this row again with a new seed (Shift+R)" });
    return { node, again, set: (entry) => {
      if (scope === "row") dom.setText(again, entry.rerolls ? "⟳ new seed" : "");
      if (scope === "row" && !again.isConnected) node.firstChild.append(again);
      again.setAttribute("aria-label", `New seed for ${[entry.label, entry.sub].filter(Boolean).join(", ")}`);
      dom.setText(label, entry.label);
      dom.setText(sub, entry.sub);
      node.title = [entry.label, entry.sub].filter(Boolean).join("\n");
    } };
  };

  const WAITING = { state: "waiting" };

  window.cmpMatrix = (root, { onPick, onEdit } = {}) => {
    const dom = window.cmpDom;
    const part = build(root, dom);
    const columns = new Map();
    const rows = new Map();
    let value = {};
    let order = { rows: [], columns: [] };
    let cursor = { r: 0, c: 0 };
    let chosen = null;
    let chosenSize = storedSize(dom);
    let pixels = 0;
    let room = { width: 0, columns: 0 };

    const cellNode = (r, c) => rows.get(order.rows[r])?.cells.get(order.columns[c]);
    const cellAt = (r, c) => cellNode(r, c)?.record ?? null;
    const headAt = (r, c) => ({ column: String(value.columns?.[c]?.label ?? ""), row: String(value.rows?.[r]?.label ?? "") });
    const size = () => ({ rows: order.rows.length, columns: order.columns.length });

    // A scroll bar that comes and goes with the size of the cells must not make them flip for ever: small changes of width do not count.
    const roomNow = () => {
      const now = { width: root.clientWidth, columns: size().columns };
      if (now.columns !== room.columns || Math.abs(now.width - room.width) > 40) room = now;
      return room;
    };

    const setSize = () => {
      const next = chosenSize || roomySize(roomNow().width, room.columns);
      if (next === pixels) return;
      pixels = next;
      part.size.value = String(pixels);
      root.style.setProperty("--cmp-size", `${pixels}px`);
      for (const row of rows.values()) for (const cell of row.cells.values()) cell.sharpen();
    };

    // Roving tabindex: the grid is one stop of the Tab key, and that stop is the cell last looked at.
    const select = (r, c, { focus = true } = {}) => {
      const { rows: height, columns: width } = size();
      if (!height || !width) return;
      cursor = { r: clamp(r, 0, height - 1), c: clamp(c, 0, width - 1) };
      const { node } = cellNode(cursor.r, cursor.c);
      if (chosen && chosen !== node) { chosen.tabIndex = -1; chosen.removeAttribute("aria-selected"); }
      chosen = node;
      node.tabIndex = 0;
      node.setAttribute("aria-selected", "true");
      if (!focus) return;
      // Without the padding a cell that was scrolled to would lie under the sticky headers.
      part.box.style.scrollPadding = `${part.head.offsetHeight}px 0 0 ${part.corner.offsetWidth}px`;
      node.focus({ preventScroll: true });
      node.scrollIntoView({ block: "nearest", inline: "nearest" });
    };

    const full = window.cmpFullView(root, { cellAt, headAt, size,
      cursor: () => cursor,
      reroll: () => (value.rerolls ? () => reroll("cell") : null),
      move: (r, c) => select(r, c, { focus: false }),
      onClose: () => select(cursor.r, cursor.c) });

    const open = () => {
      const { r, c } = cursor;
      const record = cellAt(r, c);
      if (!record) return;
      full.open();
      onPick?.({ index: [r, c], value: record.key ?? "", r, c, key: record.key ?? "",
        row: value.rows[r].key, column: value.columns[c].key });
    };

    // "row" draws the row anew with another seed, "cell" puts a row with another seed below it.
    const reroll = (what, r = cursor.r) => {
      if (value.rerolls && value.rows[r]) onEdit?.({ what, row: value.rows[r].key, column: value.columns[cursor.c]?.key });
    };

    const onKey = (event) => {
      if (full.isOpen() || event.ctrlKey || event.metaKey || event.altKey) return;
      const { r, c } = cursor;
      const moves = { ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1], ArrowUp: [r - 1, c], ArrowDown: [r + 1, c],
        Home: [r, 0], End: [r, Infinity], PageUp: [0, c], PageDown: [Infinity, c] };
      if (moves[event.key]) select(...moves[event.key]);
      else if (event.target.closest("button")) return;
      else if (event.key === "Enter" || event.key === " ") open();
      else if (value.rerolls && (event.key === "r" || event.key === "R")) reroll(event.shiftKey ? "row" : "cell");
      else return;
      event.preventDefault();
    };

    const moveTo = (node, how) => { if (node) select(node.parentElement.sectionRowIndex, node.cellIndex - 1, how); };

    const onClick = (event) => {
      const again = event.target.closest(".cmp-again");
      if (again) return void reroll("row", again.closest("tr").sectionRowIndex);
      const node = event.target.closest("td.cmp-cell");
      moveTo(node);
      if (node) open();
    };

    const drawHeads = () => {
      const keys = dom.uniqueKeys(value.columns);
      for (const key of columns.keys()) if (!keys.includes(key)) columns.delete(key);
      keys.forEach((key, i) => {
        if (!columns.has(key)) columns.set(key, makeHead(dom, "columnheader"));
        columns.get(key).set(value.columns[i]);
      });
      dom.place(part.head, [part.corner, ...keys.map((key) => columns.get(key).node)]);
      order.columns = keys;
    };

    const makeRow = () => {
      const head = makeHead(dom, "rowheader");
      return { head, cells: new Map(), node: dom.el("tr", { role: "row" }, head.node) };
    };

    const drawRow = (key, i, records) => {
      if (!rows.has(key)) rows.set(key, makeRow());
      const row = rows.get(key);
      row.head.set({ ...value.rows[i], rerolls: value.rerolls });
      for (const gone of row.cells.keys()) if (!order.columns.includes(gone)) row.cells.delete(gone);
      order.columns.forEach((column, c) => {
        if (!row.cells.has(column)) row.cells.set(column, window.cmpCell(dom, () => pixels));
        const { column: across, row: down } = headAt(i, c);
        row.cells.get(column).set(records.get(`${i},${c}`) || WAITING, across, down);
      });
      dom.place(row.node, [row.head.node, ...order.columns.map((column) => row.cells.get(column).node)]);
    };

    const drawProgress = () => {
      const total = Number(value.total) || 0;
      const done = clamp(Number(value.done) || 0, 0, total);
      part.progress.parentElement.hidden = total === 0;
      dom.setText(part.count, `${done} of ${total}`);
      part.fill.style.width = total ? `${(100 * done) / total}%` : "0";
      part.progress.classList.toggle("is-complete", done === total);
      part.progress.setAttribute("aria-valuemax", String(total));
      part.progress.setAttribute("aria-valuenow", String(done));
    };

    const update = (next) => {
      value = next && typeof next === "object" ? { ...next } : {};
      value.columns = value.columns || [];
      value.rows = value.rows || [];
      const empty = !value.columns.length || !value.rows.length;
      root.classList.toggle("is-empty", empty);
      dom.setText(part.title, value.title);
      dom.setText(part.note, value.note || (empty ? "Nothing to show yet." : ""));
      drawProgress();
      part.table.setAttribute("aria-label", value.title || "Images by column and row");
      const records = new Map((value.cells || []).map((cell) => [`${cell.r},${cell.c}`, cell]));
      const kept = [order.rows[cursor.r], order.columns[cursor.c]];
      drawHeads();
      setSize();
      const keys = dom.uniqueKeys(value.rows);
      for (const key of rows.keys()) if (!keys.includes(key)) rows.delete(key);
      keys.forEach((key, i) => drawRow(key, i, records));
      dom.place(part.body, keys.map((key) => rows.get(key).node));
      order.rows = keys;
      // The cursor stays on its cell when columns or rows are added before it.
      const [r, c] = [keys.indexOf(kept[0]), order.columns.indexOf(kept[1])];
      select(r < 0 ? cursor.r : r, c < 0 ? cursor.c : c, { focus: false });
      full.refresh();
    };

    part.size.addEventListener("input", () => {
      chosenSize = Number(part.size.value);
      dom.remember(SIZE.name, chosenSize);
      setSize();
    });
    part.table.addEventListener("keydown", onKey);
    part.table.addEventListener("click", onClick);
    part.table.addEventListener("focusin", (event) => { if (!full.isOpen()) moveTo(event.target.closest("td.cmp-cell"), { focus: false }); });
    // A matrix in a hidden tab learns its width only when it is shown.
    new ResizeObserver(() => { if (root.clientWidth) setSize(); }).observe(root);
    update(null);
    return { update };
  };
})();
