// What a picture is called and what it is compared with: `cmpOthers(grid)` gives the grid `idOf`, `idAt`, `recordOf`, `placeOfRecord`,
// `coordinatesOf`, `marksOf`, `detailsOf`, `nameOf`, `tell`, `stepAxis`, `hasStep`, `atStep`, `beforeOf` and `baseOf`. A picture is named by its own values:
// it may be compared with one that stands under quite other heads.
(() => {
  "use strict";

  const ACROSS = ["X", "x"];
  const DOWN = ["Y", "y"];

  const textOf = (value) => [value?.label, value?.sub].filter(Boolean).join(", ");
  const valuesOf = (record, axes) => axes.map(({ i }) => record.at[i] ?? null);
  const agrees = (at, wanted) => at.every((here, n) => here === null || wanted[n] === null || here === wanted[n]);
  const nulls = (at) => at.filter((here) => here === null).length;

  // Cells by their values; `open` are those that have no value on some axis and so stand for many.
  const indexOf = (cells, axes) => {
    const found = { exact: new Map(), open: [] };
    for (const cell of cells) {
      if (!Array.isArray(cell.at)) continue;
      const at = valuesOf(cell, axes);
      found.exact.set(JSON.stringify(at), cell);
      if (at.includes(null)) found.open.push({ at, cell });
    }
    found.open.sort((a, b) => nulls(a.at) - nulls(b.at));
    return found;
  };

  window.cmpOthers = (grid) => {
    let index = null;
    let known = null;
    let ids = null;

    const axes = () => grid.arranged().axes;
    const stepAxis = () => axes().find((axis) => axis.key === grid.value().step_axis);
    const cells = () => grid.value().cells || [];

    const find = (at) => {
      if (known !== grid.arranged()) [known, index, ids] = [grid.arranged(), indexOf(cells(), axes()), null];
      return index.exact.get(JSON.stringify(at)) ?? index.open.find((one) => agrees(one.at, at))?.cell ?? null;
    };

    // The same picture after an update has the same id, wherever it stands by then.
    grid.idOf = (record) => (Array.isArray(record?.at) ? JSON.stringify(axes().map(({ key, keys, i }) => [key, record.at[i] == null ? null : keys[record.at[i]]])) : "");
    grid.idAt = (coordinates) => JSON.stringify(axes().map(({ key }) => [key, coordinates?.[key] ?? null]));
    grid.recordOf = (id) => {
      if (!ids || known !== grid.arranged()) {
        find([]);
        ids = new Map(cells().map((cell) => [grid.idOf(cell), cell]));
      }
      return ids.get(id) ?? null;
    };
    grid.placeOfRecord = (record) => {
      const { rows, columns, at } = grid.arranged();
      for (let r = 0; r < rows.length; r += 1) for (let c = 0; c < columns.length; c += 1) if (at(r, c) === record) return { r, c };
      return null;
    };

    // What is known of a picture: of each of its values, of the whole grid, and its own.
    grid.coordinatesOf = (record) => Object.fromEntries(axes().map(({ key, keys, i }) => [key, record?.at?.[i] == null ? null : keys[record.at[i]]]));
    grid.marksOf = (record) => (grid.value().marks || []).filter((mark) =>
      Object.entries(mark.at).every(([key, n]) => record?.at?.[axes().find((axis) => axis.key === key)?.i] === n));
    grid.detailsOf = (record) => [...axes().flatMap((axis) => axis.values[record?.at?.[axis.i]]?.details ?? []),
      ...grid.marksOf(record).flatMap((mark) => mark.details ?? []), ...(grid.value().common || []), ...(record?.details || [])];

    // [axis key, words] of each value that tells this picture from others; of a place without a picture, those of its heads.
    const partsOf = (record, r, c) => {
      const of = (places) => places.flatMap((place) => axes().filter((axis) => axis.place === place));
      const own = (some) => some.filter(({ i }) => record.at[i] != null).map((axis) => [axis.key, textOf(axis.values[record.at[axis.i]])]);
      const heads = (head) => (head?.parts || []).filter(({ value }) => value).map(({ axis, value }) => [axis.key, textOf(value)]);
      const picks = grid.arranged().picks;
      if (Array.isArray(record?.at)) return [own(of(ACROSS)), own(of(DOWN)), own(picks)];
      return [heads(grid.arranged().columns[c]), heads(grid.arranged().rows[r]), picks.map((axis) => [axis.key, textOf(axis.values[axis.picked])])];
    };

    grid.nameOf = (record, r, c) => partsOf(record, r, c).map((parts) => parts.map(([, text]) => text).join(", ")).filter(Boolean).join(" - ");

    // Of pictures side by side: what each has of its own, and what all of them share.
    grid.tell = (items) => {
      const parts = items.map(({ record, r, c }) => partsOf(record, r, c).flat());
      const said = parts.map((own) => new Map(own));
      const keys = [...ACROSS, ...DOWN, ""].flatMap((place) => axes().filter((axis) => axis.place === place)).map(({ key }) => key);
      const differs = keys.filter((key) => new Set(said.map((own) => own.get(key))).size > 1);
      const words = (own, some) => some.map((key) => own.get(key)).filter(Boolean).join(" · ");
      return { own: said.map((own, n) => words(own, differs) || grid.nameOf(items[n].record, items[n].r, items[n].c)),
        shared: differs.length ? words(said[0] ?? new Map(), keys.filter((key) => !differs.includes(key))) : "" };
    };

    // The same at another step; null where there is none.
    grid.atStep = (record, step) => {
      const at = valuesOf(record, axes());
      at[stepAxis().i] = step;
      return find(at);
    };
    const haveSteps = () => stepAxis()?.shown.length > 1;
    grid.hasStep = (record) => haveSteps() && Array.isArray(record?.at) && record.at[stepAxis().i] != null;

    // The step before; a run that was not saved then has no picture there, and the search goes on. Without steps, the column before.
    grid.beforeOf = (r, c, record = grid.cellAt(r, c)) => {
      if (!grid.hasStep(record)) return !haveSteps() && c > 0 ? { record: grid.arranged().at(r, c - 1), r, c: c - 1 } : null;
      for (let n = stepAxis().shown.indexOf(record.at[stepAxis().i]) - 1; n >= 0; n -= 1) {
        const found = grid.atStep(record, stepAxis().shown[n]);
        if (found) return { record: found, r, c };
      }
      return null;
    };

    // The first column, or where the steps do not run across the first step.
    grid.baseOf = (r, c) => {
      const record = grid.cellAt(r, c);
      if (!grid.hasStep(record) || ACROSS.includes(stepAxis().place)) return c > 0 ? { record: grid.arranged().at(r, 0), r, c: 0 } : null;
      const here = stepAxis().shown.indexOf(record.at[stepAxis().i]);
      for (let n = 0; n < here; n += 1) {
        const found = grid.atStep(record, stepAxis().shown[n]);
        if (found) return { record: found, r, c };
      }
      return null;
    };
    grid.stepAxis = stepAxis;
  };
})();
