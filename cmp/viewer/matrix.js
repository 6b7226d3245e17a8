// The matrix of images: `cmpMatrix(root, {onPick, onEdit})` -> {update(value), view(), setView(view)}. `value` is plain JSON; its fields are
// listed in the Python module beside this file. Rows and columns are found again by their key, cells by the pair, and a cell whose record
// did not change is not touched: a grid that is being drawn updates without a flicker. What can be done with it lies in the parts named
// below: each is handed `grid`, the one object that knows what is shown and where the cursor is.
(() => {
  "use strict";

  const PARTS = ["cmpPanels", "cmpSize", "cmpZoom", "cmpLook", "cmpSelectors", "cmpArrangePanel", "cmpExport", "cmpLinking", "cmpViewLink", "cmpChosen", "cmpBlink", "cmpChanges", "cmpHelp"];
  const WAITING = { state: "waiting" };

  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

  const build = (root, dom) => {
    const { el } = dom;
    const part = {
      title: el("h3", { class: "cmp-title" }),
      progress: el("div", { class: "cmp-progress", role: "progressbar", "aria-valuemin": "0", "aria-label": "Cells finished" }),
      fill: el("i", { class: "cmp-progress-fill" }),
      count: el("span", { class: "cmp-count" }),
      tools: el("div", { class: "cmp-tools" }),
      first: el("div", { class: "cmp-first" }),
      more: el("div", { class: "cmp-more", role: "group", "aria-label": "More" }),
      under: el("div", { class: "cmp-under" }),
      note: el("p", { class: "cmp-note" }),
      verdict: el("p", { class: "cmp-verdict", hidden: "" }),
      groups: el("tr", { role: "row", class: "cmp-groups" }),
      apart: el("td", { class: "cmp-corner" }),
      corner: el("td", { class: "cmp-corner" }),
      head: el("tr", { role: "row", class: "cmp-heads" }),
      body: el("tbody", { role: "rowgroup" }),
    };
    part.progress.append(part.fill);
    part.tools.append(part.first, part.more);
    part.bar = el("div", { class: "cmp-bar" }, part.title, el("div", { class: "cmp-done" }, part.progress, part.count), part.tools);
    part.table = el("table", { class: "cmp-grid", role: "grid" }, el("thead", { role: "rowgroup" }, part.groups, part.head), part.body);
    part.box = el("div", { class: "cmp-box" }, part.table);
    root.classList.add("cmp-matrix");
    root.replaceChildren(part.bar, part.under, part.note, part.verdict, part.box);
    return part;
  };

  const fillIn = (template, key) => (template && key ? template.replaceAll("{key}", encodeURIComponent(key)) : "");

  window.cmpMatrix = (root, { onPick, onEdit } = {}) => {
    const dom = window.cmpDom;
    const heads = window.cmpHeads;
    const part = build(root, dom);
    const columns = new Map();
    const rows = new Map();
    const groups = new Map();
    const cellOf = new WeakMap();
    const listeners = [];
    const movers = [];
    let value = {};
    let view = {};
    let arranged = window.cmpArrange({}, {});
    let order = { rows: [], columns: [] };
    let cursor = { r: 0, c: 0 };
    let chosen = null;

    const grid = { root, dom, part, value: () => value, view: () => view, arranged: () => arranged, cursor: () => cursor };
    const cellNode = (r, c) => rows.get(order.rows[r])?.cells.get(order.columns[c]);
    grid.cells = () => [...rows.values()].flatMap((row) => [...row.cells.values()]);
    grid.headNode = (key) => (columns.get(key) ?? rows.get(key)?.head)?.node ?? null;
    grid.placeOf = (node) => placeOf(node);
    grid.frameAt = (r, c) => cellNode(r, c)?.frame ?? null;
    grid.cellAt = (r, c) => cellNode(r, c)?.record ?? null;
    grid.size = () => ({ rows: order.rows.length, columns: order.columns.length });
    grid.url = (record, which) => record?.[which] || fillIn(value.urls?.[which], record?.key);
    // calls `told` after every change of what is shown or of how it is arranged
    grid.onChange = (told) => listeners.push(told);
    // What is chosen is remembered for the runs that are shown; where nothing was for them, the last choice of all holds.
    grid.runs = () => (arranged.axes?.find((axis) => axis.key === "run")?.keys || [value.run]).filter(Boolean).join("\n");
    grid.remember = (name, choice) => { for (const of of new Set(["", grid.runs()])) dom.remember(of ? `${name} ${of}` : name, choice); };
    grid.recall = (name, otherwise) => dom.recall(`${name} ${grid.runs()}`, null) ?? dom.recall(name, otherwise);
    grid.onRuns = (told) => {
      let before = grid.runs();
      grid.onChange(() => { if (grid.runs() !== before) { before = grid.runs(); told(); } });
    };
    // the same after the cursor has moved, or the zoom
    grid.onMove = (told) => movers.push(told);
    grid.moved = () => { for (const told of movers) told(); };
    grid.edit = (what, more = {}) => onEdit?.({ what, ...more });

    const words = (head) => [head?.group, head?.label, head?.sub].filter(Boolean).join(", ");
    grid.headAt = (r, c) => ({ column: words(arranged.columns[c]), row: words(arranged.rows[r]) });

    // The values that a cell stands for, by axis: what Python finds it by.
    grid.coordinates = (r, c) => grid.coordinatesOf(grid.cellAt(r, c));

    // Roving tabindex: the grid is one stop of the Tab key, and that stop is the cell last looked at.
    grid.select = (r, c, { focus = true } = {}) => {
      const { rows: height, columns: width } = grid.size();
      if (!height || !width) return;
      cursor = { r: clamp(r, 0, height - 1), c: clamp(c, 0, width - 1) };
      const { node } = cellNode(cursor.r, cursor.c);
      if (chosen && chosen !== node) { chosen.tabIndex = -1; chosen.classList.remove("is-cursor"); }
      chosen = node;
      node.tabIndex = 0;
      node.classList.add("is-cursor");
      grid.moved();
      if (!focus) return;
      // Without the padding a cell that was scrolled to would lie under the sticky headers.
      part.box.style.scrollPadding = `${part.table.tHead.offsetHeight}px 0 0 ${part.corner.offsetWidth}px`;
      node.focus({ preventScroll: true });
      node.scrollIntoView({ block: "nearest", inline: "nearest" });
    };

    // A row can be drawn with another seed only where the whole row has one.
    const canReroll = () => {
      const needed = value.rerolls || [];
      return needed.length > 0 && arranged.axes.every((axis) => !needed.includes(axis.key) || axis.values.length < 2 || ["y", "Y"].includes(axis.place));
    };
    // "row" draws the row with another seed in its place, "cell" puts a row with another seed below it.
    grid.reroll = (what, r = cursor.r, c = cursor.c) => {
      if (value.rerolls?.length && grid.cellAt(r, c)) grid.edit(what, { at: grid.coordinates(r, c) });
    };

    window.cmpOthers(grid);
    const full = window.cmpFullView(grid);
    grid.full = full;

    grid.open = () => {
      const { r, c } = cursor;
      const record = grid.cellAt(r, c);
      if (!record) return;
      full.open();
      onPick?.({ index: [r, c], value: record.key ?? "", key: record.key ?? "", at: grid.coordinates(r, c) });
    };

    const onKey = (event) => {
      if (full.isOpen() || event.ctrlKey || event.metaKey || event.altKey) return;
      const { r, c } = cursor;
      const moves = { ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1], ArrowUp: [r - 1, c], ArrowDown: [r + 1, c],
        Home: [r, 0], End: [r, Infinity], PageUp: [0, c], PageDown: [Infinity, c] };
      if (moves[event.key]) grid.select(...moves[event.key]);
      else if (event.target.closest("button")) return;
      else if (event.key === "Enter") grid.open();
      else if (value.rerolls?.length && (event.key === "r" || event.key === "R")) grid.reroll(event.shiftKey ? "row" : "cell");
      else return;
      event.preventDefault();
    };

    const placeOf = (node) => {
      const cell = node && cellOf.get(node);
      return cell ? [order.rows.indexOf(cell.rowKey), order.columns.indexOf(cell.columnKey)] : null;
    };
    grid.placeOf = placeOf;

    const onClick = (event) => {
      const again = event.target.closest(".cmp-again");
      if (again) return void rerollRow(order.rows.findIndex((key) => rows.get(key).node.contains(again)));
      const place = placeOf(event.target.closest("td.cmp-cell"));
      if (!place) return;
      grid.select(...place);
      if (!grid.isZooming()) grid.open();
    };
    // any cell of it says which row is meant
    const rerollRow = (r) => grid.reroll("row", r, Math.max(0, order.columns.findIndex((_, c) => grid.cellAt(r, c)?.at)));

    const drawHeads = () => {
      const keys = arranged.columns.map((head) => head.key);
      for (const key of columns.keys()) if (!keys.includes(key)) columns.delete(key);
      arranged.columns.forEach((head) => {
        if (!columns.has(head.key)) columns.set(head.key, heads.makeColumn(dom));
        columns.get(head.key).set(head, heads.marksOf(head, arranged.axes, value.marks || []));
      });
      dom.place(part.head, [part.corner, ...keys.map((key) => columns.get(key).node)]);
      const grouped = arranged.columns.some((head) => head.group);
      part.groups.replaceChildren(...(grouped ? [part.apart, ...heads.groupsAcross(dom, arranged.columns)] : []));
      part.groups.hidden = !grouped;
      part.head.classList.toggle("is-bare", grouped && arranged.columns.every((head) => !head.label));
      part.table.style.setProperty("--cmp-group", grouped ? `${part.groups.offsetHeight || 28}px` : "0px");
      order.columns = keys;
    };

    const makeRow = () => {
      const head = heads.makeRow(dom);
      return { head, cells: new Map(), node: dom.el("tr", { role: "row" }, head.node) };
    };

    const makeCell = (rowKey, columnKey) => {
      const cell = Object.assign(window.cmpCell(dom, grid), { rowKey, columnKey });
      cellOf.set(cell.node, cell);
      return cell;
    };

    const starts = (list, n) => n > 0 && list[n].groupKey !== list[n - 1].groupKey;

    const drawRow = (head, r, rerolls, faults) => {
      if (!rows.has(head.key)) rows.set(head.key, makeRow());
      const row = rows.get(head.key);
      row.head.set(head, heads.marksOf(head, arranged.axes, value.marks || []), rerolls);
      for (const gone of row.cells.keys()) if (!order.columns.includes(gone)) row.cells.delete(gone);
      const name = words(head);
      order.columns.forEach((column, c) => {
        if (!row.cells.has(column)) row.cells.set(column, makeCell(head.key, column));
        const record = arranged.at(r, c) || WAITING;
        row.cells.get(column).set(record, words(arranged.columns[c]), name, faults.has(record.fault));
        if (record.fault) faults.add(record.fault);
        row.cells.get(column).node.classList.toggle("starts-group", starts(arranged.columns, c));
      });
      dom.place(row.node, [row.head.node, ...order.columns.map((column) => row.cells.get(column).node)]);
      return row.node;
    };

    const drawBody = () => {
      const keys = arranged.rows.map((head) => head.key);
      for (const key of rows.keys()) if (!keys.includes(key)) rows.delete(key);
      const rerolls = canReroll();
      const faults = new Set(); // each is told once
      const nodes = arranged.rows.flatMap((head, r) => {
        const node = drawRow(head, r, rerolls, faults);
        if (!head.group || (r > 0 && !starts(arranged.rows, r))) return [node];
        if (!groups.has(head.groupKey)) groups.set(head.groupKey, heads.groupDown(dom, order.columns.length));
        groups.get(head.groupKey).set(head.group, order.columns.length);
        return [groups.get(head.groupKey).node, node];
      });
      dom.place(part.body, nodes);
      order.rows = keys;
    };

    const drawProgress = () => {
      const total = Number(value.total) || 0;
      const done = clamp(Number(value.done) || 0, 0, total);
      part.progress.parentElement.hidden = total === 0;
      const failed = (value.cells || []).filter((cell) => cell.state === "fault").length;
      dom.setText(part.count, `${done} of ${total}${failed ? `, ${failed} failed` : ""}`);
      part.progress.classList.toggle("is-complete", done === total);
      part.progress.setAttribute("aria-valuemax", String(total));
      part.progress.setAttribute("aria-valuenow", String(done));
      part.fill.style.width = total ? `${(100 * done) / total}%` : "0";
    };

    const draw = () => {
      arranged = window.cmpArrange(value, view);
      const empty = !arranged.columns.length || !arranged.rows.length;
      root.classList.toggle("is-empty", empty);
      dom.setText(part.note, value.note || (empty ? "Nothing to show yet." : ""));
      const kept = [order.rows[cursor.r], order.columns[cursor.c]];
      drawHeads();
      drawBody();
      // The cursor stays on its cell when columns or rows are added before it.
      const [r, c] = [order.rows.indexOf(kept[0]), order.columns.indexOf(kept[1])];
      grid.select(r < 0 ? cursor.r : r, c < 0 ? cursor.c : c, { focus: false });
      for (const told of listeners) told();
      full.refresh();
    };

    // `patch` holds those parts of the view that change; null takes one back to what the grid came with.
    grid.setView = (patch) => {
      view = { ...view, ...patch };
      for (const [name, part] of Object.entries(patch)) if (part === null) delete view[name];
      draw();
    };

    const update = (next) => {
      value = next && typeof next === "object" ? next : {};
      dom.setText(part.title, value.title);
      dom.setText(part.verdict, value.verdict);
      drawProgress();
      part.table.setAttribute("aria-label", value.title || "Images by column and row");
      draw();
    };

    part.table.addEventListener("keydown", onKey);
    part.table.addEventListener("click", onClick);
    part.table.addEventListener("focusin", (event) => {
      const place = full.isOpen() ? null : placeOf(event.target.closest("td.cmp-cell"));
      if (place) grid.select(...place, { focus: false });
    });
    for (const name of PARTS) window[name](grid);
    update(null);
    return { update, view: grid.view, setView: (next) => { view = {}; grid.setView(next || {}); }, grid };
  };
})();
