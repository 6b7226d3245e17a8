// What a run is handed over as: `cmpShare()` -> {menu, told, set(address, checkpoint, label)}. First what would be in it, then as a file.
(() => {
  "use strict";

  const size = (bytes) => (bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

  // 16 pictures, the loss, the page
  const listed = (files) => {
    const counts = new Map();
    for (const { what } of files) counts.set(what, (counts.get(what) ?? 0) + 1);
    return [...counts].map(([what, count]) => (count > 1 ? `${count} × ${what.replace(/^an? /, "")}` : what)).join(", ");
  };

  window.cmpShare = () => {
    const { el, setText } = window.cmpDom;
    const told = el("p", { class: "cmp-pick-share", role: "status", hidden: "" });
    const list = el("div", { class: "cmp-menu" });
    const menu = el("details", { class: "cmp-export" }, el("summary", { class: "cmp-button", text: "Share" }), list);
    let [run, checkpoint] = ["", ""];
    let busy = false;

    const get = async (address) => {
      const answer = await fetch(address);
      if (answer.ok) return answer;
      const { detail } = await answer.json().catch(() => ({}));
      throw new Error([detail?.error, detail?.hint].filter(Boolean).join(". ") || `The server answered ${answer.status}.`);
    };

    const preview = async () => {
      const plan = await (await get(`${run}/page.json`)).json();
      return [`${plan.files.length} files, ${size(plan.bytes)}: ${listed(plan.files)}. No weights, no folder of yours.`, ...plan.notes].join(" Note: ");
    };

    const download = async (address) => {
      const answer = await get(address);
      const name = decodeURIComponent(/filename\*=UTF-8''([^;]+)/i.exec(answer.headers.get("Content-Disposition") || "")?.[1] ?? "share.zip");
      const url = URL.createObjectURL(await answer.blob());
      el("a", { href: url, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
      return `${name} is ready.`;
    };

    const item = (name, act) => {
      const button = el("button", { type: "button", class: "cmp-item", "data-share": name });
      button.addEventListener("click", async () => {
        menu.open = false;
        if (busy) return;
        busy = true;
        const label = button.textContent;
        setText(told, `${label}: being put together …`);
        try { setText(told, await act()); } catch (fault) { setText(told, `${label}: ${fault.message}`); }
        busy = false;
      });
      return button;
    };

    const what = item("preview", preview);
    const page = item("page", () => download(`${run}/page.zip`));
    const model = item("model", () => download(`${checkpoint}/model.zip`));
    setText(what, "What the page would hold");
    setText(page, "Page without weights (ZIP)");
    list.append(what, page, model);
    document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
    menu.addEventListener("keydown", (event) => { if (event.key === "Escape") { menu.open = false; menu.querySelector("summary").focus(); } });

    const set = (address, id, label) => {
      menu.hidden = !address;
      if (run && address !== run) setText(told, "");
      run = address;
      checkpoint = address ? `cmp/share/${encodeURIComponent(id).replaceAll("%2F", "/")}` : "";
      setText(model, label ? `LoRA of ${label} with its card (ZIP)` : "");
    };

    return { menu, told, set };
  };
})();
