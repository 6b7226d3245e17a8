// A table whose rows are ticked (many) or chosen (one): runs and checkpoints. Sorting is by value, so that step 500 stands before 1000.
(() => {
  "use strict";
  const { el, setText, place } = window.cmpDom;
  const { textOf, sortOf, compare, contentOf } = window.cmpTableCells;

  const MANY = 20; // lines

  window.cmpTable = (root, { onPick }) => {
    let value = { columns: [], rows: [], ticked: [], many: true };
    let ticked = new Set();
    let made = new Map(); // by key: of which row and state it was made, and its lines
    let looked = null; // the row whose details are shown; only where many can be ticked, else it is the chosen one

    const head = el("tr");
    const body = el("tbody");
    const title = el("h3", { class: "cmp-title", hidden: "" });
    const note = el("p", { class: "cmp-note", role: "status" });
    const table = el("table", {}, el("thead", {}, head), body);
    const box = el("div", { class: "cmp-box" }, table);
    const find = window.cmpTableFind({ onFilter: () => sift(true), onSort: () => { box.scrollTop = 0; find.update(value); draw(); } });
    root.classList.add("cmp-table");
    root.replaceChildren(title, find.node, box, note);
    // The chosen row stays in sight below the heads, however far the others are scrolled.
    new ResizeObserver(() => table.style.setProperty("--cmp-heads", `${head.offsetHeight}px`)).observe(head);

    const tell = () => onPick({ index: 0, value: [...ticked].join("\n"), ticked: [...ticked] });

    const look = (row) => {
      looked = row.key;
      draw();
      onPick({ index: 0, value: row.key, looked: row.key });
    };

    const pick = (row) => {
      if (value.many) {
        if (!ticked.delete(row.key)) ticked.add(row.key);
      } else if (ticked.has(row.key)) return;
      else ticked = new Set([row.key]);
      draw();
      tell();
    };

    // A finger misses a small box: all of its cell ticks it.
    const tickBeside = (event, row) => {
      event.stopPropagation();
      if (row.usable) pick(row);
    };

    const pickAll = (on) => {
      ticked = new Set(on ? value.rows.filter((row) => row.usable).map((row) => row.key) : []);
      draw();
      tell();
    };

    // Of the column, not of the cell: a dash among figures stands where they stand.
    const holdsFigures = (_, i) => value.rows.some((row) => typeof sortOf(row.cells[i]) === "number" && !row.cells[i].strip);

    const drawHead = (figures) => {
      const cells = [];
      if (value.many) {
        const usable = value.rows.filter((row) => row.usable);
        const all = el("input", { type: "checkbox", "aria-label": "tick all", change: (event) => pickAll(event.target.checked) });
        all.checked = usable.length > 0 && usable.every((row) => ticked.has(row.key));
        cells.push(el("th", { class: "cmp-tick" }, all));
      }
      if (value.rows.some((row) => row.thumb)) cells.push(el("th", { text: value.thumbs || "" }));
      const order = find.order();
      value.columns.forEach((name, i) => {
        const sorted = order?.name === name;
        const sort = sorted ? (order.down ? "descending" : "ascending") : "none";
        const button = el("button", { type: "button", text: name }, el("span", { class: "cmp-order", "aria-hidden": "true", text: sorted ? (order.down ? "↓" : "↑") : "↕" }));
        const about = value.titles?.[name] ? { title: value.titles[name] } : {};
        cells.push(el("th", { class: figures[i] ? "cmp-figure" : "", "data-column": name, "aria-sort": sort, ...about, click: () => find.sortBy(name) }, button));
      });
      head.replaceChildren(...cells);
    };

    // What has the keyboard, as a way to find it again when the table has been made anew.
    const focused = () => {
      const at = document.activeElement;
      if (!table.contains(at)) return null;
      const [column, key] = [at.closest("th")?.dataset.column, at.closest("tr")?.dataset.key];
      const line = key === undefined ? "thead" : `tr[data-key="${CSS.escape(key)}"]`;
      return { at, line, cell: at.matches("input") ? "input" : column === undefined ? "button" : `th[data-column="${CSS.escape(column)}"] button` };
    };
    const refocus = (before) => {
      if (before && document.activeElement !== before.at) table.querySelector(before.line)?.querySelector(before.cell)?.focus({ preventScroll: true });
    };

    const drawRow = (row, withThumbs, figures) => {
      const on = ticked.has(row.key);
      const cells = [];
      const choose = () => (value.many ? look(row) : pick(row));
      const state = `${on ? "is-ticked" : ""} ${row.flaw ? "has-flaw" : ""} ${row.key === looked ? "is-looked" : ""}`;
      if (value.many) {
        const box = el("input", { type: "checkbox", "aria-label": textOf(row.cells[0]), change: () => pick(row), click: (event) => event.stopPropagation() });
        box.checked = on;
        box.disabled = !row.usable;
        cells.push(el("td", { class: "cmp-tick", click: (event) => tickBeside(event, row) }, box));
      }
      if (withThumbs) cells.push(el("td", { class: "cmp-thumb" }, ...(row.thumb ? [el("img", { src: row.thumb, alt: "sample", loading: "lazy" })] : [])));
      row.cells.forEach((cell, i) => {
        const kind = figures[i] ? "cmp-figure" : i ? "cmp-text" : "cmp-text cmp-name";
        if (i) return void cells.push(el("td", { class: `${kind} ${cell?.strip ? "has-strip" : ""}`, "data-column": value.columns[i] }, ...contentOf(cell)));
        const name = el("button", { type: "button", class: "cmp-look", text: textOf(cell), "aria-pressed": String(value.many ? row.key === looked : on) });
        const live = cell?.live ? [el("span", { class: "cmp-live", text: "training" })] : [];
        const sub = cell?.sub ? [el("span", { class: "cmp-sub", text: cell.sub, title: cell.sub })] : [];
        cells.push(el("td", { class: kind }, name, ...live, ...sub));
      });
      const main = el("tr", { class: state, "data-key": row.key, "aria-selected": String(on), click: choose }, ...cells);
      if (!row.flaw) return [main];
      const flaw = el("td", { colspan: cells.length }, el("div", { class: "cmp-flaw", text: row.flaw }));
      return [main, el("tr", { class: `${on ? "is-ticked" : ""} ${row.key === looked ? "is-looked" : ""}`, click: choose }, flaw)];
    };

    // A line that would be made as it is stays: its pictures do not load again, and nobody loses the place of the keyboard in it.
    const linesOf = (row, withThumbs, figures) => {
      const state = JSON.stringify([row, ticked.has(row.key), looked === row.key, withThumbs, figures, value.many, value.columns]);
      const before = made.get(row.key);
      const lines = before?.state === state ? before.lines : drawRow(row, withThumbs, figures);
      return [row.key, { state, lines, row }];
    };

    const draw = () => {
      const before = focused();
      const figures = value.columns.map(holdsFigures);
      drawHead(figures);
      const rows = [...value.rows];
      const order = find.order();
      const column = order ? value.columns.indexOf(order.name) : -1;
      if (column >= 0) rows.sort((a, b) => compare(a.cells[column], b.cells[column], order.down));
      const withThumbs = rows.some((row) => row.thumb);
      made = new Map(rows.map((row) => linesOf(row, withThumbs, figures)));
      const lines = [...made.values()].flatMap((one) => one.lines);
      const there = [...body.rows];
      const moved = lines.reduce((count, line, i) => count + (line !== there[i]), Math.max(there.length - lines.length, 0));
      if (moved > MANY) body.replaceChildren(...lines); // at once: to move a thousand of them one by one takes a second
      else if (moved) place(body, lines); // all others are not laid out anew
      refocus(before);
      sift();
    };

    // Rows that are filtered out stay where they are, out of sight: the way back of the browser still finds them.
    const sift = (isAsked = false) => {
      let shown = 0;
      for (const { lines, row } of made.values()) {
        const matches = find.matches(row);
        shown += matches;
        for (const line of lines) line.hidden = !matches;
      }
      if (isAsked) box.scrollTop = 0;
      find.tell(shown);
      box.hidden = !shown;
    };

    const update = (next) => {
      if (!next) return;
      value = next;
      const keys = new Set(value.rows.map((row) => row.key));
      ticked = new Set((value.ticked || []).filter((key) => keys.has(key)));
      if (!keys.has(looked)) looked = null;
      find.update(value);
      table.classList.toggle("is-single", !value.many);
      draw();
      setText(title, value.title);
      setText(note, value.note);
    };
    return { update };
  };
})();
