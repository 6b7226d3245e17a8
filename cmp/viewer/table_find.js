// What finds a row in a long table: a field that leaves only the rows with all its words, and the order of the rows, which this browser
// remembers. `cmpTableFind({onFilter, onSort})` -> {node, update, matches, told, order, sortBy}. On a narrow page, where the table has no
// heads, a list of orders stands beside the field.
(() => {
  "use strict";

  const FEW = 8; // rows that are found without a field
  const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

  window.cmpTableFind = ({ onFilter, onSort }) => {
    const { el, setText, remember, recall } = window.cmpDom;
    let value = { columns: [], rows: [] };
    let order = null; // {name, down}
    let known = null; // under which name the order is remembered

    const field = el("input", { type: "search", class: "cmp-find-field", autocomplete: "off", spellcheck: "false", "aria-keyshortcuts": "/", input: () => onFilter() });
    const count = el("span", { class: "cmp-find-count", role: "status" });
    const sorts = el("select", { class: "cmp-select cmp-find-sort", "aria-label": "Order of the rows", change: () => set(JSON.parse(sorts.value)) });
    const node = el("div", { class: "cmp-find", hidden: "" }, field, count, sorts);

    field.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      if (field.value) { field.value = ""; onFilter(); } else field.blur();
      event.stopPropagation();
    });
    // One field a page has this key; a table that is not in sight leaves it alone, and so does whoever is writing elsewhere.
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || !node.isConnected) return;
      if (!field.checkVisibility() || document.querySelector("dialog[open]") || event.target.closest?.("input, textarea, select, [contenteditable]")) return;
      event.preventDefault();
      field.focus();
      field.select();
    });

    const set = (next) => {
      order = next;
      if (known) remember(known, JSON.stringify(order));
      onSort();
    };

    // Some columns are first asked for their largest.
    const sortBy = (name) => {
      const largestFirst = (value.downs ?? []).includes(name);
      set({ name, down: order?.name === name ? !order.down : largestFirst });
    };

    const update = (next) => {
      value = next;
      if (value.remember && known !== value.remember) {
        known = value.remember;
        try { order = JSON.parse(recall(known, "null")); } catch { order = null; }
      }
      node.hidden = !value.find || value.rows.length < FEW;
      if (node.hidden) field.value = ""; // nobody could take it away
      field.placeholder = `Filter ${value.find ?? ""} (press /)`;
      field.setAttribute("aria-label", `Filter ${value.find ?? ""}`);
      const orders = (value.columns ?? []).filter((name) => name !== value.unsorted).flatMap((name) => [false, true].map((down) => ({ name, down })));
      const told = JSON.stringify([orders, order]);
      if (sorts.dataset.told === told) return;
      sorts.dataset.told = told;
      sorts.replaceChildren(el("option", { value: "null", text: "as found" }), ...orders.map((one) => el("option", { value: JSON.stringify(one), text: `${one.name} ${one.down ? "↓" : "↑"}` })));
      sorts.value = JSON.stringify(order);
    };

    const matches = (row) => {
      const wanted = words(field.value);
      const text = wanted.length ? String(row.find ?? "").toLowerCase() : "";
      return wanted.every((word) => text.includes(word));
    };

    // How many there are; "" while none is left out.
    const tell = (shown) => setText(count, words(field.value).length ? `${shown.toLocaleString("en")} of ${value.rows.length.toLocaleString("en")} ${value.find}` : "");

    return { node, update, matches, tell, sortBy, order: () => order };
  };
})();
