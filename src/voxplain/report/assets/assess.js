"use strict";
// A verdict in the matrix leads to its evidence, also where that is folded away.
(() => {
  function open() {
    const found = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const folded = found && found.closest("details");
    if (!folded || folded.open) return;
    folded.open = true;
    found.scrollIntoView();
  }
  window.addEventListener("hashchange", open);
  open();
})();
