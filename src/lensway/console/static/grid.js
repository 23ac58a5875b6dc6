// The matrix as a grid by the ARIA pattern: one cell is in the tab order, arrow keys move, Enter opens the row's source.

const rows = document.getElementById("rows");
const cells = () => [...(rows.querySelector("#matrix tbody")?.rows ?? [])].map((row) => [...row.cells].slice(1));
let at = "";

/** The cell that Tab leads to: the one last visited, or the first. Updates may have put others in its place. */
function settle() {
  const all = cells().flat();
  const stop = all.find((cell) => cell.id === at) ?? all[0];
  for (const cell of all) if (cell.tabIndex !== (cell === stop ? 0 : -1)) cell.tabIndex = cell === stop ? 0 : -1;
}

rows.addEventListener("keydown", (event) => {
  const cell = event.target.closest?.("#matrix td");
  if (!cell) return;
  const all = cells(), row = all.findIndex((each) => each.includes(cell)), column = all[row].indexOf(cell);
  const last = all[row].length - 1;
  const next = {
    ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
    Home: [event.ctrlKey ? 0 : row, 0], End: [event.ctrlKey ? all.length - 1 : row, last],
    PageUp: [Math.max(0, row - 10), column], PageDown: [Math.min(all.length - 1, row + 10), column],
  }[event.key];
  if (event.key === "Enter") cell.closest("tr").querySelector("th a").click();
  if (!next) return;
  event.preventDefault();
  all[next[0]]?.[next[1]]?.focus();
});
rows.addEventListener("focusin", (event) => {
  if (event.target.matches?.("#matrix td")) { at = event.target.id; settle(); }
});
new MutationObserver(settle).observe(rows, { childList: true, subtree: true });
settle();
