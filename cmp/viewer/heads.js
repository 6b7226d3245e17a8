// The heads of rows, columns and groups: `cmpHeads(dom, value)` makes them. A head is found again by its key, as a cell is.
(() => {
  "use strict";

  const AGAIN = { text: "⟳ replace by a new seed", title: "Draws this row with another seed in its place (Shift+R)" };

  const SUB_SIGNS = 28; // on a line of a row's head, about
  const SUB_LINES = 3;

  const figure = (number) => (Math.abs(number) >= 0.001 && Math.abs(number) < 1000 ? Number(number.toPrecision(3)) : number.toExponential(1));

  // Everything that is known of what this head stands for: a mark belongs to it if the head says every value that the mark names.
  const marksOf = (head, axes, marks) => {
    const said = new Map(head.parts.map(({ axis, at }) => [axis.key, at]));
    for (const axis of axes) if (axis.values.length === 1 && !said.has(axis.key)) said.set(axis.key, 0);
    const found = marks.filter((mark) => Object.entries(mark.at).every(([key, at]) => said.get(key) === at));
    return Object.assign({}, ...found);
  };

  const label = (dom, scope) => {
    const part = { label: dom.el("span", { class: "cmp-label" }), sub: dom.el("span", { class: "cmp-sub" }), facts: dom.el("span", { class: "cmp-facts" }) };
    const box = dom.el("div", {}, part.label, part.sub, part.facts);
    const node = dom.el("th", { class: `cmp-head is-${scope}`, role: scope === "col" ? "columnheader" : "rowheader", scope }, box);
    return { node, box, part };
  };

  const factsOf = (mark) => [
    mark.star ? ["is-star", "★", mark.note ? `starred: ${mark.note}` : "starred"] : null,
    mark.window ? ["is-window", mark.score || "best", "cannot be told from the best"] : null,
    !mark.window && mark.score ? ["", mark.score, "score"] : null,
    typeof mark.loss === "number" ? ["", `train ${figure(mark.loss)}`, "smoothed training loss at this step"] : null,
    mark.converted ? ["is-converted", mark.converted, `converted: ${mark.converted}`] : null,
    mark.flaw ? ["is-flaw", "flaw", mark.flaw] : null,
  ].filter(Boolean);

  const fill = (dom, { node, box, part }, head, mark) => {
    dom.setText(part.label, head.label);
    dom.setText(part.sub, head.sub);
    box.style.setProperty("--cmp-sub-lines", String(Math.min(SUB_LINES, Math.ceil((head.sub || "").length / SUB_SIGNS)))); // what is left is the label's
    const facts = factsOf(mark);
    const said = JSON.stringify(facts);
    if (part.said !== said) {
      part.said = said;
      part.facts.replaceChildren(...facts.map(([kind, text, title]) => dom.el("span", { class: `cmp-fact ${kind}`, title, text })));
      part.facts.hidden = !facts.length;
    }
    node.classList.toggle("in-window", Boolean(mark.window));
    node.title = [head.label, head.sub, ...facts.map(([, , title]) => title)].filter(Boolean).join("\n");
  };

  const makeColumn = (dom) => {
    const made = label(dom, "col");
    return { node: made.node, set: (head, mark) => fill(dom, made, head, mark) };
  };

  const makeRow = (dom) => {
    const made = label(dom, "row");
    const again = dom.el("button", { type: "button", class: "cmp-again", title: AGAIN.title });
    made.box.append(again);
    return { node: made.node, set: (head, mark, rerolls) => {
      fill(dom, made, head, mark);
      dom.setText(again, rerolls ? AGAIN.text : "");
      again.setAttribute("aria-label", `Replace by a new seed: ${[head.label, head.sub].filter(Boolean).join(", ")}`);
    } };
  };

  // The heads of groups that lie beside each other, each over as many columns as it has. An empty one keeps the place of the columns without.
  const groupsAcross = (dom, columns) => {
    const runs = [];
    for (const head of columns) {
      if (runs.at(-1)?.key === head.groupKey) runs.at(-1).span += 1;
      else runs.push({ key: head.groupKey, text: head.group, span: 1 });
    }
    return runs.map(({ text, span }) => dom.el("th", { class: "cmp-group is-col", colspan: span, scope: "colgroup", role: "columnheader", title: text },
      dom.el("div", { text })));
  };

  const groupDown = (dom, columns) => {
    const box = dom.el("div", {});
    const head = dom.el("th", { class: "cmp-group is-row", scope: "rowgroup", role: "rowheader", colspan: columns + 1 }, box);
    return { node: dom.el("tr", { role: "row", class: "cmp-group-row" }, head), set: (text, count) => {
      head.colSpan = count + 1;
      dom.setText(box, text);
      box.hidden = false;
      head.title = text;
    } };
  };

  window.cmpHeads = { makeColumn, makeRow, groupsAcross, groupDown, marksOf };
})();
