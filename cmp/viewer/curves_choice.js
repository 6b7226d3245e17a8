// What is shown: `cmpCurveChoice` -> {chartsOf, runsOf, settingsOf(run), keepSettings(run, settings), keepRuns(runs)}. The browser remembers the
// settings of each run, and the runs that were shown last.
(() => {
  "use strict";

  const { remember, recall } = window.cmpDom;
  const kept = (name, otherwise) => { try { return JSON.parse(recall(name, "")) || otherwise; } catch { return otherwise; } };

  const settingsOf = (run) => kept(`cmp.curves ${run}`, {});
  const keepSettings = (run, settings) => remember(`cmp.curves ${run}`, JSON.stringify(settings));
  const keepRuns = (runs) => remember("cmp.curves.runs", JSON.stringify(runs));

  // The charts from top to bottom: what was chosen, the differences of runs with the same noise, what was pinned; `alone` is the first of them.
  const chartsOf = ({ settings, runs, pairs, labelOf, alone }) => {
    const top = [{ key: `tag ${settings.tag}`, tag: settings.tag, title: settings.tag || "Training loss" }];
    if (alone) return top;
    const first = pairs.find((pair) => pair.compare && runs.includes(pair.first) && runs.includes(pair.second))?.first;
    const others = first === undefined ? [] : runs.filter((run) => pairs.some((pair) => pair.compare && pair.first === first && pair.second === run));
    if (others.length && !settings.tag) top.push({ key: `minus ${first}`, tag: "", minus: first, only: others, title: `Difference: others minus ${labelOf(first)}`, zero: true });
    return [...top, ...settings.pins.filter((tag) => tag !== settings.tag).map((tag) => ({ key: `tag ${tag}`, tag, title: tag || "Training loss", pinned: true }))];
  };

  // The runs that a value wants to see: those it names, else those of the page's address, else those shown now or at the last visit, else the
  // usual one, else the first.
  const runsOf = (value, shown, isNew) => {
    const list = (value.runs || []).map((one) => one.run);
    const exists = (run) => list.includes(run);
    if (value.chosen?.length) return value.chosen;
    const linked = isNew && !value.compact ? (window.cmpRunLink?.opened ?? []).filter(exists) : [];
    const there = (shown.length || value.compact ? shown : [].concat(kept("cmp.curves.runs", []))).filter(exists);
    return [linked, there, exists(value.usual) ? [value.usual] : [], list.slice(0, 1)].find((runs) => runs.length) ?? [];
  };

  window.cmpCurveChoice = { chartsOf, runsOf, settingsOf, keepSettings, keepRuns };
})();
