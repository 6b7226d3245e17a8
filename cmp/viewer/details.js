// Facts as a list of names and lines: `cmpDetails(root, {onPick})` -> {update(value)}; a long list of one kind folds up.
(() => {
  "use strict";

  const MOST = 6; // lines of one fact that stand open

  window.cmpDetails = (root) => {
    const { el, setText } = window.cmpDom;
    const title = el("h4");
    const list = el("dl");
    const note = el("p", { class: "cmp-note" });
    root.classList.add("cmp-details");
    root.replaceChildren(title, list, note);

    const lines = (texts) => texts.map((text) => el("div", { text }));

    const body = (fact) => {
      if (fact.lines.length <= MOST + 1) return lines(fact.lines);
      const rest = fact.lines.slice(MOST);
      return [...lines(fact.lines.slice(0, MOST)), el("details", {}, el("summary", { text: `${rest.length} more` }), ...lines(rest))];
    };

    const update = (value) => {
      if (!value) return;
      setText(title, value.title);
      list.replaceChildren(...value.facts.flatMap((fact) => [
        el("dt", { text: fact.label }),
        el("dd", { class: fact.tone ? `is-${fact.tone}` : "" }, ...body(fact)),
      ]));
      list.hidden = !value.facts.length;
      setText(note, value.note);
    };
    return { update };
  };
})();
