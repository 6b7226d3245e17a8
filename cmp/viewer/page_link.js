// The chosen tab of the page in its address, so that the browser's Back goes to the tab before, and a link opens the right one. What the tabs
// show adds its own parameters: `run`, `grid`, `view`.
(() => {
  "use strict";

  const tabs = () => [...document.querySelectorAll('.gradio-container [role="tab"]')].filter((tab) => tab.closest(".cmp-tabs"));
  const nameOf = (tab) => tab.textContent.trim().toLowerCase();
  const wanted = () => new URL(location).searchParams.get("tab");
  const open = (name) => {
    const tab = tabs().find((one) => nameOf(one) === name);
    if (tab && tab.getAttribute("aria-selected") !== "true") tab.click();
    return Boolean(tab);
  };

  document.addEventListener("click", (event) => {
    const tab = event.isTrusted && event.target.closest?.('[role="tab"]');
    if (!tab || !tab.closest(".cmp-tabs")) return;
    const at = new URL(location);
    if (at.searchParams.get("tab") === nameOf(tab)) return;
    at.searchParams.set("tab", nameOf(tab));
    history.pushState(null, "", at);
  }, true);
  window.addEventListener("popstate", () => open(wanted() || nameOf(tabs()[0] ?? { textContent: "" })));

  // The page is built after this script has run.
  const wait = (left) => { if (wanted() && !open(wanted()) && left) setTimeout(() => wait(left - 1), 100); };
  wait(300);
})();
