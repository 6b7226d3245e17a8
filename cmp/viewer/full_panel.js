// What is known of the pictures on the stage, beside them: `cmpFullPanel(grid, say)` -> {node, draw(items)}. For each picture its settings
// to copy, itself to download, its checkpoint to star; below that what differs between them and what they have in common.
(() => {
  "use strict";

  const LONGEST_NAME = 120;
  const BASE = "base model"; // the key of its value on the step axis

  const seconds = (value) => (value < 10 ? value.toFixed(1) : Math.round(value)) + " s";
  const shown = (value) => (value === null || value === undefined ? "–" : String(value));

  const drawnIn = (record) => {
    if (record?.state === "done" && record.reused) return [["drawn", "earlier, reused"]];
    return typeof record?.seconds === "number" ? [[record.state === "fault" ? "failed after" : "drawn in", seconds(record.seconds)]] : [];
  };

  // Letters and digits of any writing; everything that a file system could take for something else becomes a dash.
  const fileName = (title, name, address) => {
    const ending = /\.(png|webp|jpe?g|gif|avif)(?:$|[?#])/i.exec(address)?.[1] ?? (/^data:image\/(png|webp|jpeg)/.exec(address)?.[1] || "png");
    const text = [title, name].filter(Boolean).join(" ").replace(/[^\p{L}\p{N}.]+/gu, "-").replace(/^[-.]+|[-.]+$/g, "");
    return `${[...text].slice(0, LONGEST_NAME).join("") || "picture"}.${ending.toLowerCase()}`;
  };

  // A value that holds one of the signs between the settings is quoted, as A1111 does.
  const quoted = (value) => (/[,:\n]/.test(value) ? JSON.stringify(value) : value);
  const settingsFrom = (details) => {
    const told = new Map(details.map(([key, value]) => [String(key).toLowerCase(), shown(value)]));
    const [prompt, negative] = [told.get("prompt"), told.get("negative") ?? told.get("negative prompt")];
    const rest = details.filter(([key]) => !["prompt", "negative", "negative prompt"].includes(String(key).toLowerCase()));
    const line = rest.map(([key, value]) => `${key}: ${quoted(shown(value))}`).join(", ");
    return [prompt, negative && negative !== "–" ? `Negative prompt: ${negative}` : "", line].filter(Boolean).join("\n");
  };

  const settingsOf = async (grid, record, details) => {
    const address = grid.url({ key: record.key }, "settings"); // not the record's own: that is the text itself
    try {
      const answer = address ? await fetch(address) : null;
      if (answer?.ok) return await answer.text();
    } catch { /* a page on a disk, or a server that is gone: the page knows them too */ }
    return record.settings || settingsFrom(details);
  };

  // Outside https and localhost there is no clipboard to write to: then the text is selected and copied as a user would.
  const copy = async (dom, text, near) => {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* below */ }
    const box = dom.el("textarea", { class: "cmp-copy-box", readonly: "", "aria-label": "Settings to copy", rows: "5" });
    box.value = text;
    near.append(box);
    box.select();
    let done = false;
    try { done = document.execCommand("copy"); } catch { /* it stays to be copied by hand */ }
    if (done) box.remove();
    return done;
  };

  window.cmpFullPanel = (grid, say) => {
    const { dom } = grid;
    const { el } = dom;
    const part = {
      blocks: el("div", { class: "cmp-full-blocks" }),
      differs: el("dl", { class: "cmp-full-differs" }),
      details: el("dl", { class: "cmp-full-facts" }),
    };
    const [differsHead, commonHead] = [el("h3", { class: "cmp-full-sub", text: "What differs" }), el("h3", { class: "cmp-full-sub", text: "In common" })];
    const node = el("aside", { class: "cmp-full-side", "aria-label": "Details" }, part.blocks, differsHead, part.differs, commonHead, part.details);
    const blocks = new Map();

    const marksOf = (record) => Object.assign({}, ...grid.marksOf(record));
    const canStar = (record) => {
      const axis = grid.stepAxis();
      const at = axis && record?.at?.[axis.i];
      const known = grid.value().stars !== "known" || marksOf(record).id;
      return Boolean(grid.value().stars && known && axis && at !== null && at !== undefined && axis.keys[at] !== BASE);
    };

    const starring = (block) => {
      const star = el("button", { type: "button", class: "cmp-button cmp-star" });
      const note = el("input", { type: "text", class: "cmp-text", placeholder: "Note", "aria-label": "Note on this checkpoint", maxlength: "2000" });
      const state = () => marksOf(block.item.record);
      const send = (on, text) => { grid.edit("star", { at: grid.coordinatesOf(block.item.record), id: state().id, on, note: text }); };
      star.addEventListener("click", () => send(!state().star, note.value.trim()));
      const saved = () => { if (note.value.trim() !== (state().note ?? "")) send(Boolean(state().star) || note.value.trim() !== "", note.value.trim()); };
      note.addEventListener("change", saved);
      note.addEventListener("keydown", (event) => {
        if (event.key !== "Escape") return;
        note.value = state().note ?? "";
        event.preventDefault(); // Escape leaves the box, not the full view
        event.stopPropagation();
        node.closest("dialog")?.focus();
      });
      let known = null;
      // What was asked for is told when it has come back with the grid, and not before.
      return { node: el("div", { class: "cmp-starring" }, star, note), draw: () => {
        const { star: on, note: text } = state();
        if (known !== null && known !== Boolean(on)) say(on ? "Starred" : "The star is gone");
        known = Boolean(on);
        star.setAttribute("aria-pressed", String(Boolean(on)));
        dom.setText(star, on ? "★ Starred" : "☆ Star");
        if (document.activeElement !== note) note.value = text ?? "";
      } };
    };

    const makeBlock = () => {
      const block = { item: null };
      block.name = el("h3", { class: "cmp-full-sub" });
      block.caption = el("p", { class: "cmp-full-caption" });
      block.copy = el("button", { type: "button", class: "cmp-button", text: "Copy settings", title: "As A1111 writes them", click: async () => {
        const { item } = block;
        const done = await copy(dom, await settingsOf(grid, item.record, factsOf(item)), block.node);
        say(done ? "Copied" : "This browser lets no page copy here: press Ctrl+C now");
        if (!done) return;
        dom.setText(block.copy, "Copied");
        setTimeout(() => dom.setText(block.copy, "Copy settings"), 2000);
      } });
      block.load = el("a", { class: "cmp-button", text: "Download" });
      block.star = starring(block);
      block.actions = el("div", { class: "cmp-full-actions" }, block.copy, block.load);
      block.node = el("section", { class: "cmp-full-block" }, block.name, block.caption, block.actions, block.star.node);
      return block;
    };

    const drawBlock = (block, item, several) => {
      block.item = item;
      dom.setText(block.name, several ? item.own : "");
      dom.setText(block.caption, item.record?.caption);
      const address = item.record?.state === "done" ? grid.url(item.record, "full") || grid.url(item.record, "thumb") : "";
      block.actions.hidden = !address;
      if (address) { block.load.href = address; block.load.download = fileName(grid.value().title, item.name, address); }
      block.copy.setAttribute("aria-label", several ? `Copy settings of ${item.own}` : "Copy settings");
      block.load.setAttribute("aria-label", several ? `Download ${item.own}` : "Download");
      block.star.node.hidden = !canStar(item.record);
      block.star.draw();
    };

    const factsOf = ({ record }) => [...grid.detailsOf(record), ...(record?.badge ? [["badge", record.badge]] : []), ...drawnIn(record)];

    const lines = (facts) => facts.flatMap(([key, value]) => [el("dt", { text: shown(key) }), el("dd", { text: shown(value) })]);
    const apart = (facts, items) => facts.flatMap(([key, values]) => [el("dt", { text: key }),
      el("dd", {}, ...values.map((value, n) => el("span", { class: "cmp-one-of" }, el("b", { text: String(n + 1), title: items[n].own }), el("span", { text: value }))))]);

    // A name may stand several times, as "mode" of a mark and of the cell: the last one counts, as nearest to the picture.
    const split = (items) => {
      const told = items.map((item) => new Map(factsOf(item).map(([key, value]) => [shown(key), shown(value)])));
      const keys = [...new Set(told.flatMap((one) => [...one.keys()]))];
      const values = (key) => told.map((one) => one.get(key) ?? "–");
      return { common: keys.filter((key) => new Set(values(key)).size === 1).map((key) => [key, values(key)[0]]),
        differs: keys.filter((key) => new Set(values(key)).size > 1).map((key) => [key, values(key)]) };
    };

    const draw = (items) => {
      const several = items.length > 1;
      const ids = items.map((item, n) => item.id || String(n));
      for (const id of blocks.keys()) if (!ids.includes(id)) blocks.delete(id);
      ids.forEach((id, n) => {
        if (!blocks.has(id)) blocks.set(id, makeBlock());
        drawBlock(blocks.get(id), items[n], several);
      });
      dom.place(part.blocks, [...new Set(ids)].map((id) => blocks.get(id).node));
      const { common, differs } = several ? split(items) : { common: factsOf(items[0]), differs: [] };
      differsHead.hidden = part.differs.hidden = !differs.length;
      commonHead.hidden = !several;
      part.differs.replaceChildren(...apart(differs, items));
      part.details.replaceChildren(...lines(common));
    };
    return { node, draw };
  };
  window.cmpFullPanel.fileName = fileName;
  window.cmpFullPanel.settingsFrom = settingsFrom;
})();
