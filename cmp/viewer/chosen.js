// Cells that are chosen to be compared, four at most: `cmpChosen(grid)`. Ctrl or Cmd and a click, `x` or the space bar choose one; a bar below the
// matrix says how many there are and opens the full view on them. They stay chosen when the grid is arranged anew. A value may ask by its
// `compare` for two cells to be opened side by side.
(() => {
  "use strict";

  const MOST = 4;

  window.cmpChosen = (grid) => {
    const { dom, part } = grid;
    const { el } = dom;
    const said = el("span", { class: "cmp-chosen-said", role: "status" });
    const go = el("button", { type: "button", class: "cmp-button is-main", text: "Compare" });
    const none = el("button", { type: "button", class: "cmp-button", text: "Clear" });
    const bar = el("div", { class: "cmp-chosen", role: "group", "aria-label": "Chosen cells", hidden: "" }, said, go, none);
    part.box.after(bar);
    part.table.setAttribute("aria-multiselectable", "true");
    let chosen = [];
    let marked = false;
    grid.chosen = () => [...chosen];

    const number = (cell) => {
      const n = chosen.length ? chosen.indexOf(grid.idOf(cell.record)) : -1;
      let node = cell.frame.querySelector(".cmp-number");
      if (n >= 0 && !node) cell.frame.append(node = el("span", { class: "cmp-number" }));
      if (n >= 0) dom.setText(node, n + 1);
      else node?.remove();
      cell.node.setAttribute("aria-selected", String(n >= 0));
    };

    const draw = (text = "") => {
      chosen = chosen.filter((id) => grid.recordOf(id)?.state === "done");
      for (const cell of grid.cells()) if (chosen.length || marked || !cell.node.hasAttribute("aria-selected")) number(cell);
      marked = chosen.length > 0;
      bar.hidden = !chosen.length;
      dom.setText(said, text || (chosen.length ? `${chosen.length} chosen${chosen.length < 2 ? ": choose another one" : ""}` : ""));
      go.hidden = chosen.length < 2;
    };

    const toggle = (r, c) => {
      const record = grid.cellAt(r, c);
      const id = grid.idOf(record);
      if (chosen.includes(id)) { chosen = chosen.filter((one) => one !== id); draw(); }
      else if (record?.state !== "done" || !id) tell("Only a drawn picture can be compared.");
      else if (chosen.length === MOST) tell(`${MOST} at most: take one away first.`);
      else { chosen.push(id); draw(); }
      return said.textContent || "None chosen";
    };
    const tell = (text) => { draw(text); bar.hidden = false; };
    grid.choose = toggle; // tells what the bar says then

    const clear = () => {
      chosen = [];
      draw();
      const { r, c } = grid.cursor();
      grid.select(r, c);
    };

    // Before the matrix itself hears of it: there a click opens the cell.
    part.box.addEventListener("click", (event) => {
      const node = event.target.closest("td.cmp-cell");
      if (!node || !(event.ctrlKey || event.metaKey)) return;
      event.stopPropagation();
      const place = grid.placeOf(node);
      grid.select(...place);
      toggle(...place);
    }, true);
    part.table.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !event.target.closest("td.cmp-cell")) return;
      const { r, c } = grid.cursor();
      if (event.key === " " || event.key === "x" || event.key === "X") toggle(r, c);
      else if ((event.key === "c" || event.key === "C") && chosen.length > 1) grid.full.compare([...chosen]);
      else return;
      event.preventDefault();
    });
    // What came with a value is opened once: as soon as it can be seen, and both pictures are there.
    let asked = "";
    let wanted = null;
    const openAsked = () => {
      const { compare, source, cells } = grid.value();
      if (compare && compare.asked !== asked) {
        asked = compare.asked;
        const placed = compare.cells.map((at) => cells.find((cell) => JSON.stringify(cell.at) === JSON.stringify(at)));
        wanted = { source, ids: placed.map(grid.idOf) };
      }
      if (!wanted || !grid.root.clientWidth) return;
      if (wanted.source !== source) wanted = null;
      else if (wanted.ids.every((id) => grid.recordOf(id)?.state === "done")) {
        const { ids } = wanted;
        wanted = null;
        grid.full.compare(ids);
      }
    };
    new ResizeObserver(openAsked).observe(grid.root); // a tab that is only just being opened has no size yet

    go.addEventListener("click", () => grid.full.compare([...chosen], go));
    none.addEventListener("click", clear);
    grid.onChange(() => { draw(); openAsked(); });
  };
})();
