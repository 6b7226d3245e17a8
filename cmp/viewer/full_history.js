// The browser's way back closes the full view: `cmpFullHistory(close, settled)` -> {opened, closed}. Opening it is an entry of the history;
// closing it any other way takes the entry back. What the entry's address says is written in `view_link.js`.
(() => {
  "use strict";

  // Only a full view has changed then: who restores tab and grid from the address would go back to where they were when it was opened. This
  // script is loaded before those, and is so heard before them.
  const views = [];
  window.addEventListener("popstate", (event) => { if (views.some((isMine) => isMine())) event.stopImmediatePropagation(); });

  window.cmpFullHistory = (close, settled) => {
    let open = false;
    let entered = false; // an entry of ours is the present one
    let leaving = false; // it was asked to go, and the browser has not yet said that it has

    // A page in a frame may be forbidden to touch the history: then its way back is what it was.
    const enter = () => {
      try { history.pushState({ cmpFull: true }, ""); entered = true; } catch { /* see above */ }
    };

    const opened = () => {
      open = true;
      if (history.state?.cmpFull && !leaving) entered = true; // the page was loaded anew within it, or came forward to it
      else if (!entered && !leaving) enter();
    };

    const closed = () => {
      open = false;
      if (!entered) return;
      entered = false;
      if (!history.state?.cmpFull) return;
      leaving = true;
      history.back();
    };

    views.push(() => {
      if (!leaving && !entered) return false;
      if (!leaving) { entered = false; close(); }
      else if (open) enter(); // it was opened again meanwhile
      leaving = false;
      settled();
      return true;
    });
    return { opened, closed };
  };
})();
