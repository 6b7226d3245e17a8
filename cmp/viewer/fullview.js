// Pictures of the matrix, large: `cmpFullView(grid)` -> {open, compare, refresh, isOpen, can}. It shows the cell under the matrix' own cursor, so that
// the two can never disagree, alone or beside what it is compared with; or up to four cells that were chosen. A modal <dialog>: the
// browser keeps the focus inside, closes it on Escape, and lifts it over all else.
(() => {
  "use strict";

  const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const HOLDS = { b: "is-base", v: "is-before" };
  const NARROW = "(max-width: 700px)";

  window.cmpFullView = (grid) => {
    const { dom } = grid;
    let compare = null;
    const pictures = window.cmpPictures(dom, grid.url);
    const difference = window.cmpDifference(dom, { refit: () => compare.refit() });
    const say = (text) => dom.setText(part.status, text);
    const panel = window.cmpFullPanel(grid, say);
    const messages = window.cmpFullMessages(say);
    const part = window.cmpFullLayout(dom, panel, difference);
    const now = { mode: "one", against: "is-base", swapped: false, chosen: null, items: [], held: "", shown: "", before: null, from: null, last: "" };
    grid.root.append(part.dialog);
    // Open until `close` was heard: before that the browser gives the focus back to the cell it came from, which is not a move.
    let busy = false;

    const itemOf = ({ record, r, c }, role = "is-own") => ({ record, r, c, role, id: grid.idOf(record), name: grid.nameOf(record, r, c) });
    const hereNow = () => { const { r, c } = grid.cursor(); return itemOf({ record: grid.arranged().at(r, c) ?? grid.cellAt(r, c), r, c }); };
    const other = (role) => {
      const { r, c } = grid.cursor();
      const found = role === "is-base" ? grid.baseOf(r, c) : grid.beforeOf(r, c);
      return found ? itemOf(found, role) : null;
    };
    const others = () => Object.values(HOLDS).map(other).filter(Boolean);
    const named = (items) => { const { own, shared } = grid.tell(items); items.forEach((item, n) => { item.own = own[n]; }); return Object.assign(items, { shared }); };

    // What is on the stage, in its order. Alone, the others are only held up in its place.
    const itemsNow = () => {
      if (now.chosen) return named(now.chosen.map((id) => itemOf({ record: grid.recordOf(id), r: -1, c: -1 })));
      const here = hereNow();
      if (now.mode === "one") return named([here, ...others().filter(({ record }) => record?.state === "done")]);
      const beside = other(now.against) ?? others()[0];
      const both = beside ? [beside, here] : [here];
      return named(now.swapped ? both.reverse() : both);
    };
    const modeNow = () => (now.items.length < 2 && now.mode !== "one" ? "side" : now.mode);

    const tellTitle = (n) => {
      const { items } = now;
      const alone = ["one", "hover", "blink"].includes(modeNow()) || items.length < 2;
      dom.setText(part.title, alone ? items[n]?.name : [items.map(({ own }) => own).join(" ↔ "), items.shared].filter(Boolean).join(" - "));
      for (const [button, role] of [[part.blink, "is-base"], [part.before, "is-before"]]) button.setAttribute("aria-pressed", String(n > 0 && now.held === role));
    };

    compare = window.cmpCompare(dom, part.stage, { pictures, told: tellTitle, swipe: (dr, dc) => step(dr, dc),
      zoomed: () => { dom.setText(part.zoom, compare?.zoom.says() ?? "Fit"); part.zoom.setAttribute("aria-label", `Zoom, now ${part.zoom.textContent}`); if (busy) grid.moved(); },
      sized: (text) => dom.setText(part.note, text || (now.mode !== "one" && now.items.length < 2 ? "There is nothing to compare this picture with: it is the first." : "")),
      grab: (on) => hold(on ? "is-base" : ""),
      played: (on) => {
        part.play.textContent = on ? "Pause" : "Play";
        part.title.setAttribute("aria-live", on ? "off" : "polite"); // a name every second would drown all else
      } });

    const hold = (role) => {
      const at = now.items.findIndex((item) => item.role === role);
      now.held = at > 0 ? role : "";
      if (now.mode === "one") compare.hold(Math.max(0, at));
    };

    const describeHold = (button, role, key, nothing) => {
      const found = now.items.find((item) => item.role === role);
      // at the second step both keys hold up the same picture: one button says so
      const same = role === "is-before" && found && now.items.some((item) => item.role === "is-base" && item.record === found.record);
      button.hidden = now.mode !== "one" || Boolean(now.chosen) || Boolean(same);
      // Not `disabled`: a button that is disabled while it has the focus drops it, and the keys would go nowhere.
      button.setAttribute("aria-disabled", String(!found));
      button.textContent = found ? `Hold ${key}: ${found.own}` : `Hold ${key}`;
      button.title = found ? `Shows ${found.name} while held` : nothing;
    };

    const drawAgainst = () => {
      const found = others();
      part.against.hidden = now.mode === "one" || Boolean(now.chosen) || found.length < 2 || found[0].record === found[1].record;
      const here = hereNow();
      part.against.replaceChildren(...found.map((item) => dom.el("option", { value: item.role, text: `with ${grid.tell([item, here]).own[0]}` })));
      part.against.value = now.against;
    };

    const drawTools = () => {
      const several = now.items.length > 1 && now.mode !== "one";
      for (const node of part.modes.children) {
        node.setAttribute("aria-pressed", String(node.dataset.mode === now.mode));
        node.hidden = node.dataset.mode === "one" && Boolean(now.chosen);
      }
      describeHold(part.blink, "is-base", "B", "There is no other picture to compare with");
      describeHold(part.before, "is-before", "V", "There is no picture of a step before");
      drawAgainst();
      part.swap.hidden = !several;
      part.play.hidden = now.mode !== "blink" || !several;
      part.leave.hidden = !now.chosen;
      part.mark.hidden = now.mode !== "one" || Boolean(now.chosen) || now.items[0]?.record?.state !== "done";
      part.mark.setAttribute("aria-pressed", String(grid.chosen().includes(now.items[0]?.id)));
      part.again.hidden = !grid.value().rerolls?.length || Boolean(now.chosen);
    };

    const tellPlace = () => {
      const { rows, columns } = grid.size();
      const { r, c } = grid.cursor();
      dom.setText(part.place, now.chosen ? `${now.chosen.length} chosen` : `column ${c + 1} / ${columns}, row ${r + 1} / ${rows}`);
    };

    const drawStage = () => {
      const mode = modeNow();
      if (mode !== "difference") difference.end();
      compare.show(now.items, mode, mode === "difference" ? difference.panes : null);
      compare.refit(); // a longer name may have taken room from the stage
    };

    // The next presses of an arrow key should find their pictures decoded: comparing lives from the missing pause.
    const prepare = () => {
      const { rows, columns } = grid.size();
      const { r, c } = grid.cursor();
      for (const [dr, dc] of Object.values(STEPS)) pictures.decoded(grid.arranged().at((r + dr + rows) % rows, (c + dc + columns) % columns));
    };

    const refresh = async () => {
      if (!part.dialog.open) return;
      const { rows, columns } = grid.size();
      if (now.chosen?.some((id) => !grid.recordOf(id))) now.chosen = null;
      if (!rows || !columns) return void part.dialog.close();
      const items = itemsNow();
      // A cell that finishes elsewhere must not interrupt somebody who is comparing here.
      const place = JSON.stringify([now.mode, now.chosen, items.map(({ id, name, own, r, c }) => [id, name, own, r, c])]);
      const shown = JSON.stringify([place, items.map(({ record }) => [record, grid.marksOf(record)])]);
      tellPlace();
      if (shown === now.shown) return;
      const looks = JSON.stringify([place, items.map(({ record }) => [record?.state, record?.fault, pictures.addressOf(record)])]);
      const isSoft = place === now.before?.place && now.items.some(({ record }) => record?.mark);
      now.shown = shown;
      // A preview stays until the picture itself has arrived; pictures of another cell must go at once.
      if (isSoft) await Promise.all(items.map(({ record }) => pictures.decoded(record)));
      if (shown !== now.shown || !part.dialog.open) return;
      const same = looks === now.before?.looks;
      Object.assign(now, { items, before: { place, looks } });
      drawTools();
      if (!same) { now.held = ""; say(""); drawStage(); }
      panel.draw(now.mode === "one" ? items.slice(0, 1) : items);
      prepare();
      grid.moved(); // the address speaks of what is compared, too
    };

    // Every end leads to the other one. Chosen cells move together; where one of them would leave what there is, none moves.
    const step = (dr, dc) => {
      const { rows, columns } = grid.size();
      const moved = ({ r, c }) => ({ r: (r + dr + rows) % rows, c: (c + dc + columns) % columns });
      if (!now.chosen) goTo(moved(grid.cursor()));
      else {
        const places = now.items.map(({ record }) => grid.placeOfRecord(record)).map((at) => at && moved(at));
        const ids = places.map((at) => at && grid.idOf(grid.arranged().at(at.r, at.c)));
        if (ids.some((id) => !id) || new Set(ids).size < ids.length) return void say("The chosen cells cannot all move that way");
        now.chosen = ids;
        goTo(places.at(-1));
      }
    };
    const goTo = ({ r, c }) => { grid.select(r, c, { focus: false }); refresh(); };

    const setMode = (mode) => {
      if (mode === "blink" && can.blinks()) return void play();
      now.mode = mode;
      if (mode !== "one") now.last = mode;
      refresh();
    };
    const nextMode = (by) => {
      const keys = window.cmpFullLayout.modes.filter((key) => !(now.chosen && key === "one"));
      setMode(keys[(keys.indexOf(now.mode) + by + keys.length) % keys.length]);
    };
    const swap = () => {
      if (now.mode === "one" || now.items.length < 2) return;
      if (now.chosen) now.chosen = [...now.chosen.slice(1), now.chosen[0]];
      else now.swapped = !now.swapped;
      refresh();
    };
    const leave = () => { now.chosen = null; now.mode = "one"; refresh(); part.dialog.focus(); };
    const mark = () => {
      if (now.mode !== "one" || now.chosen) return;
      const { r, c } = grid.cursor();
      say(grid.choose(r, c));
      drawTools();
    };
    const play = () => compare.play(!compare.isPlaying());

    const showPanel = (on, remembered = true) => {
      part.dialog.classList.toggle("has-panel", on);
      part.info.setAttribute("aria-expanded", String(on));
      if (remembered && !matchMedia(NARROW).matches) dom.remember("cmp.full.panel", on ? 1 : 0);
    };
    const togglePanel = () => showPanel(!part.dialog.classList.contains("has-panel"));

    const { zoom } = compare;
    const can = {
      alone: () => now.mode === "one" && !now.chosen,
      several: () => now.mode !== "one" && now.items.length > 1, stacked: () => ["hover", "blink"].includes(modeNow()), slides: () => modeNow() === "slider",
      blinks: () => modeNow() === "blink", holds: (role) => now.mode === "one" && now.items.some((item) => item.role === role), chosen: () => Boolean(now.chosen),
    };
    const keys = { m: () => nextMode(1), M: () => nextMode(-1), c: swap, x: mark, z: () => zoom.next(), i: togglePanel, "+": () => zoom.by(1.4), "=": () => zoom.by(1.4), "-": () => zoom.by(1 / 1.4),
      0: zoom.fit, "?": () => grid.help("full"), " ": () => can.blinks() && play(), ",": () => compare.nudge(-0.02), ".": () => compare.nudge(0.02),
      Home: () => edge("c", 0), End: () => edge("c", grid.size().columns - 1), PageUp: () => edge("r", 0), PageDown: () => edge("r", grid.size().rows - 1),
      r: () => (now.chosen ? null : grid.reroll("cell")) };
    const edge = (side, at) => { if (!now.chosen) goTo({ ...grid.cursor(), [side]: at }); };

    const onKey = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog.cmp-help")) return;
      const key = event.key.length === 1 && event.key !== "M" ? event.key.toLowerCase() : event.key;
      if (event.key === " " && event.target.closest("button, a")) return;
      if (STEPS[key] && event.shiftKey) zoom.pan(...STEPS[key].map((by) => by * -60).reverse());
      else if (STEPS[key]) step(...STEPS[key]);
      else if (HOLDS[key]) hold(HOLDS[key]);
      else if (/^[1-4]$/.test(key)) { if (can.stacked() && now.items[key - 1]) { compare.play(false); compare.choose(key - 1); } }
      else if (Object.hasOwn(keys, key)) keys[key]();
      else return;
      event.preventDefault();
      event.stopPropagation();
    };

    const onClose = () => {
      if (part.dialog.open) return; // the browser tells of it a moment later, and by then it may be open again
      const back = now.from;
      Object.assign(now, { shown: "", before: null, chosen: null, items: [], held: "", from: null });
      compare.clear();
      difference.end();
      messages.end();
      busy = false;
      past.closed();
      const { r, c } = grid.cursor();
      grid.select(r, c, { focus: !back?.isConnected });
      if (back?.isConnected) back.focus();
    };
    const past = window.cmpFullHistory(() => part.dialog.close(), grid.moved);

    const listen = () => {
      part.dialog.addEventListener("keydown", onKey);
      part.dialog.addEventListener("keyup", (event) => { if (HOLDS[event.key.toLowerCase()]) hold(""); });
      part.dialog.addEventListener("close", (event) => { if (event.target === part.dialog) onClose(); });
      // A click on the backdrop reaches the dialog itself, a click inside reaches one of its children.
      part.dialog.addEventListener("click", (event) => { if (event.target === part.dialog) part.dialog.close(); });
      part.moves.addEventListener("click", (event) => { const at = event.target.dataset.move; if (at) step(...at.split(" ").map(Number)); });
      part.modes.addEventListener("click", (event) => { const { mode } = event.target.dataset; if (mode) setMode(mode); });
      part.against.addEventListener("change", () => { now.against = part.against.value; refresh(); });
      for (const [name, told] of Object.entries({ again: () => grid.reroll("cell"), close: () => part.dialog.close(), swap, play, mark, leave, less: keys["-"], more: keys["+"],
        zoom: keys.z, info: togglePanel, keys: keys["?"] })) part[name].addEventListener("click", () => told());
      for (const [button, role] of [[part.blink, "is-base"], [part.before, "is-before"]]) {
        button.addEventListener("pointerdown", () => hold(role));
        for (const end of ["pointerup", "pointerleave", "pointercancel", "blur"]) button.addEventListener(end, () => hold(""));
      }
      window.addEventListener("blur", () => hold(""));
    };
    listen();

    const show = () => {
      busy = true;
      if (!part.dialog.open) { showPanel(!matchMedia(NARROW).matches && dom.recall("cmp.full.panel", "1") === "1", false); part.dialog.showModal(); past.opened(); messages.listen(); }
      compare.zoom.fit();
      part.dialog.focus();
      refresh();
    };
    const open = () => { Object.assign(now, { chosen: null, mode: "one" }); show(); };
    // `ids` of up to four cells, in their order; `from` is given the focus back.
    const compareChosen = (ids, from) => {
      Object.assign(now, { chosen: ids, from, mode: now.last || (ids.length > 2 ? "side" : "slider") });
      show();
    };
    // What a link says of it beside the cell that the cursor is on, null while it is closed; and what was told so, shown again.
    const told = () => {
      if (!busy || !part.dialog.open) return null;
      const some = { with: now.against === "is-before" && "before", swapped: now.swapped, zoom: zoom.get(), chosen: now.chosen?.map((id) => grid.coordinatesOf(grid.recordOf(id))) };
      return { mode: now.mode, ...Object.fromEntries(Object.entries(some).filter(([, value]) => value)) };
    };
    const restore = (saved) => {
      const chosen = Array.isArray(saved?.chosen) ? saved.chosen.slice(0, 4).map(grid.idAt) : null;
      const isThere = chosen ? chosen.length > 1 && chosen.every((id) => grid.recordOf(id)) : Boolean(hereNow().record);
      if (!window.cmpFullLayout.modes.includes(saved?.mode) || !isThere || !grid.root.checkVisibility()) return;
      Object.assign(now, { chosen, mode: saved.mode === "one" && chosen ? "side" : saved.mode, against: saved.with === "before" ? "is-before" : "is-base", swapped: Boolean(saved.swapped) });
      show();
      zoom.set(saved.zoom);
    };
    return { open, compare: compareChosen, refresh, told, restore, isOpen: () => busy, can };
  };
})();
