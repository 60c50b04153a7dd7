// Sorts and filters the table of generations. Without this script the table is complete, in order.
const table = document.querySelector("#generations");
if (table) {
  const body = table.tBodies[0], rows = [...body.rows], controls = document.querySelector("#filter");
  const value = (row, i) => row.cells[i].dataset.value ?? row.cells[i].textContent;
  const compare = (a, b) => (a === "" || b === "" || isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    const button = head.querySelector("button");
    button.disabled = false;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((a, b) => (down ? -1 : 1) * compare(value(a, i), value(b, i)));
      body.append(...rows);
    });
  });
  const show = () => {
    const {method, least, most} = Object.fromEntries(new FormData(controls));
    for (const row of rows) {
      const score = value(row, 2);
      row.hidden = (method && value(row, 1) !== method) ||
        (least !== "" && !(score !== "" && +score >= +least)) ||
        (most !== "" && !(score !== "" && +score <= +most));
    }
    document.querySelector("#count").textContent = rows.filter(row => !row.hidden).length;
  };
  controls.hidden = false;
  controls.addEventListener("input", show);
  controls.addEventListener("submit", event => event.preventDefault());
  show();
}
