// What would go, what stays and why: groups of items with their bytes, and a bar of before and after.
(() => {
  "use strict";

  const MOST = 12; // items of a group that stand open

  window.cmpStoragePlan = (root) => {
    const { el } = window.cmpDom;
    const { percent, waitingFor } = window.cmpSizes;
    let open = false; // what stays is looked at
    root.classList.add("cmp-storage", "cmp-storage-plan");

    const barOf = (bar) => {
      const stays = el("span", { class: "cmp-size", "data-part": "runs" });
      const trash = el("span", { class: "cmp-size", "data-part": "trash" });
      stays.style.width = percent(bar.share - bar.trash);
      trash.style.width = percent(bar.trash);
      return el("div", { class: "cmp-run" }, el("span", { class: "cmp-when", text: bar.label }), el("div", { class: "cmp-wide" }, el("div", { class: "cmp-sizes" }, stays, trash)), el("b", { text: bar.text }));
    };

    const headOf = (item) => (item.head ? [el("li", { class: "cmp-head", text: item.head })] : []);

    const itemOf = (item) => el("li", {}, el("span", { class: "cmp-what", text: item.label }), el("b", { text: item.text }),
      ...(item.why ? [el("span", { class: "cmp-sub", text: item.why })] : []));

    const itemsOf = (group) => {
      const rowsOf = (items) => items.flatMap((item) => [...headOf(item), itemOf(item)]);
      const { items } = group;
      const notes = group.notes.map((text) => el("p", { class: "cmp-told", text }));
      if (items.length <= MOST + 1) return [...notes, el("ul", { class: "cmp-items" }, ...rowsOf(items))];
      const rest = el("details", {}, el("summary", { text: `${items.length - MOST} more` }), el("ul", { class: "cmp-items" }, ...rowsOf(items.slice(MOST))));
      return [...notes, el("ul", { class: "cmp-items" }, ...rowsOf(items.slice(0, MOST))), rest];
    };

    const groupOf = (group) => el("section", { class: "cmp-group", "data-group": group.key },
      el("div", { class: "cmp-line" }, el("h3", { text: group.label }), el("span", { class: "cmp-free", text: group.text })), ...itemsOf(group));

    const keptOf = (group) => {
      const kept = el("details", { class: "cmp-kept", toggle: () => { open = kept.open; } }, el("summary", { text: `${group.label}, and why · ${group.text}` }), ...itemsOf(group));
      kept.open = open;
      return kept;
    };

    const update = (value) => {
      if (!value) return;
      root.replaceChildren(...waitingFor(value.busy), ...(value.note ? [el("p", { class: "cmp-told", text: value.note })] : []),
        ...value.bars.map(barOf), ...(value.summary ? [el("p", { class: "cmp-told", text: value.summary })] : []),
        ...value.groups.map(groupOf), ...(value.kept ? [keptOf(value.kept)] : []));
    };
    return { update };
  };
})();
