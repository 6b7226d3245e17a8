// The pixels of pictures, and how far two of them lie apart: `cmpOklab` -> {pixels, labOf, inSlices, far, channels, spot, readsTrue}.
// OKLab: Björn Ottosson, https://bottosson.github.io/posts/oklab/; the distance is the Euclidean one, 1 between black and white.
(() => {
  "use strict";

  const LINEAR = Float32Array.from({ length: 256 }, (_, i) => (i <= 10 ? i / 255 / 12.92 : ((i / 255 + 0.055) / 1.055) ** 2.4));

  // Where a picture of this size lies in a frame of that one, whole and in its own proportions.
  const spot = (img, width, height) => {
    const scale = Math.min(width / img.naturalWidth, height / img.naturalHeight);
    const [w, h] = [Math.round(img.naturalWidth * scale), Math.round(img.naturalHeight * scale)];
    return { x: Math.round((width - w) / 2), y: Math.round((height - h) / 2), w, h };
  };

  const pixels = (img, width, height) => {
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff"; // what is transparent is seen on white
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    const { x, y, w, h } = spot(img, width, height);
    context.drawImage(img, x, y, w, h);
    return context.getImageData(0, 0, width, height).data;
  };

  // L, a, b of the pixels from `from` on, up to `to`.
  const fill = (data, lab, from, to) => {
    for (let i = from; i < to; i += 1) {
      const [r, g, b] = [LINEAR[data[4 * i]], LINEAR[data[4 * i + 1]], LINEAR[data[4 * i + 2]]];
      const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
      const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
      const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
      lab[3 * i] = 0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s;
      lab[3 * i + 1] = 1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s;
      lab[3 * i + 2] = 0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s;
    }
  };

  const SLICE = 8192; // pixels, about a millisecond
  const pause = () => new Promise((go) => { setTimeout(go); });

  // Long sums leave the page free to be used. `goesOn` may end them early.
  const inSlices = async (count, work, goesOn = () => true) => {
    let began = performance.now();
    for (let from = 0; from < count && goesOn(); from += SLICE) {
      work(from, Math.min(count, from + SLICE));
      if (performance.now() - began < 10) continue;
      await pause();
      began = performance.now();
    }
    return goesOn();
  };

  const labOf = async (data, goesOn) => {
    const lab = new Float32Array((data.length / 4) * 3);
    return (await inSlices(data.length / 4, (from, to) => fill(data, lab, from, to), goesOn)) ? lab : null;
  };

  const far = (a, b, i) => Math.sqrt((a[3 * i] - b[3 * i]) ** 2 + (a[3 * i + 1] - b[3 * i + 1]) ** 2 + (a[3 * i + 2] - b[3 * i + 2]) ** 2);
  const channels = (a, b, i) => Math.max(Math.abs(a[4 * i] - b[4 * i]), Math.abs(a[4 * i + 1] - b[4 * i + 1]), Math.abs(a[4 * i + 2] - b[4 * i + 2]));

  // Some browsers falsify what a page reads from a canvas. A difference of falsified pixels would be a wrong one.
  let told = null;
  const readsTrue = () => {
    if (told !== null) return told;
    const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const wanted = context.createImageData(64, 64);
    for (let i = 0; i < wanted.data.length; i += 1) wanted.data[i] = i % 4 === 3 ? 255 : (i * 89 + (i >> 8) * 31) % 256;
    context.putImageData(wanted, 0, 0);
    const read = context.getImageData(0, 0, 64, 64).data;
    told = wanted.data.every((value, i) => value === read[i]);
    return told;
  };

  // what keeps pixels from being read, in words: a page that knows better says so
  const falsified = "This browser falsifies the pixels that a page reads";

  window.cmpOklab = { pixels, labOf, inSlices, far, channels, spot, readsTrue, falsified };
})();
