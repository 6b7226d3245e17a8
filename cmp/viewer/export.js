// The grid as files: a menu of what the server makes of it as it is arranged now. `cmpExport(grid)`; only where the value names an `export`.
(() => {
  "use strict";

  const FILES = [["sheet.png", "Sheet (PNG)"], ["sheet.webp", "Sheet (WebP)"], ["cells.zip", "Pictures and a table (ZIP)"], ["grid.html", "This page, offline (HTML)"],
    ["steps.gif", "Animation over the steps (GIF)"], ["steps.webp", "Animation over the steps (WebP)"]];
  const SAVED = ["place", "order", "hidden", "pick"];

  const nameIn = (answer, otherwise) => {
    const told = answer.headers.get("Content-Disposition") || "";
    const coded = /filename\*=UTF-8''([^;]+)/i.exec(told);
    try { if (coded) return decodeURIComponent(coded[1]); } catch { /* the plain one then */ }
    return /filename="([^"]+)"/.exec(told)?.[1] || otherwise;
  };

  window.cmpExport = (grid) => {
    const { dom } = grid;
    const { el } = dom;
    const list = el("div", { class: "cmp-menu", role: "menu" });
    const told = el("p", { class: "cmp-export-told", role: "status", hidden: "" });
    const menu = el("details", { class: "cmp-export" }, el("summary", { class: "cmp-button", text: "Export" }), list);
    grid.part.more.append(menu);
    grid.part.under.append(told);
    let busy = false;

    const address = (file) => {
      const view = Object.fromEntries(SAVED.filter((name) => grid.view()[name]).map((name) => [name, grid.view()[name]]));
      const [path, asked] = grid.value().export.split("?");
      return `${path}/${file}?${asked ? `${asked}&` : ""}view=${encodeURIComponent(JSON.stringify(view))}`;
    };

    const save = (blob, name) => {
      const url = URL.createObjectURL(blob);
      el("a", { href: url, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    };

    const fetchFile = async (file) => {
      const answer = await fetch(address(file));
      if (!answer.ok) {
        const { detail } = await answer.json().catch(() => ({}));
        throw new Error([detail?.error, detail?.hint].filter(Boolean).join(". ") || `The server answered ${answer.status}.`);
      }
      const name = nameIn(answer, file);
      save(await answer.blob(), name);
      return [`${name} is ready.`, answer.headers.get("X-Cmp-Notes")].filter(Boolean).join(" ");
    };

    const make = async (file, label) => {
      menu.open = false;
      if (busy) return;
      busy = true;
      dom.setText(told, `${label}: being made …`);
      try { dom.setText(told, await fetchFile(file)); } catch (fault) { dom.setText(told, `${label}: ${fault.message}`); }
      busy = false;
    };

    list.append(...FILES.map(([file, label]) => el("button", { type: "button", role: "menuitem", class: "cmp-item", "data-file": file, text: label, click: () => make(file, label) })));
    // Where the bar has wrapped the button may stand at its left end.
    menu.addEventListener("toggle", () => {
      list.classList.remove("opens-right");
      list.classList.toggle("opens-right", list.getBoundingClientRect().left < grid.part.under.parentElement.getBoundingClientRect().left);
    });
    document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
    menu.addEventListener("keydown", (event) => { if (event.key === "Escape") { menu.open = false; menu.querySelector("summary").focus(); event.stopPropagation(); } });
    grid.onChange(() => {
      const { export: there, step_axis } = grid.value();
      menu.hidden = !there;
      const steps = grid.arranged().axes.find((axis) => axis.key === step_axis)?.shown.length ?? 0;
      for (const item of list.children) item.hidden = item.dataset.file.startsWith("steps") && steps < 2;
    });
  };
})();
