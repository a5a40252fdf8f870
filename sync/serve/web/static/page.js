// What pages can do besides, where scripts run. Nothing needs them.
"use strict";
(() => {
  const all = (what, in_ = document) => in_.querySelectorAll(what);
  const show = (in_) => { for (const e of all("[data-script]", in_)) e.hidden = false; };
  show();

  // What is folded and large comes packed, in a noscript element: a browser has
  // less to do until it shows the rest. It is unpacked when somebody wants it, or
  // when there is nothing else to do, so that searching the page finds it too.
  const unpack = (details) => {
    const e = details.querySelector(":scope > noscript");
    if (!e) return;
    e.insertAdjacentHTML("afterend", e.textContent);
    e.remove();
    show(details);
  };
  const packed = [...all("details > noscript")].map((e) => e.parentElement);
  for (const d of packed) {
    d.firstElementChild.addEventListener("click", () => unpack(d));
    d.addEventListener("toggle", () => unpack(d));
  }
  const idle = self.requestIdleCallback ?? ((fn) => setTimeout(fn, 50));
  const next = () => {
    if (!packed.length) return;
    unpack(packed.shift());
    idle(next);
  };
  addEventListener("load", () => idle(next));

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
  addEventListener("click", async (event) => {
    const b = event.target.closest?.("button.copy");
    if (!b) return;
    const code = b.parentElement.querySelector("code");
    const label = b.firstChild;
    const was = label.data;
    label.data = await copy(code.textContent, code);
    setTimeout(() => { label.data = was; }, 1500);
  });

  // Narrow a table down while its search field is typed in.
  for (const input of all("input[data-filter]")) {
    const table = document.getElementById(input.dataset.filter);
    if (!table) continue;
    const more = document.getElementById(input.dataset.filter + "-more"); // lines that are folded
    let rows, text;
    const read = () => {
      if (rows) return;
      if (more) unpack(more);
      rows = [...all("tbody tr", table), ...(more ? all("tbody tr", more) : [])];
      text = rows.map((r) => r.firstElementChild.textContent.toLowerCase());
    };
    const found = document.getElementById("found");
    const was = found?.textContent;
    const first = input.value;
    input.addEventListener("input", () => {
      read();
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const same = input.value === first;
      let n = 0;
      rows.forEach((r, i) => {
        r.hidden = !same && !words.every((w) => text[i].includes(w));
        if (!r.hidden) n++;
      });
      for (const t of new Set(rows.map((r) => r.closest(".scroll")))) t.hidden = !t.querySelector("tbody tr:not([hidden])");
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
    const id = decodeURIComponent(location.hash.slice(1));
    if (!id) return;
    if (!document.getElementById(id)) {
      const has = packed.find((d) => d.querySelector(":scope > noscript")?.textContent.includes(`id="${id}"`));
      if (has) unpack(has);
    }
    const e = document.getElementById(id);
    const d = e?.closest("details");
    if (!d || d.open) return;
    d.open = true;
    e.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();
})();
