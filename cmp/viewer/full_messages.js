// The page's own messages lie below the full view, where nobody sees them: `cmpFullMessages(say)` -> {listen, end} has it say them while it
// is open. Of a page without messages there is nothing to hear.
(() => {
  "use strict";

  const TEXTS = '.toast-wrap [data-testid="toast-text"]';
  const texts = () => [...document.querySelectorAll(TEXTS)].map((node) => node.textContent.trim()).filter(Boolean);

  window.cmpFullMessages = (say) => {
    let before = [];
    const watcher = new MutationObserver(() => {
      const now = texts();
      const fresh = now.filter((text) => !before.includes(text));
      before = now;
      if (fresh.length) say(fresh.join(" "));
    });
    const listen = () => {
      const place = document.querySelector(".toast-wrap");
      before = texts();
      if (place) watcher.observe(place, { childList: true, subtree: true, characterData: true });
    };
    return { listen, end: () => watcher.disconnect() };
  };
})();
