// One zoom for all pictures: `cmpZoom(grid)`. The wheel with Ctrl held (which is also how a touchpad tells a pinch), two fingers, or the keys
// + and - begin it; from then on the wheel zooms, dragging moves, and a double click or 0 ends it. Only what is in sight is moved: the
// others follow when they come into sight.
(() => {
  "use strict";

  const MOST = 16;
  const WHOLE = 1.5; // from here on the full picture is fetched
  const SMALL = 288; // and for cells larger than this

  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

  window.cmpZoom = (grid) => {
    const { dom, root, part } = grid;
    const { el } = dom;
    const button = el("button", { type: "button", class: "cmp-button cmp-zoom", "aria-pressed": "false", text: "Zoom",
      title: "Zooms all pictures together: wheel or + and -, drag to move, double click or 0 to end. Also Ctrl + wheel, or two fingers." });
    const own = el("button", { type: "button", class: "cmp-button", text: "1:1", title: "One pixel of the picture on one of the screen" });
    part.more.append(own, button);
    const cellsOf = new WeakMap();
    const inSight = new Set();
    const fingers = new Map();
    let on = false;
    let z = 1;
    let x = 0;
    let y = 0;
    let waiting = 0;
    let dragged = null;
    let pinch = null;
    grid.isZooming = () => on;

    const place = (cell) => {
      cell.pan.style.transform = z === 1 ? "" : `translate(${100 * x}%, ${100 * y}%) scale(${z})`;
      if (cell.img?.naturalWidth) cell.img.style.imageRendering = (grid.pixels() * z) / Math.max(cell.img.naturalWidth, cell.img.naturalHeight) >= 2 ? "pixelated" : "auto";
      if (z > WHOLE || (grid.pixels() > SMALL && Math.max(cell.img?.naturalWidth || 0, cell.img?.naturalHeight || 0) >= 256)) cell.sharpenFully();
    };

    const placeAll = () => {
      waiting = 0;
      for (const cell of inSight) place(cell);
    };
    const soon = () => { if (!waiting) waiting = requestAnimationFrame(placeAll); };

    const tell = () => {
      root.classList.toggle("is-zooming", on);
      button.setAttribute("aria-pressed", String(on));
      dom.setText(button, z === 1 ? "Zoom" : `Zoom ${z < 10 ? z.toFixed(1) : Math.round(z)}×`);
    };

    // `u`, `v`: the point of the frame that stays where it is, from 0 to 1.
    const zoomTo = (next, u = 0.5, v = 0.5) => {
      const wanted = clamp(next, 1, MOST);
      [x, y] = [u - ((u - x) / z) * wanted, v - ((v - y) / z) * wanted];
      z = wanted;
      if (z > 1) on = true;
      move(0, 0);
    };

    const move = (dx, dy) => {
      x = clamp(x + dx, 1 - z, 0);
      y = clamp(y + dy, 1 - z, 0);
      tell();
      soon();
      grid.moved();
    };

    const end = () => { on = false; zoomTo(1); on = false; tell(); };

    const share = (event, frame) => {
      const box = frame.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, box];
    };
    const frameOf = (event) => event.target.closest?.(".cmp-cell")?.querySelector(".cmp-frame");

    part.table.addEventListener("wheel", (event) => {
      const frame = frameOf(event);
      if (!frame || !(on || event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      const [u, v] = share(event, frame);
      zoomTo(z * Math.exp(-clamp(event.deltaY, -120, 120) / 300), u, v);
    }, { passive: false });

    const apart = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY); };

    part.table.addEventListener("pointerdown", (event) => {
      const frame = frameOf(event);
      if (!frame || (event.pointerType === "mouse" && event.button)) return;
      fingers.set(event.pointerId, event);
      if (fingers.size === 2) pinch = { far: apart(), z, frame };
      dragged = on ? { x: event.clientX, y: event.clientY, frame } : null;
    });
    window.addEventListener("pointermove", (event) => {
      if (!fingers.has(event.pointerId)) return;
      fingers.set(event.pointerId, event);
      if (pinch && fingers.size === 2) {
        const [a, b] = [...fingers.values()];
        const middle = { clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 };
        zoomTo((pinch.z * apart()) / Math.max(1, pinch.far), ...share(middle, pinch.frame));
      } else if (dragged) {
        const box = dragged.frame.getBoundingClientRect();
        move((event.clientX - dragged.x) / box.width, (event.clientY - dragged.y) / box.height);
        Object.assign(dragged, { x: event.clientX, y: event.clientY });
      }
    });
    const lift = (event) => { fingers.delete(event.pointerId); dragged = null; if (fingers.size < 2) pinch = null; };
    for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, lift);
    part.table.addEventListener("dblclick", (event) => { if (on && frameOf(event)) end(); });
    part.table.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const keys = { "+": () => zoomTo(z * 1.4), "=": () => zoomTo(z * 1.4), "-": () => zoomTo(z / 1.4), 0: end };
      if (!keys[event.key]) return;
      keys[event.key]();
      event.preventDefault();
    });
    button.addEventListener("click", () => { if (on) end(); else { on = true; tell(); } });

    // Pictures of a grid are of one size as a rule: the one under the cursor tells it.
    own.addEventListener("click", async () => {
      const { r, c } = grid.cursor();
      const record = grid.cellAt(r, c);
      if (record?.state !== "done") return;
      const img = new Image();
      img.src = grid.url(record, "full");
      try { await img.decode(); } catch { return; }
      const wanted = Math.max(img.naturalWidth, img.naturalHeight) / (window.devicePixelRatio || 1) / grid.pixels();
      if (wanted >= 1) zoomTo(wanted);
      else grid.setPixels(Math.round(wanted * grid.pixels()));
    });

    const watcher = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const cell = cellsOf.get(target);
        if (!isIntersecting || !target.isConnected) inSight.delete(cell);
        else { inSight.add(cell); place(cell); }
      }
    }, { root: part.box, rootMargin: "200px" });
    grid.onChange(() => {
      for (const cell of grid.cells()) {
        if (cellsOf.has(cell.frame)) continue;
        cellsOf.set(cell.frame, cell);
        watcher.observe(cell.frame);
        // a picture that arrives while zoomed in is shown as sharp as its neighbours
        cell.pan.addEventListener("load", () => { if (inSight.has(cell)) place(cell); }, true);
      }
      for (const cell of inSight) if (!cell.frame.isConnected) { inSight.delete(cell); watcher.unobserve(cell.frame); }
      soon();
    });
    grid.zoom = { get: () => ({ z, x, y }), set: (next) => { z = clamp(Number(next?.z) || 1, 1, MOST); x = Number(next?.x) || 0; y = Number(next?.y) || 0; on = z > 1; move(0, 0); } };
  };
})();
