// The axes that run neither across nor down: one value of each is shown at a time. The training step among them is a slider over the whole
// matrix, with play and loop. The pictures of a step are decoded before they are shown, so that nothing flickers and nothing lags behind its name.
(() => {
  "use strict";

  const SPEEDS = [["1", "1 a second"], ["2", "2 a second"], ["4", "4 a second"], ["8", "8 a second"]];
  const KEPT = 1200; // decoded pictures

  const build = (dom) => {
    const { el } = dom;
    const part = {
      toggle: el("button", { type: "button", class: "cmp-button", text: "Step slider", "aria-pressed": "false", title: "One step at a time, all cells together" }),
      box: el("div", { class: "cmp-stepper", hidden: "" }),
      back: el("button", { type: "button", class: "cmp-button", "aria-label": "Step before", text: "◀" }),
      play: el("button", { type: "button", class: "cmp-button", "aria-pressed": "false", text: "Play" }),
      next: el("button", { type: "button", class: "cmp-button", "aria-label": "Step after", text: "▶" }),
      range: el("input", { type: "range", min: 0, step: 1, "aria-label": "Training step" }),
      said: el("output", { class: "cmp-step" }),
      loop: el("input", { type: "checkbox", checked: "" }),
      speed: el("select", { class: "cmp-select", "aria-label": "Speed" }, ...SPEEDS.map(([value, text]) => el("option", { value, text }))),
      others: el("div", { class: "cmp-selectors" }),
    };
    part.speed.value = "2";
    part.box.append(part.back, part.play, part.next, part.range, part.said,
      el("label", { class: "cmp-check" }, part.loop, el("span", { text: "Loop" })), part.speed);
    return part;
  };

  window.cmpSelectors = (grid) => {
    const { dom } = grid;
    const part = build(dom);
    grid.part.first.prepend(part.toggle);
    grid.part.under.append(part.box);
    grid.part.title.after(part.others); // beside the title there is room; a line of their own would push the pictures down
    grid.ready = new Map();
    let wanted = null;
    let timer = 0;

    const stepAxis = () => grid.arranged().axes.find((axis) => axis.key === grid.value().step_axis);
    const isSlider = () => stepAxis()?.place === "" && stepAxis().shown.length > 1;
    const viewAt = (axis, at) => ({ pick: { ...grid.view().pick, [axis.key]: axis.keys[at] } });

    const decode = async (url) => {
      if (grid.ready.has(url)) return;
      const img = dom.el("img", { draggable: "false" });
      img.src = url;
      try { await img.decode(); } catch { return; } // the cell will tell
      grid.ready.set(url, img);
      while (grid.ready.size > KEPT) grid.ready.delete(grid.ready.keys().next().value);
    };

    const prepare = (axis, at) => {
      const { rows, columns, at: cellAt } = window.cmpArrange(grid.value(), { ...grid.view(), ...viewAt(axis, at) });
      const urls = rows.flatMap((_, r) => columns.map((_, c) => cellAt(r, c))).filter((cell) => cell?.state === "done").map((cell) => grid.url(cell, "thumb"));
      return Promise.all(urls.map(decode));
    };

    // Of several wishes only the last one counts.
    const go = async (at) => {
      const axis = stepAxis();
      wanted = at;
      await prepare(axis, at);
      if (wanted !== at || stepAxis()?.key !== axis.key) return;
      grid.setView(viewAt(axis, at));
      const n = stepAxis().shown.indexOf(at);
      const next = stepAxis().shown[n + 1];
      if (next !== undefined) prepare(stepAxis(), next);
    };

    const move = (by) => {
      const { shown, picked } = stepAxis();
      const n = shown.indexOf(picked) + by;
      if (n >= 0 && n < shown.length) return go(shown[n]);
      return part.loop.checked ? go(shown[(n + shown.length) % shown.length]) : stop();
    };

    const stop = () => {
      clearTimeout(timer);
      timer = 0;
      part.play.setAttribute("aria-pressed", "false");
      dom.setText(part.play, "Play");
    };
    const tick = async () => {
      if (!isSlider() || !grid.root.isConnected) return void stop();
      await move(1);
      if (timer) timer = setTimeout(tick, 1000 / Number(part.speed.value));
    };
    const play = () => {
      if (timer) return void stop();
      part.play.setAttribute("aria-pressed", "true");
      dom.setText(part.play, "Pause");
      timer = setTimeout(tick, 1000 / Number(part.speed.value));
    };

    // The step that another part of the page speaks of: the slider goes there.
    grid.goToStep = (at) => { if (isSlider() && stepAxis().shown.includes(at) && stepAxis().picked !== at) go(at); };

    const toggle = () => {
      const axis = stepAxis();
      const place = { ...grid.view().place };
      if (isSlider()) delete place[axis.key];
      else place[axis.key] = "";
      stop();
      grid.setView({ place });
    };

    const select = (axis) => {
      const list = dom.el("select", { class: "cmp-select", "aria-label": axis.label,
        change: () => grid.setView(viewAt(axis, Number(list.value))) },
      ...axis.shown.map((at) => dom.el("option", { value: at, text: [axis.values[at].label, axis.values[at].sub].filter(Boolean).join(" ") })));
      list.value = String(axis.picked);
      return dom.el("label", { class: "cmp-check" }, dom.el("span", { text: axis.label }), list);
    };

    const draw = () => {
      const axis = stepAxis();
      const slides = isSlider();
      part.toggle.hidden = !axis || axis.values.length < 2;
      part.toggle.setAttribute("aria-pressed", String(slides));
      part.box.hidden = !slides;
      if (slides) {
        const { shown, picked, values } = axis;
        part.range.max = String(shown.length - 1);
        part.range.value = String(shown.indexOf(picked));
        const text = `${values[picked].label}, ${shown.indexOf(picked) + 1} of ${shown.length}`;
        part.range.setAttribute("aria-valuetext", text);
        dom.setText(part.said, text);
      } else stop();
      const others = grid.arranged().picks.filter((one) => !slides || one.key !== axis.key);
      const said = JSON.stringify(others.map(({ key, keys, shown, picked }) => [key, keys, shown, picked]));
      if (said !== part.others.dataset.said) part.others.replaceChildren(...others.map(select));
      part.others.dataset.said = said;
    };

    part.toggle.addEventListener("click", toggle);
    part.play.addEventListener("click", play);
    part.back.addEventListener("click", () => move(-1));
    part.next.addEventListener("click", () => move(1));
    part.range.addEventListener("input", () => go(stepAxis().shown[Number(part.range.value)]));
    grid.onChange(draw);
  };
})();
