// The view in the page's address, so that a link or a reload brings it back and the browser's Back undoes it: `cmpViewLink(grid)`. Only of a
// grid whose value names a `link`, the name of the parameter. A new arrangement is a new entry of the history, and so is the full view, see
// `full_history.js`; where the cursor stands, how far it is zoomed and which step the slider shows change the present one.
(() => {
  "use strict";

  const LONGEST = 4000; // of an address that other programs still take
  const SAVED = ["place", "order", "hidden", "pick"];
  const STEADY = ["place", "order", "hidden"]; // what makes a new entry

  const some = (value) => value && typeof value === "object" && Object.keys(value).length > 0;
  const only = (view, names) => Object.fromEntries(names.filter((name) => some(view[name])).map((name) => [name, view[name]]));

  window.cmpViewLink = (grid) => {
    let steady = null;
    let timer = 0;
    let seen = "";
    let isBack = false; // the address has gone back, and what it speaks of may still be on its way

    const name = () => grid.value().link;
    const read = () => {
      try { return JSON.parse(new URL(location).searchParams.get(name()) || "{}") || {}; } catch { return {}; }
    };

    const now = () => {
      const view = only(grid.view(), SAVED);
      const { z, x, y } = grid.zoom.get();
      if (z > 1) view.zoom = [z, x, y].map((number) => Number(number.toFixed(3)));
      const { r, c } = grid.cursor();
      const [row, column] = [grid.arranged().rows[r], grid.arranged().columns[c]];
      const full = grid.full.told();
      if (row && column && (r || c || full)) view.cell = [row.key, column.key];
      if (full) view.full = full;
      return view;
    };

    const write = () => {
      timer = 0;
      if (!name() || !grid.root.isConnected || !grid.root.clientWidth || !grid.size().rows) return;
      const view = now();
      const text = some(view) ? JSON.stringify(view) : "";
      const kept = JSON.stringify(only(view, STEADY));
      const at = new URL(location);
      if (text && text.length < LONGEST) at.searchParams.set(name(), text);
      else at.searchParams.delete(name());
      const isNew = steady !== null && steady !== kept;
      steady = kept;
      if (at.href === location.href) return;
      history[isNew ? "pushState" : "replaceState"](history.state, "", at);
    };
    const soon = () => { if (!timer) timer = setTimeout(write, 250); };

    const apply = () => {
      isBack = false;
      const view = read();
      steady = JSON.stringify(only(view, STEADY));
      grid.setView({ ...Object.fromEntries(SAVED.map((part) => [part, null])), ...only(view, SAVED) });
      grid.zoom.set(view.zoom ? { z: view.zoom[0], x: view.zoom[1], y: view.zoom[2] } : { z: 1 });
      if (Array.isArray(view.cell) && goTo(view.cell)) grid.full.restore(view.full); // never on another cell than the one that is meant
    };
    const goTo = (cell) => {
      const r = grid.arranged().rows.findIndex((head) => head.key === cell[0]);
      const c = grid.arranged().columns.findIndex((head) => head.key === cell[1]);
      if (r < 0 || c < 0) return false;
      grid.select(r, c, { focus: false });
      return true;
    };

    // The address speaks of the first grid that is shown, and again of each one that is opened by it.
    grid.onChange(() => {
      const source = `${name() || ""} ${grid.value().source || ""}`;
      if (!name() || !grid.size().rows) return;
      if (source !== seen) {
        const first = seen === "";
        seen = source;
        if (first || isBack) return void apply();
      }
      soon();
    });
    grid.onMove(soon);
    window.addEventListener("popstate", () => { if (name() && grid.root.isConnected && grid.size().rows) { apply(); isBack = true; } });
    document.addEventListener("pointerdown", () => { isBack = false; }); // from here on the grid goes its own way
  };
})();
