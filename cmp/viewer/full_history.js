// The browser's way back closes the full view: `cmpFullHistory(close, settled)` -> {opened, closed}. Opening it is an entry of the history with
// the page's own address; closing it any other way takes the entry back. What the address says about the grid is changed by neither.
(() => {
  "use strict";

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
      if (!entered && !leaving) enter();
    };

    const closed = () => {
      open = false;
      if (!entered) return;
      entered = false;
      if (!history.state?.cmpFull) return;
      leaving = true;
      history.back();
    };

    window.addEventListener("popstate", (event) => {
      if (!leaving && !entered) return;
      // Only the full view has changed: who restores tab and grid from the address would go back to where they were when it was opened.
      event.stopImmediatePropagation();
      if (!leaving) { entered = false; close(); }
      else if (open) enter(); // it was opened again meanwhile
      leaving = false;
      settled();
    }, true); // before all who restore something
    return { opened, closed };
  };
})();
