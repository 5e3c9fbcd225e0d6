"use strict";
// A click on a column's name sorts by it, a second one the other way; what has no number comes last both times.
for (const table of document.querySelectorAll("table.sortable")) {
  const names = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  names.forEach((name, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...name.childNodes);
    name.append(button);
    button.addEventListener("click", () => {
      const up = name.getAttribute("aria-sort") !== "ascending";
      names.forEach((other) => other.removeAttribute("aria-sort"));
      name.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => {
        const cell = row.cells[place];
        const key = cell.dataset.key;
        return { row, text: cell.textContent, number: key === undefined || key === "" ? NaN : Number(key.replace("inf", "Infinity")) };
      });
      rows.sort((a, b) => {
        const missing = Number.isNaN(a.number) - Number.isNaN(b.number);
        if (missing) return missing;
        const order = Number.isNaN(a.number) ? a.text.localeCompare(b.text, "en", { numeric: true }) : a.number === b.number ? 0 : a.number - b.number;
        return up ? order : -order;
      });
      body.append(...rows.map((entry) => entry.row));
    });
  });
}
// What is folded away belongs to a printed page.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach((folded) => { folded.open = true; });
});
addEventListener("afterprint", () => opened.forEach((folded) => { folded.open = false; }));
