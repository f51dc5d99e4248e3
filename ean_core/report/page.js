"use strict";
// Sort a table by clicking a column title: ascending, descending, then the original order. Keep the columns that name
// a row in view when a table is scrolled.

// First number of the text, or the text itself in a column of words.
function key(cell) {
  const text = cell.textContent.trim();
  if (cell.classList.contains("word")) return text || null;
  const found = text.replaceAll(",", "").match(/[-+]?\d+(\.\d+)?( M\b)?/);
  return found ? parseFloat(found[0]) * (found[2] ? 1e6 : 1) : null;
}

for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], original = [...body.rows];
  table.querySelectorAll("th button").forEach((button, column) => {
    button.addEventListener("click", () => {
      const head = button.parentElement, before = head.getAttribute("aria-sort");
      table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
      const order = before === null ? "ascending" : before === "ascending" ? "descending" : null;
      if (order === null) { body.append(...original); return; }
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      body.append(...original.toSorted((one, other) => {
        const a = key(one.cells[column]), b = key(other.cells[column]);
        if (a === null || b === null) return (a === null) - (b === null); // empty cells come last
        return sign * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
      }));
    });
  });
}

// Let each kept column begin where the one before it ends, as long as they leave room for numbers.
function keep() {
  for (const table of document.querySelectorAll("table")) {
    const heads = [...table.querySelectorAll("th.kept")], room = 0.6 * table.parentElement.clientWidth;
    const ends = heads.map((head, k) => heads.slice(0, k + 1).reduce((sum, each) => sum + each.offsetWidth, 0));
    const fitting = Math.max(1, ends.filter(end => end <= room).length);
    for (const row of table.rows) {
      heads.forEach((head, k) => {
        const cell = row.cells[k];
        cell.style.left = `${ends[k] - head.offsetWidth}px`;
        cell.classList.toggle("loose", k >= fitting);
        cell.classList.toggle("edge", k === fitting - 1);
      });
    }
  }
}
keep();
addEventListener("resize", keep);
