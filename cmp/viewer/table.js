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

  window.cmpTable = (root, { onPick }) => {
    let value = { columns: [], rows: [], ticked: [], many: true };
    let ticked = new Set();
    let order = null; // {column, down}
    let looked = null; // the row whose details are shown; only where many can be ticked, else it is the chosen one

    const head = el("tr");
    const body = el("tbody");
    const note = el("p", { class: "cmp-note" });
    const table = el("table", {}, el("thead", {}, head), body);
    root.classList.add("cmp-table");
    root.replaceChildren(el("div", { class: "cmp-box" }, table), note);

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
    const holdsFigures = (i) => value.rows.some((row) => typeof sortOf(row.cells[i]) === "number");

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
        cells.push(el("th", { class: holdsFigures(i) ? "cmp-figure" : "", "aria-sort": sorted ? (order.down ? "descending" : "ascending") : "none" }, button));
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
        const name = i ? null : el("button", { type: "button", class: "cmp-look", text: textOf(cell), "aria-pressed": String(value.many ? row.key === looked : on) });
        cells.push(name ? el("td", { class: kind }, name) : el("td", { text: textOf(cell), class: kind }));
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

    const update = (next) => {
      if (!next) return;
      value = next;
      const keys = new Set(value.rows.map((row) => row.key));
      ticked = new Set((value.ticked || []).filter((key) => keys.has(key)));
      if (!keys.has(looked)) looked = null;
      draw();
      setText(note, value.note);
    };
    return { update };
  };
})();
