// Which cells stand where: `cmpArrange(value, view)` -> {axes, columns, rows, at(r, c), picks}. Pure: values in, values out. What it
// means is written down in the Python module beside this file, and `core/arranging` does the same for what is exported.
(() => {
  "use strict";

  const PLACES = ["x", "X", "y", "Y", ""];
  const ACROSS = ["X", "x"];
  const DOWN = ["Y", "y"];

  const list = (value) => (Array.isArray(value) ? value : []);

  // An axis with its values in the order in which they are seen; `rank` of a hidden one is undefined.
  const axisOf = (axis, i, value, view) => {
    const keys = window.cmpDom.uniqueKeys(axis.values);
    const wanted = list(view.order?.[axis.key]).map((key) => keys.indexOf(key)).filter((at) => at >= 0);
    const hidden = new Set(list(view.hidden?.[axis.key]));
    const order = [...new Set([...wanted, ...keys.keys()])];
    const left = order.filter((at) => !hidden.has(keys[at]));
    const shown = left.length ? left : order; // a link may hide everything
    const place = [view.place?.[axis.key], value.place?.[axis.key]].find((one) => PLACES.includes(one)) ?? "";
    const last = axis.key === value.step_axis ? shown.length - 1 : 0;
    const chosen = keys.indexOf(view.pick?.[axis.key]);
    return { i, key: axis.key, label: axis.label || axis.key, values: axis.values, keys, order, shown, place,
      rank: new Map(shown.map((at, n) => [at, n])), picked: shown.includes(chosen) ? chosen : shown[last] };
  };

  const agree = (at, axes) => axes.every(({ i, place, rank, picked }) => {
    const here = at[i] ?? null;
    return here === null || (rank.has(here) && (place !== "" || here === picked));
  });

  const nulls = (tuple) => tuple.filter((at) => at === null).length;
  // all that `tuple` says, and maybe more
  const says = (other, tuple) => tuple.every((at, n) => at === null || at === other[n]);
  // null agrees with everything
  const fits = (a, b) => a.every((at, n) => at === null || b[n] === null || at === b[n]);

  // Every combination that some cell has. One with a null stands for the cells that have no such value, and only where no other does.
  const tuplesOf = (cells, axes) => {
    const found = new Map();
    for (const { at } of cells) {
      const tuple = axes.map(({ i }) => at[i] ?? null);
      found.set(JSON.stringify(tuple), tuple);
    }
    const all = [...found.values()];
    const open = all.filter((tuple) => tuple.includes(null));
    const beaten = new Set(open.filter((tuple) => all.some((other) => nulls(other) < nulls(tuple) && says(other, tuple))));
    const rank = (tuple, n) => (tuple[n] === null ? -1 : axes[n].rank.get(tuple[n]));
    return all.filter((tuple) => !beaten.has(tuple)).sort((a, b) => {
      const n = axes.findIndex((axis, k) => rank(a, k) !== rank(b, k));
      return n < 0 ? 0 : rank(a, n) - rank(b, n);
    });
  };

  const partOf = (axis, at) => (at === null ? null : axis.values[at]);

  // What stands at the head of a row or column. Its key names the values and not their places: cells are found again by it.
  const headOf = (tuple, axes, outer) => {
    const parts = axes.map((axis, n) => ({ axis, at: tuple[n], value: partOf(axis, tuple[n]) }));
    const inner = parts.filter(({ axis }) => axis.place !== outer);
    const told = inner.filter(({ value }) => value);
    const subs = [...told.slice(0, 1).map(({ value }) => value.sub), ...told.slice(1).map(({ value }) => [value.label, value.sub].filter(Boolean).join(" "))];
    const group = parts.filter(({ axis, value }) => axis.place === outer && value).map(({ value }) => [value.label, value.sub].filter(Boolean).join(" "));
    const named = (some) => JSON.stringify(some.map(({ axis, at }) => [axis.key, at === null ? null : axis.keys[at]]));
    return { key: named(parts), parts, tuple, label: told[0]?.value.label ?? "", sub: subs.filter(Boolean).join(" · "),
      group: group.join(" · "), groupKey: named(parts.filter(({ axis }) => axis.place === outer)) };
  };

  // Of each combination that a cell has, the numbers of the heads under which it stands.
  const finder = (heads, axes) => {
    const exact = new Map(heads.map((head, n) => [JSON.stringify(head.tuple), [n]]));
    const known = new Map();
    return (at) => {
      const tuple = axes.map(({ i }) => at[i] ?? null);
      const name = JSON.stringify(tuple);
      if (!known.has(name)) {
        const all = [...heads.keys()].filter((n) => fits(heads[n].tuple, tuple));
        known.set(name, tuple.includes(null) ? all : exact.get(name) ?? all);
      }
      return known.get(name);
    };
  };

  window.cmpArrange = (value, view = {}) => {
    const axes = list(value?.axes).map((axis, i) => axisOf(axis, i, value, view || {}));
    const cells = list(value?.cells).filter((cell) => Array.isArray(cell.at) && agree(cell.at, axes));
    const of = (places) => places.flatMap((place) => axes.filter((axis) => axis.place === place));
    const [across, down] = [of(ACROSS), of(DOWN)];
    const columns = tuplesOf(cells, across).map((tuple) => headOf(tuple, across, "X"));
    const rows = tuplesOf(cells, down).map((tuple) => headOf(tuple, down, "Y"));
    const [columnsOf, rowsOf] = [finder(columns, across), finder(rows, down)];
    const placed = rows.map(() => []);
    for (const cell of cells) {
      for (const r of rowsOf(cell.at)) for (const c of columnsOf(cell.at)) {
        const there = placed[r][c];
        if (!there || nulls(cell.at) < nulls(there.at)) placed[r][c] = cell;
      }
    }
    return { axes, columns, rows, at: (r, c) => placed[r]?.[c] ?? null, picks: axes.filter((axis) => axis.place === "" && axis.shown.length > 1) };
  };
})();
