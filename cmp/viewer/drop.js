// A file that is dropped anywhere on a part of the page goes to the one file input in it: the part has the class `cmp-drop-zone`, and
// what holds the input `cmp-drop-input`.
(() => {
  "use strict";

  const zoneOf = (event) => {
    const zone = event.dataTransfer?.types.includes("Files") ? event.target.closest?.(".cmp-drop-zone") : null;
    const input = zone?.querySelector(".cmp-drop-input input[type=file]");
    return input ? { zone, input } : null;
  };

  const leave = () => document.querySelectorAll(".cmp-drop-zone.is-over").forEach((zone) => zone.classList.remove("is-over"));

  document.addEventListener("dragover", (event) => {
    const found = zoneOf(event);
    if (!found) return;
    event.preventDefault();
    found.zone.classList.add("is-over");
  });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) leave(); });
  document.addEventListener("drop", (event) => {
    leave();
    const found = zoneOf(event);
    if (!found) return;
    event.preventDefault();
    const carried = new DataTransfer();
    carried.items.add(event.dataTransfer.files[0]);
    found.input.files = carried.files;
    found.input.dispatchEvent(new Event("change", { bubbles: true }));
  });
})();
