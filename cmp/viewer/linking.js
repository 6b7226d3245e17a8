// The matrix and the loss curve speak of the same step: `cmpLinking(grid)`. A step that the curve tells of is marked at its column, or the
// slider goes there; a cell that is looked at tells its step to the curve. They know each other by the event `cmp:step` alone.
(() => {
  "use strict";

  window.cmpLinking = (grid) => {
    let said = "";
    let linked = [];

    const stepAxis = () => grid.arranged().axes.find((axis) => axis.key === grid.value().step_axis);
    const runOf = (at) => {
      const axis = grid.arranged().axes.find((one) => one.key === "run");
      return axis ? axis.keys[at?.[axis.i]] ?? null : grid.value().run ?? null;
    };

    const tell = (run, step) => {
      const now = JSON.stringify([run, step]);
      if (now === said || !Number.isFinite(step)) return;
      said = now;
      window.dispatchEvent(new CustomEvent("cmp:step", { detail: { run, step, from: "matrix" } }));
    };

    // What a cell stands for; where the step is chosen by the slider, all cells stand for that one.
    const tellCell = (r, c) => {
      const axis = stepAxis();
      const { at } = grid.cellAt(r, c) ?? {};
      if (axis && at) tell(runOf(at), axis.values[at[axis.i]]?.step);
    };

    const clear = () => {
      for (const node of linked) node.classList.remove("is-linked");
      linked = [];
    };

    // Of the values that have a step, the nearest.
    const nearest = (axis, step) => {
      const far = (at) => Math.abs(axis.values[at].step - step);
      return axis.shown.filter((at) => Number.isFinite(axis.values[at].step)).reduce((best, at) => (best === null || far(at) < far(best) ? at : best), null);
    };

    const hear = ({ run, step }) => {
      clear();
      const axis = stepAxis();
      if (!axis || !Number.isFinite(step) || !grid.root.clientWidth) return;
      const at = nearest(axis, step);
      if (at === null) return;
      if (axis.place === "") return void grid.goToStep(at);
      const says = (head) => head.parts.some(({ axis: one, at: value }) => one.key === axis.key && value === at);
      const ofRun = (head) => head.parts.every(({ axis: one, at: value }) => one.key !== "run" || !run || one.keys[value] === run);
      const { columns, rows } = grid.arranged();
      linked = [...columns.filter((head) => says(head) && ofRun(head)), ...rows.filter((head) => says(head) && ofRun(head))].map((head) => grid.headNode(head.key)).filter(Boolean);
      for (const node of linked) node.classList.add("is-linked");
    };

    window.addEventListener("cmp:step", ({ detail }) => { if (grid.root.isConnected && detail && detail.from !== "matrix") hear(detail); });
    grid.part.table.addEventListener("pointerover", (event) => {
      const place = grid.placeOf(event.target.closest?.("td.cmp-cell"));
      if (place) tellCell(...place);
    });
    grid.onMove(() => { if (grid.root.contains(document.activeElement)) tellCell(grid.cursor().r, grid.cursor().c); });
    grid.onChange(() => {
      const axis = stepAxis();
      if (axis?.place === "" && axis.shown.length > 1 && grid.root.clientWidth) tell(runOf(grid.cellAt(0, 0)?.at), axis.values[axis.picked]?.step);
    });
  };
})();
