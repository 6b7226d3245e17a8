// One cell of the matrix: `cmpCell(dom, grid)` -> {node, frame, record, set(record, column, row), sharpen()}. A record that did not change
// is not touched, and a preview stays to be looked at until the picture itself is there. A picture in `grid.ready`, which maps addresses
// to decoded images, is shown at once: the step slider must not flicker.
(() => {
  "use strict";

  const STATES = { waiting: "not drawn yet", drawing: "being drawn", done: "", fault: "failed" };

  const SAME = "Failed for the same reason.";

  const describe = (record, column, row) => {
    const state = record.state === "fault" ? `failed: ${record.fault || "no reason given"}` : STATES[record.state] ?? "not drawn yet";
    return [`${column}, ${row}`, state, record.mark, record.badge, record.caption].filter(Boolean).join("; ");
  };

  window.cmpCell = (dom, grid) => {
    const pan = dom.el("div", { class: "cmp-pan" });
    const frame = dom.el("div", { class: "cmp-frame" }, pan);
    const node = dom.el("td", { class: "cmp-cell", role: "gridcell", tabindex: "-1" }, frame);
    const cell = { node, frame, pan, record: null, img: null, said: "", url: "", whole: "" };
    const words = new Map();

    // Most cells have none of these texts, and there may be thousands of cells.
    const tell = (name, text, place = frame) => {
      if (!words.has(name)) {
        if (!text) return;
        words.set(name, dom.el("span", { class: name }));
        place.append(words.get(name));
      }
      dom.setText(words.get(name), text);
    };

    cell.sharpen = () => { if (cell.img?.naturalWidth) dom.sharpen(cell.img, grid.pixels(), grid.pixels()); };

    // The address is forgotten too, so that the next change of the record tries it again.
    const lose = () => {
      cell.img.remove();
      cell.img = null;
      cell.url = "";
      node.dataset.state = "fault";
      tell("cmp-fault", "This image could not be loaded.");
    };

    // `soft` keeps the old picture until the new one has arrived: it is the same cell, drawn better. Otherwise the old one would stand
    // under the new name for a moment.
    const setImage = (url, soft) => {
      if (url === cell.url) return;
      cell.url = url;
      cell.whole = "";
      const old = [...pan.querySelectorAll("img")];
      const clear = () => { for (const img of old) img.remove(); };
      cell.img = null;
      const ready = grid.ready?.get(url);
      if (!soft || !url || ready) clear();
      if (!url) return;
      if (ready && !ready.isConnected) return void show(ready);
      const img = dom.el("img", { loading: "lazy", decoding: "async", draggable: "false" });
      img.addEventListener("load", () => { if (cell.img === img) cell.sharpen(); img.classList.add("is-loaded"); clear(); });
      img.addEventListener("error", () => { clear(); if (cell.img === img) lose(); });
      img.src = url;
      cell.img = img;
      pan.prepend(img);
    };

    // All pixels in the place of the small picture, once they are there: for a cell that is zoomed in.
    cell.sharpenFully = async () => {
      const { record, url } = cell;
      const whole = record?.state === "done" ? grid.url(record, "full") : "";
      if (!whole || whole === url || cell.whole === whole) return;
      cell.whole = whole;
      const img = dom.el("img", { draggable: "false", alt: cell.img?.alt ?? "" });
      img.src = whole;
      try { await img.decode(); } catch { return; }
      if (cell.url !== url || cell.whole !== whole) return;
      pan.replaceChildren();
      show(img);
    };

    const show = (img) => {
      img.className = "is-loaded";
      cell.img = img;
      pan.prepend(img);
      cell.sharpen();
    };

    // `again`: another cell tells the same fault already.
    cell.set = (record, column, row, again = false) => {
      const said = JSON.stringify([record, column, row, again]);
      if (said === cell.said) return;
      cell.said = said;
      const soft = Boolean(cell.record?.mark) && record.state === "done";
      cell.record = record;
      const aria = describe(record, column, row);
      node.dataset.state = STATES[record.state] === undefined ? "waiting" : record.state;
      node.setAttribute("aria-label", aria);
      node.title = record.state === "fault" ? record.fault || "" : [record.caption, record.reused ? "reused" : ""].filter(Boolean).join("\n");
      tell("cmp-fault", record.state !== "fault" ? "" : again ? SAME : record.fault || "Failed without a reason.");
      tell("cmp-badge", record.badge);
      tell("cmp-mark-corner", record.mark);
      tell("cmp-caption", record.caption, node);
      setImage(record.state === "done" ? grid.url(record, "thumb") || grid.url(record, "full") : "", soft);
      if (cell.img) cell.img.alt = aria;
    };
    return cell;
  };
})();
