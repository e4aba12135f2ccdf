"use strict";
// Rows of the table choose the lesion; the method's numbers and pictures are shown alone.
(() => {
  const choice = document.getElementById("target");
  const table = document.getElementById("lesions-table");
  const method = document.getElementById("method");
  if (!choice || !table) return;
  const body = table.tBodies[0];

  function choose(row) {
    choice.value = row.dataset.lesion;
    choice.dispatchEvent(new Event("change"));
  }

  function mark(index) {
    for (const row of body.rows) {
      const isChosen = Number(row.dataset.lesion) === index;
      row.tabIndex = isChosen ? 0 : -1;
      if (isChosen) {
        row.setAttribute("aria-current", "true");
        const roll = table.parentNode; // the page itself must not jump
        const top = row.offsetTop - table.tHead.offsetHeight;
        const bottom = row.offsetTop + row.offsetHeight - roll.clientHeight;
        roll.scrollTop = Math.max(bottom, Math.min(top, roll.scrollTop));
      } else {
        row.removeAttribute("aria-current");
      }
    }
  }

  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) choose(row);
  });
  const steps = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" };
  body.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr");
    const next = { Home: body.rows[0], End: body.rows[body.rows.length - 1] }[event.key]
      || (steps[event.key] && row[steps[event.key]]);
    if (!next) return;
    event.preventDefault();
    choose(next);
    next.focus({ preventScroll: true });
  });
  document.addEventListener("target", (event) => mark(event.detail));
  mark(Number(choice.value));

  if (method) {
    const show = () => {
      for (const element of document.querySelectorAll("[data-method]")) {
        element.hidden = element.dataset.method !== method.value;
      }
    };
    method.addEventListener("change", show);
    show();
  }
})();
