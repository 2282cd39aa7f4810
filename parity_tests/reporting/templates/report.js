// Sorts a table by the column whose heading is selected. A cell's data-v is its number, where it has
// one; what has neither number nor text stays last either way.
const value = (cell) => {
  const text = cell.dataset.v ?? cell.textContent.trim();
  if (text === "") return null;
  const number = text === "inf" ? Infinity : Number(text);
  return Number.isNaN(number) ? text : number;
};
const order = (a, b) => {
  if (typeof a === "number" && typeof b === "number") return a === b ? 0 : a < b ? -1 : 1;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a.localeCompare(b, "en", { numeric: true });
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (button === null) return;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => [value(row.cells[column]), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return up ? order(a, b) : order(b, a);
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
// A link to a net opens its section.
const open = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  const details = target && target.querySelector("details");
  if (details) details.open = true;
};
addEventListener("hashchange", open);
open();
// A chart that is wider than the screen begins at its first divergence.
for (const mark of document.querySelectorAll("svg line.first")) {
  const box = mark.closest(".wide");
  const [x, width] = [Number(mark.getAttribute("x1")), mark.ownerSVGElement.viewBox.baseVal.width];
  box.scrollLeft = (x / width) * box.scrollWidth - box.clientWidth / 2;
}
