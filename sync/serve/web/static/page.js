// What pages can do besides, where scripts run. Nothing needs them.
"use strict";
(() => {
  const all = (what, in_ = document) => in_.querySelectorAll(what);
  for (const e of all("[data-script]")) e.hidden = false;

  // Copy what stands before the button.
  const copy = async (text, code) => {
    try {
      await navigator.clipboard.writeText(text);
      return "Copied";
    } catch {
      getSelection().selectAllChildren(code); // no right to: the user can
      return "Selected";
    }
  };
  for (const b of all("button.copy")) {
    b.addEventListener("click", async () => {
      const code = b.parentElement.querySelector("code");
      const label = b.firstChild;
      const was = label.data;
      label.data = await copy(code.textContent, code);
      setTimeout(() => { label.data = was; }, 1500);
    });
  }

  // Narrow a table down while its search field is typed in.
  for (const input of all("input[data-filter]")) {
    const table = document.getElementById(input.dataset.filter);
    if (!table) continue;
    const more = document.getElementById(input.dataset.filter + "-more"); // lines that are folded
    const rows = [...all("tbody tr", table), ...(more ? all("tbody tr", more) : [])];
    const text = rows.map((r) => (r.dataset.find ?? r.firstElementChild.textContent).toLowerCase());
    const found = document.getElementById("found");
    const was = found?.textContent;
    const first = input.value;
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const same = input.value === first;
      let n = 0;
      rows.forEach((r, i) => {
        r.hidden = !same && !words.every((w) => text[i].includes(w));
        if (!r.hidden) n++;
      });
      if (more) more.open = !same;
      if (found) found.textContent = same ? was : `${n} of ${rows.length} lines shown${input.form ? "; Enter searches everything" : ""}`;
    });
  }

  // A choice is a search.
  for (const s of all("form[role=search] select")) s.addEventListener("change", () => s.form.requestSubmit());

  // "/" goes to the search field, as on many sites.
  addEventListener("keydown", (e) => {
    const at = document.activeElement;
    if (e.key !== "/" || e.ctrlKey || e.metaKey || e.altKey || at?.matches("input,select,textarea")) return;
    const q = document.getElementById("q");
    if (q && !q.closest("[hidden]")) {
      e.preventDefault();
      q.focus();
      q.select();
    }
  });

  // In a file, a link opens what it leads to.
  const open = () => {
    const e = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const d = e?.closest("details");
    if (!d || d.open) return;
    d.open = true;
    e.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();
})();
