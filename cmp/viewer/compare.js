// Pictures on the stage of the full view, in one of the ways in which they can be compared: `cmpCompare(dom, stage, hooks)` ->
// {show, clear, choose, hold, zoom, play, isPlaying, nudge, refit, seen, layers}. Stacked pictures lie in one frame, one layer each; side by side each has its own frame.
// All of them share one zoom and one size, that of the largest.
(() => {
  "use strict";

  const STACKED = ["one", "slider", "hover", "blink"];
  const PACE = 800; // ms for each picture: slower than the three flashes a second that are held to be safe

  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
  const still = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

  const instead = (dom, record) => {
    const state = record?.state === "fault" || record?.state === "drawing" ? record.state : "waiting";
    const text = { waiting: "Not drawn yet.", drawing: "Being drawn…", fault: record?.fault || "Failed without a reason." }[state];
    return dom.el("p", { class: `cmp-full-wait is-${state}`, text });
  };

  // `hooks`: pictures, told(n) who is seen, zoomed(), swipe(dr, dc), sized(text), grab(on) while the mouse is held on the picture.
  window.cmpCompare = (dom, stage, hooks) => {
    const { el } = dom;
    let mode = "one";
    let items = [];
    let layers = [];
    let views = [];
    let tags = [];
    let cuts = [];
    let dividers = [];
    let seen = 0;
    let timer = 0;
    let grabbing = 0;

    const sizeOf = (layer) => (layer.img?.classList.contains("is-loaded") ? { width: layer.img.naturalWidth, height: layer.img.naturalHeight } : null);
    // In a single view what is only held up beside it takes the size of the picture itself.
    const size = () => {
      const all = (mode === "one" ? layers.slice(0, 1) : layers).map(sizeOf).filter(Boolean);
      return all.reduce((most, one) => (one.width * one.height > most.width * most.height ? one : most), all[0] ?? { width: 0, height: 0 });
    };

    const zoom = window.cmpFullZoom(stage, { views: () => views, size, swipe: hooks.swipe, told: () => { cut(); hooks.zoomed(); },
      press: (event, at) => press(event, at), drag: (at) => (mode === "one" ? null : pointed(at, true)), release: () => letGo(),
      point: (at) => { if (mode === "hover") pointed(at, false); } });

    const press = (event, at) => {
      if (mode === "one" && event.pointerType === "mouse") grabbing = setTimeout(() => hooks.grab(true), 180);
      if (mode === "slider" || mode === "hover") pointed(at, true);
      return grabbing > 0 || mode === "slider" || mode === "hover";
    };
    const letGo = () => { clearTimeout(grabbing); if (grabbing) hooks.grab(false); grabbing = 0; };

    const pointed = ([px], taken) => {
      const width = views[0].clientWidth;
      if (mode === "hover") return void choose(clamp(Math.floor((px / width) * items.length), 0, items.length - 1));
      if (!taken) return;
      const { x, w } = shownPart();
      const at = clamp((px - x) / w, 0, 1);
      const nearest = cuts.reduce((best, cut, n) => (Math.abs(cut - at) < Math.abs(cuts[best] - at) ? n : best), 0);
      setCut(nearest, at);
    };

    // What of the picture lies within the frame, from left to right.
    const shownPart = () => {
      const at = zoom.lie();
      const left = Math.max(0, at.x);
      return { x: left, w: Math.max(1, Math.min(views[0].clientWidth, at.x + at.w) - left) };
    };

    const cut = () => {
      if (mode !== "slider" || !views[0]) return;
      const { x, w } = shownPart();
      const edges = [0, ...cuts.map((share) => x + share * w), views[0].clientWidth];
      layers.forEach((layer, n) => { layer.node.style.clipPath = `inset(0 ${views[0].clientWidth - edges[n + 1]}px 0 ${edges[n]}px)`; });
      dividers.forEach((divider, n) => {
        divider.style.left = `${edges[n + 1]}px`;
        const percent = Math.round(100 * cuts[n]);
        divider.setAttribute("aria-valuenow", String(percent));
        divider.setAttribute("aria-valuetext", `${percent} %: ${items[n].own} on the left, ${items[n + 1].own} on the right`);
      });
    };
    const setCut = (n, at) => { cuts[n] = clamp(at, cuts[n - 1] ?? 0, cuts[n + 1] ?? 1); cut(); };

    const divider = (n) => {
      const keys = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 };
      const node = el("div", { class: "cmp-divider", role: "slider", tabindex: "0", "aria-label": `Divider between ${items[n].own} and ${items[n + 1].own}`,
        "aria-valuemin": "0", "aria-valuemax": "100", keydown: (event) => {
          if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
          setCut(n, cuts[n] + keys[event.key] * (event.shiftKey ? 5 : 1));
          event.preventDefault();
          event.stopPropagation();
        } }, el("i", { class: "cmp-grip", "aria-hidden": "true" }));
      node.addEventListener("pointerdown", (event) => { node.setPointerCapture(event.pointerId); event.stopPropagation(); });
      node.addEventListener("pointermove", (event) => {
        if (!node.hasPointerCapture(event.pointerId)) return;
        const { x, w } = shownPart();
        setCut(n, (event.clientX - views[0].getBoundingClientRect().left - x) / w);
      });
      return node;
    };

    const refit = () => { zoom.apply(); cut(); sized(); hooks.zoomed(); };

    const sized = () => {
      const most = size();
      const other = layers.map((layer, n) => [sizeOf(layer), items[n]]).filter(([own]) => own && (own.width !== most.width || own.height !== most.height));
      hooks.sized(other.map(([own, item]) => `${item.own} has ${own.width} × ${own.height} pixels and is scaled to ${most.width} × ${most.height}.`).join(" "));
    };

    const layerOf = (item) => {
      const layer = { item, img: null, node: el("div", { class: "cmp-layer" }) };
      if (item.record?.state !== "done") { layer.node.append(instead(dom, item.record)); return layer; }
      const lost = (img) => {
        layer.img = null;
        img.parentElement?.replaceWith(el("p", { class: "cmp-full-wait", text: "This image could not be loaded." }));
      };
      layer.img = hooks.pictures.take(item.record, item.name, { arrived: () => { if (layers.includes(layer)) refit(); }, lost });
      layer.img.classList.add(item.role);
      layer.node.append(el("div", { class: "cmp-world" }, layer.img));
      return layer;
    };

    const tag = (item, n) => {
      const isChoice = mode === "hover" || mode === "blink";
      const node = el(isChoice ? "button" : "span", { class: "cmp-tag", title: item.name }, el("b", { text: String(n + 1) }), el("span", { text: item.own }));
      if (isChoice) { node.type = "button"; node.addEventListener("click", () => { play(false); choose(n); }); }
      return node;
    };

    // Who is seen and who is said to be seen change in one go.
    const choose = (n) => {
      seen = n;
      stage.classList.toggle("is-blinking", mode === "one" && n > 0);
      if (mode !== "slider") layers.forEach((layer, i) => layer.node.classList.toggle("is-hidden", views.length === 1 && i !== n));
      tags.forEach((node, i) => { if (node.type === "button") node.setAttribute("aria-pressed", String(i === n)); });
      hooks.told(n);
    };

    const stack = () => {
      const view = el("div", { class: "cmp-view" }, ...layers.map((layer) => layer.node));
      views = [view];
      cuts = mode === "slider" ? items.slice(1).map((_, n) => cuts[n] ?? (n + 1) / items.length) : [];
      if (cuts.length !== items.length - 1 || cuts.some((at, n) => n && at <= cuts[n - 1])) cuts = cuts.map((_, n) => (n + 1) / items.length);
      dividers = cuts.map((_, n) => divider(n));
      view.append(...dividers);
      tags = mode === "one" ? [] : items.map(tag);
      return [el("div", { class: `cmp-pane is-${mode}` }, el("div", { class: "cmp-tags", role: "group", "aria-label": "Pictures" }, ...tags), view)];
    };

    const beside = () => {
      views = layers.map((layer) => el("div", { class: "cmp-view" }, layer.node));
      tags = items.map(tag);
      return views.map((view, n) => el("div", { class: "cmp-pane" }, el("div", { class: "cmp-tags" }, tags[n]), view));
    };

    const clear = () => {
      play(false);
      letGo();
      for (const layer of layers) if (layer.img) hooks.pictures.give(layer.img);
      [items, layers, views, tags, dividers] = [[], [], [], [], []];
      stage.replaceChildren();
    };

    // In the mode "one" the first item is shown, and the others are held up in its place. `panes` takes the layers and gives frames of its own.
    const show = (wanted, how, panes = null) => {
      const goesOn = timer > 0 && how === "blink";
      clear();
      [mode, items] = [how, wanted];
      layers = items.map(layerOf);
      const nodes = panes ? panes(layers) : STACKED.includes(mode) ? stack() : beside();
      if (panes) views = nodes.map((pane) => pane.querySelector(".cmp-view"));
      stage.dataset.mode = mode;
      stage.style.setProperty("--cmp-panes", nodes.length);
      stage.dataset.panes = nodes.length;
      stage.replaceChildren(...nodes);
      refit();
      choose(mode === "slider" || !STACKED.includes(mode) ? items.length - 1 : Math.min(how === "one" ? 0 : seen, items.length - 1));
      if (mode === "blink" && (goesOn || !still())) play(true);
    };

    const tick = () => {
      const next = (seen + 1) % items.length;
      if (!layers[next].img || layers[next].img.classList.contains("is-loaded")) choose(next);
    };
    const play = (on) => {
      clearInterval(timer);
      timer = on && items.length > 1 ? setInterval(tick, PACE) : 0;
      hooks.played?.(timer > 0);
    };

    new ResizeObserver(() => { if (views.length) refit(); }).observe(stage);
    return { show, clear, choose, zoom, play, refit, isPlaying: () => timer > 0, seen: () => seen, layers: () => layers, nudge: (by) => { if (cuts.length) setCut(0, cuts[0] + by); },
      hold: (n) => { if (mode === "one") choose(n); } };
  };
})();
