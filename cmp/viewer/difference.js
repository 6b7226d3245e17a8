// Where pictures differ and how far: `cmpDifference(dom, hooks)` -> {node, panes(layers), end}. The first picture, and for every other one a
// heat map of its difference from the first. The scale is the same for all of them and does not follow the pictures: what is bright in one
// grid is as far apart as what is bright in another.
(() => {
  "use strict";

  const OKLAB = "oklab";
  const MEASURES = {
    [OKLAB]: { label: "OKLab ΔE", most: 1, digits: 3, unit: "", hint: "perceived distance, 1 from black to white; about 0.02 can just be seen" },
    channel: { label: "largest channel", most: 255, digits: 0, unit: " of 255", hint: "the largest of the differences in red, green and blue" },
  };
  const GAINS = [1, 2, 4, 8, 16, 32];
  // inferno: black is no difference, and it grows evenly brighter
  const STOPS = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]];

  const SCALE = Uint8Array.from({ length: 256 * 3 }, (_, k) => {
    const at = (Math.floor(k / 3) / 255) * (STOPS.length - 1);
    const low = Math.min(Math.floor(at), STOPS.length - 2);
    return Math.round(STOPS[low][k % 3] + (STOPS[low + 1][k % 3] - STOPS[low][k % 3]) * (at - low));
  });

  const figure = (value, { digits }) => (digits ? value.toFixed(value && value < 0.01 ? 4 : digits) : value < 10 && value % 1 ? value.toFixed(1) : String(Math.round(value)));
  const percent = (share) => (share === 0 || share === 1 ? `${100 * share} %` : share < 0.01 ? "under 1 %" : share > 0.99 ? "over 99 %" : `${Math.round(100 * share)} %`);

  // Only what both pictures cover counts: of unequal proportions the rest has nothing to be compared with.
  const shared = (a, b, width, height) => {
    const [one, two] = [window.cmpOklab.spot(a, width, height), window.cmpOklab.spot(b, width, height)];
    const [x, y] = [Math.max(one.x, two.x), Math.max(one.y, two.y)];
    return { x, y, right: Math.min(one.x + one.w, two.x + two.w), bottom: Math.min(one.y + one.h, two.y + two.h) };
  };

  // -> {values, width, height, mean, most, equal}: a value for each pixel, NaN where there is nothing to compare.
  const measure = async (a, b, { width, height }, kind, goesOn = () => true) => {
    const { pixels, labOf, inSlices, far, channels } = window.cmpOklab;
    const data = [pixels(a, width, height), pixels(b, width, height)];
    const both = kind === OKLAB ? [await labOf(data[0], goesOn), await labOf(data[1], goesOn)] : data;
    const distance = kind === OKLAB ? far : channels;
    const part = shared(a, b, width, height);
    const values = new Float32Array(width * height).fill(NaN);
    const told = { sum: 0, most: 0, equal: 0, count: 0 };
    const done = goesOn() && await inSlices(width * height, (from, to) => {
      for (let i = from; i < to; i += 1) {
        const [x, y] = [i % width, Math.floor(i / width)];
        if (x < part.x || x >= part.right || y < part.y || y >= part.bottom) continue;
        const value = distance(both[0], both[1], i);
        values[i] = value;
        told.sum += value;
        told.count += 1;
        told.equal += Number(data[0][4 * i] === data[1][4 * i] && data[0][4 * i + 1] === data[1][4 * i + 1] && data[0][4 * i + 2] === data[1][4 * i + 2]);
        if (value > told.most) told.most = value;
      }
    }, goesOn);
    return done ? { values, width, height, mean: told.sum / (told.count || 1), most: told.most, equal: told.equal / (told.count || 1) } : null;
  };

  const paint = (canvas, { values, width, height }, top) => {
    Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    for (let i = 0; i < values.length; i += 1) {
      if (Number.isNaN(values[i])) continue;
      const at = 3 * Math.min(255, Math.round((values[i] / top) * 255));
      image.data.set([SCALE[at], SCALE[at + 1], SCALE[at + 2], 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
  };

  const build = (dom) => {
    const { el } = dom;
    const part = {
      kind: el("select", { class: "cmp-select", "aria-label": "How the difference is measured" },
        ...Object.entries(MEASURES).map(([value, { label }]) => el("option", { value, text: label }))),
      gain: el("select", { class: "cmp-select", "aria-label": "Gain" }, ...GAINS.map((value) => el("option", { value, text: `gain ${value}×` }))),
      hint: el("span", { class: "cmp-difference-hint" }), low: el("span", { text: "0" }), half: el("span"), high: el("span"),
      words: el("p", { class: "cmp-difference-words", role: "status" }),
    };
    const legend = el("span", { class: "cmp-scale-box" }, el("i", { class: "cmp-heat-scale", "aria-hidden": "true" }),
      el("span", { class: "cmp-scale-ends" }, part.low, part.half, part.high));
    part.node = el("div", { class: "cmp-difference", hidden: "" }, el("div", { class: "cmp-difference-set" }, part.kind, part.gain, legend, part.hint), part.words);
    part.kind.value = dom.recall("cmp.full.measure", OKLAB) in MEASURES ? dom.recall("cmp.full.measure", OKLAB) : OKLAB;
    part.gain.value = GAINS.includes(Number(dom.recall("cmp.full.gain", 4))) ? dom.recall("cmp.full.gain", 4) : "4";
    return part;
  };

  // `hooks.refit()` is called when a heat map has got its size.
  window.cmpDifference = (dom, hooks) => {
    const { el } = dom;
    const part = build(dom);
    let run = 0;
    let pairs = [];

    const draw = () => {
      const kind = MEASURES[part.kind.value];
      const top = kind.most / Number(part.gain.value);
      dom.setText(part.half, figure(top / 2, kind));
      dom.setText(part.high, `${top < kind.most ? "≥ " : ""}${figure(top, kind)}`);
      dom.setText(part.hint, kind.hint);
      for (const { canvas, found } of pairs) if (found) paint(canvas, found, top);
    };

    const say = () => {
      const kind = MEASURES[part.kind.value];
      dom.setText(part.words, pairs.filter(({ found }) => found).map(({ label, found, canvas }) => {
        const text = found.most === 0 ? `${label}: the same, pixel for pixel.`
          : `${label}: ${figure(found.mean, kind)}${kind.unit} on average, ${figure(found.most, kind)} at most; ${percent(found.equal)} of the pixels are equal.`;
        canvas.setAttribute("aria-label", `Difference. ${text}`);
        return text;
      }).join(" "));
    };

    const largest = (imgs) => imgs.reduce((most, img) => (img.naturalWidth * img.naturalHeight > most.naturalWidth * most.naturalHeight ? img : most));

    const calculate = async (layers) => {
      const mine = (run += 1);
      const goesOn = () => mine === run;
      for (const pair of pairs) { pair.found = null; pair.canvas.classList.remove("is-loaded"); }
      if (layers.some(({ img }) => !img)) return void dom.setText(part.words, "A picture that is not there cannot be compared.");
      if (!window.cmpOklab.readsTrue()) return void dom.setText(part.words, `${window.cmpOklab.falsified}, so no difference is told.`);
      dom.setText(part.words, "Comparing…");
      try { await Promise.all(layers.map(({ img }) => img.decode())); } catch { return void (goesOn() && dom.setText(part.words, "A picture could not be loaded.")); }
      const most = largest(layers.map(({ img }) => img));
      const size = { width: most.naturalWidth, height: most.naturalHeight };
      for (const pair of pairs) {
        const found = goesOn() && await measure(layers[0].img, pair.img, size, part.kind.value, goesOn);
        if (!found) return;
        pair.found = found;
        draw();
        pair.canvas.classList.add("is-loaded");
        hooks.refit();
      }
      say();
    };

    const pane = (label, view) => el("div", { class: "cmp-pane" }, el("div", { class: "cmp-tags" }, el("span", { class: "cmp-tag", title: label }, el("span", { text: label }))), view);

    const panes = (layers) => {
      const first = pane(layers[0].item.own, el("div", { class: "cmp-view" }, layers[0].node));
      first.classList.add("is-first");
      pairs = layers.slice(1).map(({ item, img }) => {
        const label = `${item.own} against ${layers[0].item.own}`;
        const canvas = el("canvas", { class: "cmp-full-image", role: "img", "aria-label": `Difference. ${label}`, width: "0", height: "0" });
        return { label, img, canvas, found: null };
      });
      part.node.hidden = false;
      draw();
      calculate(layers);
      part.kind.onchange = () => { dom.remember("cmp.full.measure", part.kind.value); draw(); calculate(layers); };
      return [first, ...pairs.map(({ label, canvas }) =>
        pane(label, el("div", { class: "cmp-view" }, el("div", { class: "cmp-layer" }, el("div", { class: "cmp-world" }, canvas)))))];
    };

    part.gain.addEventListener("change", () => { dom.remember("cmp.full.gain", part.gain.value); draw(); });
    const end = () => { run += 1; pairs = []; part.node.hidden = true; };
    return { node: part.node, panes, end };
  };
  window.cmpDifference.measure = measure;
})();
