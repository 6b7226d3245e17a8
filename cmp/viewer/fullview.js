// One cell of the matrix, large: `cmpFullView(root, {cellAt, headAt, size, cursor, move, reroll, onClose})` -> {open, refresh, isOpen}.
// Where it stands is the matrix's own cursor, so that the two can never disagree. A modal <dialog>: the browser keeps the focus
// inside, closes it on Escape, and lifts it over all else.
(() => {
  "use strict";

  const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

  const build = (dom) => {
    const { el } = dom;
    const part = {
      title: el("h2", { class: "cmp-full-title", "aria-live": "polite" }),
      place: el("span", { class: "cmp-full-place" }),
      blink: el("button", { type: "button", class: "cmp-button", "aria-pressed": "false" }),
      again: el("button", { type: "button", class: "cmp-button", title: "Draws a row with a new seed below this one (R)", text: "New seed" }),
      close: el("button", { type: "button", class: "cmp-button", "aria-label": "Close the full view", text: "Close" }),
      stage: el("div", { class: "cmp-stage" }),
      caption: el("p", { class: "cmp-full-caption" }),
      details: el("dl", { class: "cmp-details" }),
      hint: el("span", { text: "R draws a row with a new seed below." }),
    };
    const keys = el("p", { class: "cmp-hint", text: "Arrow keys move across columns and rows. Hold B to see the first column. Esc closes. " }, part.hint);
    part.dialog = el("dialog", { class: "cmp-full", "aria-label": "Full view", tabindex: "-1" },
      el("header", { class: "cmp-full-head" }, part.title, part.place, part.blink, part.again, part.close),
      el("div", { class: "cmp-full-body" }, part.stage,
        el("aside", { class: "cmp-full-side" }, part.caption, part.details, keys)));
    return part;
  };

  // Small pictures grow by whole factors, so that all their pixels stay equally large.
  const fit = (dom, stage, img) => {
    if (!img.naturalWidth || !stage.clientWidth) return;
    let scale = dom.sharpen(img, stage.clientWidth, stage.clientHeight);
    if (scale >= 2) scale = Math.floor(scale);
    img.style.width = `${img.naturalWidth * scale}px`;
    img.style.height = `${img.naturalHeight * scale}px`;
  };

  // Always a fresh <img>: a reused one keeps showing the previous picture under the new name until the new one has arrived.
  const picture = (dom, stage, url, record, name, role) => {
    const img = dom.el("img", { class: `cmp-full-image ${role}`, alt: name, draggable: "false" });
    img.addEventListener("load", () => { fit(dom, stage, img); img.classList.add("is-loaded"); });
    img.addEventListener("error", () => img.replaceWith(dom.el("p", { class: "cmp-full-wait", text: "This image could not be loaded." })));
    img.src = url(record, "full") || url(record, "thumb");
    return img;
  };

  const hasPicture = (record) => Boolean(record && record.state === "done");

  const instead = (dom, record) => {
    const state = record?.state === "fault" || record?.state === "drawing" ? record.state : "waiting";
    const text = { waiting: "Not drawn yet.", drawing: "Being drawn…", fault: record?.fault || "Failed without a reason." }[state];
    return dom.el("p", { class: `cmp-full-wait is-${state}`, text });
  };

  const seconds = (value) => (value < 10 ? value.toFixed(1) : Math.round(value)) + " s";

  const facts = (record, details) => {
    const rows = [...details];
    if (record.badge) rows.push(["badge", record.badge]);
    if (record.state === "done" && record.reused) rows.push(["drawn", "earlier, reused"]);
    else if (typeof record.seconds === "number") rows.push([record.state === "fault" ? "failed after" : "drawn in", seconds(record.seconds)]);
    return rows;
  };

  window.cmpFullView = (root, { cellAt, headAt, size, url, details, cursor, move, reroll, onClose }) => {
    const dom = window.cmpDom;
    const part = build(dom);
    root.append(part.dialog);
    let shown = "";
    let before = { place: "", mark: false };
    let canBlink = false;
    // Open until `close` was heard: before that the browser gives the focus back to the cell it came from, which is not a move.
    let busy = false;

    const name = (r, c) => {
      const { column, row } = headAt(r, c);
      return `${column} - ${row}`;
    };

    // A preview stays until the picture itself has arrived; pictures of another cell must go at once.
    const drawStage = (r, c, soft) => {
      const record = cellAt(r, c);
      const base = c > 0 ? cellAt(r, 0) : null;
      const nodes = [];
      if (hasPicture(record)) nodes.push(picture(dom, part.stage, url, record, name(r, c), "is-own"));
      else nodes.push(instead(dom, record));
      if (hasPicture(base)) nodes.push(picture(dom, part.stage, url, base, name(r, 0), "is-base"));
      const old = [...part.stage.children];
      const clear = () => { for (const node of old) node.remove(); };
      if (soft && hasPicture(record)) { part.stage.append(...nodes); nodes[0].addEventListener("load", clear); nodes[0].addEventListener("error", clear); }
      else part.stage.replaceChildren(...nodes);
      const label = headAt(r, 0).column;
      canBlink = hasPicture(base);
      // Not `disabled`: a button that is disabled while it has the focus drops it, and the keys would go nowhere.
      part.blink.setAttribute("aria-disabled", String(!canBlink));
      part.blink.textContent = `Hold B: ${label}`;
      part.blink.title = !canBlink ? `No other picture of ${label} to compare with` : `Shows ${label} while held`;
    };

    const drawFacts = (record, r, c) => {
      dom.setText(part.caption, record?.caption);
      part.details.replaceChildren(...facts(record || {}, details(r, c)).flatMap(([key, value]) => [
        dom.el("dt", { text: key }), dom.el("dd", { text: value === null || value === undefined ? "–" : String(value) })]));
    };

    // The next presses of an arrow key should find their pictures decoded: comparing lives from the missing pause.
    const preload = (r, c) => {
      for (const [dr, dc] of Object.values(STEPS)) {
        const next = cellAt(r + dr, c + dc);
        if (hasPicture(next)) new Image().src = url(next, "full") || url(next, "thumb");
      }
    };

    const refresh = () => {
      if (!part.dialog.open) return;
      const { rows, columns } = size();
      if (!rows || !columns) return void part.dialog.close();
      const { r, c } = cursor();
      // A cell that finishes elsewhere must not interrupt somebody who is comparing here.
      const now = JSON.stringify([r, c, rows, columns, name(r, c), cellAt(r, c), name(r, 0), cellAt(r, 0)]);
      if (now === shown) return;
      const place = JSON.stringify([r, c, name(r, c)]);
      const soft = place === before.place && before.mark;
      [shown, before] = [now, { place, mark: Boolean(cellAt(r, c)?.mark) }];
      drawStage(r, c, soft);
      part.again.hidden = part.hint.hidden = !reroll?.();
      blink(false);
      dom.setText(part.place, `column ${c + 1} of ${columns}, row ${r + 1} of ${rows}`);
      drawFacts(cellAt(r, c), r, c);
      preload(r, c);
    };

    const blink = (on) => {
      const really = on && canBlink;
      const { r, c } = cursor();
      part.stage.classList.toggle("is-blinking", really);
      part.blink.setAttribute("aria-pressed", String(really));
      // Whose picture it is must be readable at every moment, also while the key is held.
      dom.setText(part.title, name(r, really ? 0 : c));
    };

    const step = (dr, dc) => {
      const { r, c } = cursor();
      move(r + dr, c + dc);
      refresh();
    };

    const onKey = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (STEPS[event.key]) step(...STEPS[event.key]);
      else if (event.key === "b" || event.key === "B") blink(true);
      else if ((event.key === "r" || event.key === "R") && reroll?.()) reroll()();
      else return;
      event.preventDefault();
      event.stopPropagation();
    };

    part.dialog.addEventListener("keydown", onKey);
    part.dialog.addEventListener("keyup", (event) => { if (event.key === "b" || event.key === "B") blink(false); });
    part.dialog.addEventListener("close", () => { shown = ""; before = { place: "", mark: false }; part.stage.replaceChildren(); busy = false; onClose(); });
    // A click on the backdrop reaches the dialog itself, a click inside reaches one of its children.
    part.dialog.addEventListener("click", (event) => { if (event.target === part.dialog) part.dialog.close(); });
    part.again.addEventListener("click", () => reroll?.()?.());
    part.close.addEventListener("click", () => part.dialog.close());
    part.blink.addEventListener("pointerdown", () => blink(true));
    for (const end of ["pointerup", "pointerleave", "pointercancel", "blur"]) part.blink.addEventListener(end, () => blink(false));
    window.addEventListener("blur", () => blink(false));
    new ResizeObserver(() => part.stage.querySelectorAll("img").forEach((img) => fit(dom, part.stage, img))).observe(part.stage);

    const open = () => {
      busy = true;
      if (!part.dialog.open) part.dialog.showModal();
      part.dialog.focus();
      refresh();
    };
    return { open, refresh, isOpen: () => busy };
  };
})();
