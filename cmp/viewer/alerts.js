// Alerts above the page: what the server has found of runs in training and of jobs. It is asked every few seconds while the page is in view.
// What was dismissed stays so in this browser.
(() => {
  "use strict";

  const EVERY = 10000; // ms between two looks
  const MOST = 3; // bars at a time; the rest come up as these are dismissed
  const KEPT = 200; // dismissed ids that are remembered
  const NAME = "cmp-alerts-dismissed";

  const { el, remember, recall } = window.cmpDom;
  const dismissed = () => {
    try { return JSON.parse(recall(NAME, "[]")).filter((id) => typeof id === "string"); } catch { return []; }
  };

  const moment = (at) => {
    const time = new Date(at);
    return Number.isNaN(time.getTime()) ? "" : time.toLocaleString([], { dateStyle: "short", timeStyle: "short" });
  };

  window.cmpAlerts = (mount) => {
    let alerts = [];
    let gone = new Set(dismissed());
    const list = el("div", { class: "cmp-alerts", role: "status", "aria-live": "polite", "aria-label": "Alerts" });
    mount.replaceChildren(list);

    const dismiss = (ids) => {
      gone = new Set([...dismissed(), ...gone, ...ids].slice(-KEPT));
      remember(NAME, JSON.stringify([...gone]));
      show();
    };

    const bar = (alert) => el("div", { class: `cmp-alert${alert.severe ? " is-severe" : ""}`, "data-id": alert.id },
      el("span", { class: "cmp-alert-sign", "aria-hidden": "true", text: alert.severe ? "!" : "✓" }),
      el("span", { class: "cmp-alert-text" },
        el("strong", { text: alert.what }), " ", el("span", { text: alert.hint })),
      el("time", { class: "cmp-alert-time", datetime: alert.at ?? "", text: moment(alert.at) }),
      el("button", { type: "button", "aria-label": `Dismiss: ${alert.what}`, title: "Dismiss", text: "×", click: () => dismiss([alert.id]) }));

    const rest = (left) => el("div", { class: "cmp-alert is-rest" },
      el("span", { class: "cmp-alert-text", text: `and ${left.length} more` }),
      el("button", { type: "button", class: "is-word", text: "Dismiss all", click: () => dismiss(alerts.map((alert) => alert.id)) }));

    // What is shown already is not drawn again: the keyboard may be on its button, and nobody wants it read out twice.
    const show = () => {
      const open = alerts.filter((alert) => !gone.has(alert.id));
      const shown = open.slice(0, MOST);
      const known = new Map([...list.querySelectorAll("[data-id]")].map((node) => [node.dataset.id, node]));
      const nodes = shown.map((alert) => known.get(alert.id) ?? bar(alert));
      if (open.length > MOST) nodes.push(rest(open.slice(MOST)));
      window.cmpDom.place(list, nodes);
    };

    const look = async () => {
      if (!mount.isConnected) return;
      if (!document.hidden) {
        try {
          const answer = await fetch("cmp/alerts", { headers: { Accept: "application/json" } });
          if (answer.ok) alerts = (await answer.json()).alerts ?? [];
          show();
        } catch { /* the server is away for a moment: what is shown stays */ }
      }
      setTimeout(look, EVERY);
    };
    document.addEventListener("visibilitychange", () => { if (!document.hidden) show(); });
    look();
    return { update: () => {} };
  };
})();
