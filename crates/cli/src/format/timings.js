
"use strict";
(() => {
  const detail = document.getElementById("detail");
  const rows = new Map();
  for (const row of document.querySelectorAll(".row[data-row]")) rows.set(row.dataset.row, row);
  const columns = Array.from(document.querySelectorAll("thead th"), (cell) => cell.textContent);
  // On narrow screens each cell stands on its own line and has to say what it is.
  for (const line of document.querySelectorAll("tbody tr")) {
    Array.from(line.cells).forEach((cell, at) => { if (at > 1) cell.dataset.label = columns[at]; });
  }
  const mark = (row, on) => {
    for (const input of row.dataset.inputs.split(" ")) {
      const found = rows.get(input);
      if (found) found.classList.toggle("is-input", on);
    }
  };
  let pinned = null;
  const pin = (row) => {
    if (pinned) { pinned.classList.remove("pinned"); mark(pinned, false); }
    pinned = pinned === row ? null : row;
    detail.hidden = !pinned;
    if (!pinned) return;
    pinned.classList.add("pinned");
    mark(pinned, true);
    const cells = document.getElementById("row-" + pinned.dataset.row).cells;
    const text = document.createElement("p");
    Array.from(cells).forEach((cell, at) => {
      if (at === 0 || cell.textContent === "") return;
      const name = document.createElement("b");
      name.textContent = at === 1 ? "" : columns[at] + ": ";
      text.append(name, cell.textContent.trim() + (at === 1 ? ". " : "; "));
    });
    detail.replaceChildren(text);
  };
  for (const row of rows.values()) {
    row.addEventListener("mouseenter", () => mark(row, true));
    row.addEventListener("mouseleave", () => { if (row !== pinned) mark(row, false); });
    row.addEventListener("click", (event) => { event.preventDefault(); pin(row); });
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && pinned) pin(pinned); });
  document.documentElement.dataset.ready = String(rows.size);
})();
