// One cell of the matrix: `cmpCell(dom, sizeNow)` -> {node, record, set(record, column, row), sharpen()}. A record that did not change is
// not touched, and a preview stays to be looked at until the picture itself is there.
(() => {
  "use strict";

  const STATES = { waiting: "not drawn yet", drawing: "being drawn", done: "", fault: "failed" };

  const describe = (record, column, row) => {
    const state = record.state === "fault" ? `failed: ${record.fault || "no reason given"}` : STATES[record.state] ?? "not drawn yet";
    return [`${column}, ${row}`, state, record.mark, record.badge, record.caption].filter(Boolean).join("; ");
  };

  window.cmpCell = (dom, sizeNow) => {
    const frame = dom.el("div", { class: "cmp-frame" });
    const fault = dom.el("span", { class: "cmp-fault", hidden: "" });
    const badge = dom.el("span", { class: "cmp-badge", hidden: "" });
    const mark = dom.el("span", { class: "cmp-mark-corner", hidden: "" });
    const caption = dom.el("div", { class: "cmp-caption", hidden: "" });
    const node = dom.el("td", { class: "cmp-cell", role: "gridcell", tabindex: "-1" }, frame, caption);
    frame.append(fault, badge, mark);
    const cell = { node, record: null, img: null, said: "", url: "" };

    cell.sharpen = () => { if (cell.img?.naturalWidth) dom.sharpen(cell.img, sizeNow(), sizeNow()); };

    // The address is forgotten too, so that the next change of the record tries it again.
    const lose = () => {
      cell.img.remove();
      cell.img = null;
      cell.url = "";
      node.dataset.state = "fault";
      dom.setText(fault, "This image could not be loaded.");
    };

    // `soft` keeps the old picture until the new one has arrived: it is the same cell, drawn better. Otherwise the old one would stand
    // under the new name for a moment.
    const setImage = (url, soft) => {
      if (url === cell.url) return;
      cell.url = url;
      const old = [...frame.querySelectorAll("img")];
      const clear = () => { for (const img of old) img.remove(); };
      cell.img = null;
      if (!soft || !url) clear();
      if (!url) return;
      const img = dom.el("img", { loading: "lazy", decoding: "async", draggable: "false" });
      img.addEventListener("load", () => { if (cell.img === img) cell.sharpen(); img.classList.add("is-loaded"); clear(); });
      img.addEventListener("error", () => { clear(); if (cell.img === img) lose(); });
      img.src = url;
      cell.img = img;
      frame.prepend(img);
    };

    cell.set = (record, column, row) => {
      const said = JSON.stringify([record, column, row]);
      if (said === cell.said) return;
      cell.said = said;
      const soft = Boolean(cell.record?.mark) && record.state === "done";
      cell.record = record;
      const aria = describe(record, column, row);
      node.dataset.state = STATES[record.state] === undefined ? "waiting" : record.state;
      node.setAttribute("aria-label", aria);
      node.title = record.state === "fault" ? record.fault || "" : [record.caption, record.reused ? "reused" : ""].filter(Boolean).join("\n");
      dom.setText(fault, record.state === "fault" ? record.fault || "Failed without a reason." : "");
      dom.setText(badge, record.badge);
      dom.setText(mark, record.mark);
      dom.setText(caption, record.caption);
      setImage(record.state === "done" ? record.thumb || record.full || "" : "", soft);
      if (cell.img) cell.img.alt = aria;
    };
    return cell;
  };
})();
