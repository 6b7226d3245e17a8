// Large pictures that are at hand: `cmpPictures(dom, url)` -> {take, give, prepare, decoded}. A picture that was decoded before is shown at once;
// every other one is a fresh <img>: a reused one keeps showing what it showed until the new one has arrived.
(() => {
  "use strict";

  const KEPT = 24;

  window.cmpPictures = (dom, url) => {
    const ready = new Map();

    const keep = (address, img) => {
      ready.delete(address);
      ready.set(address, img);
      while (ready.size > KEPT) ready.delete(ready.keys().next().value);
    };

    const addressOf = (record) => (record?.state === "done" ? url(record, "full") || url(record, "thumb") : "");

    // An <img> of this record, `told` when it has arrived or if it cannot be loaded.
    const take = (record, alt, { arrived, lost }) => {
      const address = addressOf(record);
      const old = ready.get(address);
      const img = old ?? dom.el("img", { draggable: "false", decoding: "sync" });
      ready.delete(address);
      img.className = "cmp-full-image";
      img.alt = alt;
      img.dataset.address = address;
      if (old) img.classList.add("is-loaded");
      else {
        img.addEventListener("load", () => { img.classList.add("is-loaded"); arrived(); });
        img.addEventListener("error", () => lost(img));
        img.src = address;
      }
      return img;
    };

    // Back from the stage.
    const give = (img) => { if (img.classList.contains("is-loaded")) keep(img.dataset.address, img); };

    const decoded = async (record) => {
      const address = addressOf(record);
      if (!address || ready.has(address)) return;
      const img = dom.el("img", { draggable: "false", decoding: "sync" });
      img.src = address;
      try { await img.decode(); } catch { return; } // who shows it will tell
      keep(address, img);
    };

    return { take, give, decoded, addressOf };
  };
})();
