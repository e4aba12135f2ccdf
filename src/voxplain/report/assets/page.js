"use strict";
// Chooses the target that is shown and sorts tables. The page is complete without it.
(() => {
  document.documentElement.classList.add("js");
  const articles = [...document.querySelectorAll(".target")]; // of both sections
  const choice = document.getElementById("target");

  function show(index) {
    for (const article of articles) {
      article.classList.toggle("is-shown", Number(article.dataset.target) === index);
    }
    document.dispatchEvent(new CustomEvent("target", { detail: index }));
  }
  window.addEventListener("beforeprint", () => {
    document.querySelector("#provenance details").open = true;
  });
  choice.addEventListener("change", () => show(Number(choice.value)));
  show(Number(choice.value));

  function cell(row, column, kind) {
    const found = row.cells[column];
    if (kind === "text") return found.textContent;
    const value = Number.parseFloat(found.dataset.v);
    return Number.isNaN(value) ? -Infinity : value;
  }

  function sort(head) {
    const body = head.closest("table").tBodies[0];
    const column = head.cellIndex;
    const kind = head.dataset.sort;
    const wasDescending = head.getAttribute("aria-sort") === "descending";
    const isAscending = kind === "text" ? head.getAttribute("aria-sort") !== "ascending" : wasDescending;
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
    const order = kind === "text" ? new Intl.Collator(undefined, { numeric: true }).compare : (a, b) => a - b;
    const rows = [...body.rows].map((row) => [cell(row, column, kind), row]);
    rows.sort((a, b) => (isAscending ? 1 : -1) * order(a[0], b[0]));
    body.append(...rows.map(([, row]) => row));
  }
  for (const head of document.querySelectorAll("table.sortable th[data-sort]")) {
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(head));
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        sort(head);
      }
    });
  }
})();
