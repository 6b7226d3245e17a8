// A table whose rows are ticked (many) or chosen (one): runs and checkpoints. Sorting is by value, so that step 500 stands before 1000.
(() => {
  "use strict";
  const { el, setText } = window.cmpDom;

  const textOf = (cell) => (cell && typeof cell === "object" ? cell.text : cell) ?? "";
  const sortOf = (cell) => (cell && typeof cell === "object" && "sort" in cell ? cell.sort : textOf(cell));

  const compare = (a, b) => {
    const [x, y] = [sortOf(a), sortOf(b)];
    if (x === null || y === null) return (x === null) - (y === null); // what has no value stands last
    return typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
  };

  const SVG = "http://www.w3.org/2000/svg";
  const svg = (tag, attributes) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };

  // Pictures over the steps, the oldest first; each with its step below.
  const stripOf = (cell) => {
    if (!cell.strip.length) return el("span", { class: "cmp-none", text: cell.text });
    const pictures = cell.strip.map(({ url, label }) => {
      const img = el("img", { src: url, alt: `step ${label}`, loading: "lazy", decoding: "async", draggable: "false" });
      const frame = el("span", { class: "cmp-strip-picture" }, img, el("span", { class: "cmp-strip-step", text: label }));
      img.addEventListener("load", () => window.cmpDom.sharpen(img, img.clientWidth, img.clientHeight));
      img.addEventListener("error", () => { frame.classList.add("is-lost"); img.remove(); });
      return frame;
    });
    return el("div", { class: "cmp-strip" }, el("div", { class: "cmp-strip-row" }, ...pictures), el("span", { class: "cmp-sub", text: cell.text }));
  };

  // The course of a value, scaled to its box; the last point is marked.
  const WIDE = 104, HIGH = 30, EDGE = 3;
  const lineOf = (cell) => {
    if (cell.pending) return el("span", { class: "cmp-line is-pending", role: "img", "aria-label": "the log is being read" });
    if (!cell.line.length) return null;
    const at = cell.line.map(([x, y]) => [EDGE + x * (WIDE - 2 * EDGE), HIGH - EDGE - y * (HIGH - 2 * EDGE)].map((n) => n.toFixed(1)));
    const [x, y] = at[at.length - 1];
    const node = svg("svg", { class: "cmp-line", viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `course of the loss, now ${cell.text}` });
    node.append(svg("polyline", { points: at.map((point) => point.join(",")).join(" ") }), svg("circle", { cx: x, cy: y, r: 2.4 }));
    return node;
  };

  const contentOf = (cell) => {
    if (cell && typeof cell === "object" && cell.strip) return [stripOf(cell)];
    if (cell && typeof cell === "object" && "line" in cell) return [el("div", { class: "cmp-loss" }, ...[lineOf(cell)].filter(Boolean), el("span", { text: cell.text }))];
    return [String(textOf(cell)), ...(cell?.sub ? [el("span", { class: "cmp-sub is-whole", text: cell.sub })] : [])];
  };

  window.cmpTable = (root, { onPick }) => {
    let value = { columns: [], rows: [], ticked: [], many: true };
    let ticked = new Set();
    let order = null; // {column, down}
    let shownRow = null; // the chosen row as it was told last
    let isHidden = false; // while the chosen row could not be scrolled to yet
    let looked = null; // the row whose details are shown; only where many can be ticked, else it is the chosen one

    const head = el("tr");
    const body = el("tbody");
    const title = el("h3", { class: "cmp-title", hidden: "" });
    const note = el("p", { class: "cmp-note", role: "status" });
    const table = el("table", {}, el("thead", {}, head), body);
    root.classList.add("cmp-table");
    root.replaceChildren(title, el("div", { class: "cmp-box" }, table), note);

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
    const holdsFigures = (i) => value.rows.some((row) => typeof sortOf(row.cells[i]) === "number" && !row.cells[i].strip);

    const drawHead = () => {
      const cells = [];
      if (value.many) {
        const usable = value.rows.filter((row) => row.usable);
        const all = el("input", { type: "checkbox", "aria-label": "tick all", change: (event) => pickAll(event.target.checked) });
        all.checked = usable.length > 0 && usable.every((row) => ticked.has(row.key));
        cells.push(el("th", { class: "cmp-tick" }, all));
      }
      if (value.rows.some((row) => row.thumb)) cells.push(el("th", { text: value.thumbs || "" }));
      value.columns.forEach((name, i) => {
        const sorted = order && order.column === i;
        const button = el("button", { type: "button", text: name + (sorted ? (order.down ? " ↓" : " ↑") : ""), click: () => sortBy(i) });
        cells.push(el("th", { class: holdsFigures(i) ? "cmp-figure" : "", "data-column": name, "aria-sort": sorted ? (order.down ? "descending" : "ascending") : "none" }, button));
      });
      head.replaceChildren(...cells);
    };

    const sortBy = (column) => {
      order = { column, down: !!order && order.column === column && !order.down };
      draw();
    };

    const drawRows = (row, withThumbs) => {
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
        const kind = holdsFigures(i) ? "cmp-figure" : i ? "cmp-text" : "cmp-text cmp-name";
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

    const draw = () => {
      drawHead();
      const rows = [...value.rows];
      if (order) rows.sort((a, b) => compare(a.cells[order.column], b.cells[order.column]) * (order.down ? -1 : 1));
      const withThumbs = rows.some((row) => row.thumb);
      body.replaceChildren(...rows.flatMap((row) => drawRows(row, withThumbs)));
    };

    // The chosen row may lie far down in a long list; the page itself is not moved.
    const reveal = () => {
      const box = table.parentElement;
      if (!box.clientHeight) return; // it is shown later, and tells so
      isHidden = false;
      const row = body.querySelector("tr.is-ticked");
      if (!row || value.many) return;
      const [top, bottom] = [row.offsetTop - head.offsetHeight, row.offsetTop + row.offsetHeight];
      if (top < box.scrollTop || bottom > box.scrollTop + box.clientHeight) box.scrollTop = top - row.offsetHeight;
    };
    new ResizeObserver(() => { if (isHidden) reveal(); }).observe(table.parentElement);

    const update = (next) => {
      if (!next) return;
      value = next;
      const keys = new Set(value.rows.map((row) => row.key));
      ticked = new Set((value.ticked || []).filter((key) => keys.has(key)));
      if (!keys.has(looked)) looked = null;
      const before = shownRow;
      draw();
      shownRow = value.many ? null : [...ticked][0] ?? null;
      setText(title, value.title);
      setText(note, value.note);
      table.parentElement.hidden = !value.rows.length;
      if (shownRow !== before) {
        isHidden = true;
        reveal();
      }
    };
    return { update };
  };
})();
