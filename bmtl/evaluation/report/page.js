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
// Values of the pictures: what is next to the pointer, read back from where it is drawn and the limits of its axes.
const REACH = 12;
const hover = document.createElement("div");
hover.id = "hover";
hover.hidden = true;
hover.setAttribute("role", "status");
document.body.append(hover);
const points = new WeakMap();
function pointsOf(curve) {
  if (!points.has(curve)) {
    const path = curve.querySelector(":scope > path, :scope > g > path");
    const numbers = (path ? path.getAttribute("d").match(/-?[\d.]+/g) ?? [] : []).map(Number);
    const found = [];
    for (let k = 0; k + 1 < numbers.length; k += 2) found.push([numbers[k], numbers[k + 1]]);
    for (const use of curve.querySelectorAll("use")) found.push([Number(use.getAttribute("x")), Number(use.getAttribute("y"))]);
    points.set(curve, found);
  }
  return points.get(curve);
}
function valueAt(place, from, to, given) {
  const [low, high, scale] = given.split(" ");
  const share = (place - from) / (to - from);
  const value = scale === "log" ? Number(low) * (Number(high) / Number(low)) ** share : Number(low) + share * (high - low);
  const resolution = scale === "log" ? Math.abs(value) / 100 : Math.abs(high - low) / 400;
  const digits = Math.max(0, Math.min(12, Math.ceil(-Math.log10(resolution))));
  return Number.isFinite(digits) ? String(Number(value.toFixed(digits))) : String(value);
}
function nearest(svg, x, y) {
  let best = null;
  for (const axes of svg.querySelectorAll(".axes[data-box]")) {
    const [left, bottom, right, top] = axes.dataset.box.split(" ").map(Number);
    if (x < left - REACH || x > right + REACH || y > bottom + REACH || y < top - REACH) continue;
    for (const curve of axes.querySelectorAll(".curve")) {
      for (const [px, py] of pointsOf(curve)) {
        const distance = Math.hypot(px - x, py - y);
        if (distance > (best?.distance ?? REACH) || px < left - 1 || px > right + 1 || py > bottom + 1 || py < top - 1) continue;
        const said = [curve.dataset.name];
        if (axes.dataset.x) said.push(`x: ${valueAt(px, left, right, axes.dataset.x)}`);
        if (axes.dataset.y) said.push(`y: ${valueAt(py, bottom, top, axes.dataset.y)}`);
        best = { distance, text: said.join("\n") };
      }
    }
  }
  return best?.text;
}
function show(event) {
  const svg = event.target.closest?.(".picture svg");
  if (!svg) { hover.hidden = true; return; }
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  const text = event.target.closest("[data-text]")?.dataset.text ?? nearest(svg, at.x, at.y);
  hover.hidden = !text;
  if (!text) return;
  hover.textContent = text;
  const side = event.clientX > innerWidth / 2 ? -hover.offsetWidth - 14 : 14;
  hover.style.left = `${event.clientX + scrollX + side}px`;
  hover.style.top = `${event.clientY + scrollY + 14}px`;
}
addEventListener("pointermove", show);
addEventListener("pointerdown", show);
// What is folded away belongs to a printed page.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach((folded) => { folded.open = true; });
});
addEventListener("afterprint", () => opened.forEach((folded) => { folded.open = false; }));
