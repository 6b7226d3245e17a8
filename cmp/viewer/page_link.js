// The chosen tab of the page in its address, so that the browser's Back goes to the tab before, and a link opens the right one:
// `cmpTabLink(name)`; and the runs that it shows, as one parameter `run` for each, the chosen one first: `cmpRunLink` -> {opened, beside,
// compared, named, write}. What else the tabs show
// adds its own parameters: `samples`, `grid`, `view`.
(() => {
  "use strict";

  const TAB = '.cmp-tabs [role="tab"]';
  const tabs = () => [...document.querySelectorAll(TAB)];
  const nameOf = (tab) => tab.textContent.trim().toLowerCase();
  const wanted = () => new URL(location).searchParams.get("tab");
  const open = (name) => {
    const tab = tabs().find((one) => nameOf(one) === name);
    const isOpen = tab?.getAttribute("aria-selected") === "true";
    if (tab && !isOpen) tab.click();
    return isOpen;
  };

  document.addEventListener("click", (event) => {
    const tab = event.isTrusted && event.target.closest?.(TAB);
    if (!tab) return;
    const at = new URL(location);
    if (at.searchParams.get("tab") === nameOf(tab)) return;
    at.searchParams.set("tab", nameOf(tab));
    history.pushState(null, "", at);
  }, true);
  const first = () => nameOf(tabs()[0] ?? { textContent: "" });
  window.addEventListener("popstate", () => open(wanted() || first()));

  // A tab that the page itself has opened, after a click elsewhere in it: a new entry as well. Nobody has clicked while the page is made.
  let isTouched = false;
  for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, (event) => { isTouched ||= event.isTrusted; }, true);
  window.cmpTabLink = (name) => {
    if (!isTouched || (wanted() || first()) === name) return;
    const at = new URL(location);
    at.searchParams.set("tab", name);
    history.pushState(null, "", at);
  };

  const all = () => new URL(location).searchParams.getAll("run").filter(Boolean);
  let known = false; // the address has been brought in line once
  let restoring = all().length > 0; // what it names beside the chosen run is still to be shown

  // With `enters`, another chosen run is a new entry of the history, with "each" any other choice of runs. All else changes the present one.
  const write = (runs, enters = false) => {
    const before = all();
    if (!runs[0]) return;
    const isNew = enters && known && before.length && (enters === "each" || before[0] !== runs[0]);
    known = true;
    restoring = false;
    if (JSON.stringify(before) === JSON.stringify(runs)) return;
    const at = new URL(location);
    at.searchParams.delete("run");
    for (const run of runs) at.searchParams.append("run", run);
    history[isNew ? "pushState" : "replaceState"](history.state, "", at);
  };

  // The runs that the address names beside the chosen one, a line each after a first line that says so; "" where it has nothing to say.
  const beside = (run) => {
    if (!restoring || all()[0] !== run) return "";
    restoring = false;
    return ["beside", ...all().slice(1)].join("\n");
  };

  // The runs that a link to Compare names, a line each; "" after the first time, and where the page was opened otherwise.
  const comparing = wanted() === "compare" ? all() : [];
  const compared = () => comparing.splice(0).join("\n");

  // At once, and not when the server has answered: what is arranged meanwhile belongs to this run.
  document.addEventListener("click", (event) => {
    const row = event.isTrusted && event.target.closest?.("#runs-table tr[data-key]");
    if (row && row.dataset.key !== all()[0]) write([row.dataset.key], true);
  }, true);
  // The runs that the address names for a tab, none where it speaks of another.
  const named = (tab) => (wanted() === tab ? all() : []);
  window.cmpRunLink = { opened: all(), beside, compared, named, write };
  window.addEventListener("popstate", () => {
    const run = all()[0];
    if (!run || !["runs", null].includes(wanted())) return;
    const row = document.querySelector(`#runs-table tr[data-key="${CSS.escape(run)}"]`);
    if (!row || row.classList.contains("is-ticked")) return;
    restoring = true;
    row.click();
  });

  // The page is built after this script has run.
  const wait = (left) => { if (wanted() && !open(wanted()) && left) setTimeout(() => wait(left - 1), 100); };
  wait(300);
})();
