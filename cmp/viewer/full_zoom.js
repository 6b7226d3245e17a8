// Zoom and gestures of the full view: `cmpFullZoom(stage, {views, size, told, swipe, press, drag, release, point})` -> {apply, next, by, fit, pan,
// get, set, isFit, says}. One zoom for all pictures that are compared: `views()` are the frames that they lie in, `size()` their common size in pixels.
// The wheel and two fingers zoom, dragging moves, a double click goes to 1:1 and back. What a drag means while the whole picture is in
// view, `press` decides; a stroke of the finger is told to `swipe`.
(() => {
  "use strict";

  const MOST = 32; // pixels of the screen for one of the picture
  const FAR = 36; // a shorter stroke of the finger is a tap
  const BEYOND = { 1: 2, 2: 4, 4: 8 };

  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

  window.cmpFullZoom = (stage, hooks) => {
    const fingers = new Map();
    let scale = null; // pixels of the page for one of the picture; null fits the whole into the frame
    let middle = { x: 0.5, y: 0.5 }; // the point of the picture that lies in the middle of the frame
    let held = null;
    let pinch = null;

    const dpr = () => window.devicePixelRatio || 1;
    const frame = () => { const view = hooks.views()[0]; return view ? { w: view.clientWidth, h: view.clientHeight } : { w: 0, h: 0 }; };

    // Small pictures grow by whole factors, so that all their pixels stay equally large.
    const fitting = () => {
      const [{ w, h }, { width, height }] = [frame(), hooks.size()];
      const scale = Math.min(w / width, h / height) || 1;
      return scale >= 2 ? Math.floor(scale) : scale;
    };
    const now = () => scale ?? fitting();

    const along = (room, length, at) => (length <= room ? (room - length) / 2 : clamp(room / 2 - at * length, room - length, 0));

    // Where the picture lies in a frame: its left upper corner and its size there.
    const lie = () => {
      const [{ w, h }, { width, height }, s] = [frame(), hooks.size(), now()];
      return { x: along(w, width * s, middle.x), y: along(h, height * s, middle.y), w: width * s, h: height * s, scale: s };
    };

    const apply = () => {
      const at = lie();
      if (!hooks.size().width) return at;
      for (const view of hooks.views()) for (const world of view.querySelectorAll(".cmp-world")) {
        world.style.width = `${at.w}px`;
        world.style.height = `${at.h}px`;
        world.style.transform = `translate(${at.x}px, ${at.y}px)`;
        const img = world.firstElementChild;
        const own = img?.naturalWidth || img?.width;
        if (own) img.style.imageRendering = Math.min(at.w / own, at.h / (img.naturalHeight || img.height)) >= 2 ? "pixelated" : "auto";
      }
      return at;
    };

    const settle = () => { apply(); hooks.told(); };

    // `px`, `py`: the point of the frame under which the picture stays where it is.
    const zoomTo = (wanted, px = frame().w / 2, py = frame().h / 2) => {
      const before = lie();
      const [u, v] = [(px - before.x) / before.w, (py - before.y) / before.h];
      const least = Math.min(fitting(), 1 / dpr());
      scale = clamp(wanted, least, MOST / dpr());
      const [{ w, h }, { width, height }] = [frame(), hooks.size()];
      middle = { x: u + (w / 2 - px) / (width * scale), y: v + (h / 2 - py) / (height * scale) };
      keepInside();
      settle();
    };
    const keepInside = () => {
      const at = lie();
      const { w, h } = frame();
      middle = { x: (w / 2 - at.x) / at.w, y: (h / 2 - at.y) / at.h };
    };

    const fit = () => { scale = null; middle = { x: 0.5, y: 0.5 }; settle(); };
    const isWhole = () => { const at = lie(); const { w, h } = frame(); return at.w <= w + 1 && at.h <= h + 1; };
    const pan = (dx, dy) => {
      const at = lie();
      middle = { x: middle.x - dx / at.w, y: middle.y - dy / at.h };
      keepInside();
      settle();
    };

    // fit, 1:1, 2×, 4×, 8×, and fit again
    const next = (px, py) => {
      const times = Math.round(100 * (scale ?? 0) * dpr()) / 100;
      if (scale === null) return zoomTo(1 / dpr(), px, py);
      return BEYOND[times] ? zoomTo(BEYOND[times] / dpr(), px, py) : fit();
    };
    const by = (factor, px, py) => {
      const wanted = now() * factor;
      if (factor < 1 && now() >= fitting() && wanted <= fitting()) return fit();
      return zoomTo(wanted, px, py);
    };

    const inFrame = (event) => {
      const view = hooks.views().find((one) => one.contains(event.target)) ?? hooks.views()[0];
      const box = view.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const ignores = (event) => !hooks.views().length || event.target.closest("button, [role=slider], select, input, a");

    stage.addEventListener("wheel", (event) => {
      if (ignores(event)) return;
      event.preventDefault();
      by(Math.exp(-clamp(event.deltaY, -120, 120) / 300), ...inFrame(event));
    }, { passive: false });

    const spread = () => { const [a, b] = [...fingers.values()]; return Math.max(1, Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY)); };
    const between = () => { const [a, b] = [...fingers.values()]; return { clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2, target: a.target }; };

    const drop = () => { if (held?.taken) hooks.release?.(); held = null; };

    stage.addEventListener("pointerdown", (event) => {
      if (ignores(event) || (event.pointerType === "mouse" && event.button)) return;
      fingers.set(event.pointerId, event);
      if (fingers.size === 2) {
        drop();
        pinch = { far: spread(), scale: now(), at: between() };
      } else {
        const whole = isWhole();
        held = { x: event.clientX, y: event.clientY, from: event, whole, taken: whole && Boolean(hooks.press?.(event, inFrame(event))) };
      }
    });

    const pinched = () => {
      const at = between();
      pan(at.clientX - pinch.at.clientX, at.clientY - pinch.at.clientY);
      pinch.at = at;
      const wanted = (pinch.scale * spread()) / pinch.far;
      if (wanted <= fitting()) fit();
      else zoomTo(wanted, ...inFrame(at));
    };

    window.addEventListener("pointermove", (event) => {
      if (!fingers.has(event.pointerId)) return void (stage.contains(event.target) && hooks.views().length && hooks.point?.(inFrame(event)));
      fingers.set(event.pointerId, event);
      if (pinch && fingers.size === 2) return void pinched();
      if (!held) return;
      if (held.taken) hooks.drag?.(inFrame({ clientX: event.clientX, clientY: event.clientY, target: held.from.target }));
      else if (!held.whole) { pan(event.clientX - held.x, event.clientY - held.y); Object.assign(held, { x: event.clientX, y: event.clientY }); }
    });

    const stroke = (event) => {
      const [dx, dy] = [event.clientX - held.x, event.clientY - held.y];
      if (event.pointerType === "mouse" || Math.max(Math.abs(dx), Math.abs(dy)) < FAR) return;
      if (Math.abs(dx) > Math.abs(dy)) hooks.swipe(0, dx < 0 ? 1 : -1);
      else hooks.swipe(dy < 0 ? 1 : -1, 0);
    };
    const lift = (event) => {
      if (!fingers.delete(event.pointerId)) return;
      if (held && held.whole && !held.taken && event.type === "pointerup") stroke(event);
      drop();
      if (fingers.size < 2) pinch = null;
    };
    for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, lift);
    stage.addEventListener("dblclick", (event) => {
      if (ignores(event)) return;
      if (scale === null) zoomTo(1 / dpr(), ...inFrame(event));
      else fit();
    });

    const says = () => `${scale === null ? "Fit · " : ""}${Math.round(100 * now() * dpr())} %`;
    // How far and where, null while the whole is in the frame; and back there, with whatever an address says.
    const get = () => (scale === null ? null : [scale, middle.x, middle.y].map((number) => Number(number.toFixed(4))));
    const set = (told) => {
      if (!Array.isArray(told) || told.length !== 3 || !told.every(Number.isFinite)) return void fit();
      scale = clamp(told[0], 0.01, MOST / dpr());
      middle = { x: clamp(told[1], 0, 1), y: clamp(told[2], 0, 1) };
      settle();
    };
    return { apply, lie, next, by, fit, pan, get, set, isWhole, says, isFit: () => scale === null };
  };
})();
