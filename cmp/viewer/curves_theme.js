// The colours of the page as Plotly can use them: `cmpCurveTheme` -> {makeTheme(root), onTheme(root, redraw)}.
(() => {
  "use strict";

  // Plotly reads neither CSS variables nor the newer colour functions. What the style sheet made of them is painted on one pixel and read back.
  const makeTheme = (root) => {
    const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
    const rgb = (colour) => {
      pen.clearRect(0, 0, 1, 1);
      pen.fillStyle = colour;
      pen.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
      return `rgba(${r}, ${g}, ${b}, ${a / 255})`;
    };
    return () => {
      const style = getComputedStyle(root);
      const text = rgb(style.color);
      const [r, g, b] = text.match(/[\d.]+/g).map(Number);
      return { text, dark: 0.3 * r + 0.6 * g + 0.1 * b > 128, paper: rgb(style.backgroundColor), line: rgb(style.borderTopColor), muted: rgb(style.outlineColor),
        font: style.fontFamily, size: parseFloat(style.fontSize) || 13 };
    };
  };

  const onTheme = (root, redraw) => {
    const watch = new MutationObserver(() => (root.isConnected ? redraw() : watch.disconnect()));
    for (const node of [document.documentElement, document.body]) watch.observe(node, { attributes: true, attributeFilter: ["class", "style"] });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  };

  window.cmpCurveTheme = { makeTheme, onTheme };
})();
