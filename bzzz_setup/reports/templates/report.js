"use strict";
// The page is whole without this; it adds filters, copying and folding.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const closed = () => all("details:not([open])");

  document.querySelector(".tools").hidden = false;
  document.querySelector(".tools").addEventListener("click", (event) => {
    const what = event.target.dataset.do;
    if (what === "print") window.print();
    else if (what) all("main details").forEach((one) => { one.open = what === "unfold"; });
  });

  let folded = [];
  addEventListener("beforeprint", () => { folded = closed(); folded.forEach((one) => { one.open = true; }); });
  addEventListener("afterprint", () => { folded.forEach((one) => { one.open = false; }); });

  const form = document.querySelector("form.filters");
  if (form) {
    const groups = all("details.checks").map((group) => ({ group, rows: all("tbody tr", group), text: null }));
    const show = () => {
      const wanted = new Set(all("input[name=status]:checked", form).map((box) => box.value));
      const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
      const node = form.elements.node ? form.elements.node.value : "";
      const narrow = words.length > 0 || node !== "" || wanted.size < all("input[name=status]", form).length;
      let shown = 0;
      for (const one of groups) {
        if (words.length && !one.text) one.text = one.rows.map((row) => row.textContent.toLowerCase());
        const here = node === "" || one.group.dataset.node === node;
        let some = 0;
        one.rows.forEach((row, index) => {
          const match = here && wanted.has(row.dataset.s) && words.every((word) => one.text[index].includes(word));
          if (row.hidden === match) row.hidden = !match;
          some += match;
        });
        one.group.hidden = !some;
        shown += some;
      }
      const there = groups.filter((one) => !one.group.hidden);
      if (narrow && there.length <= 8) there.forEach((one) => { one.group.open = true; });
      form.querySelector("output").value = narrow ? `${shown} shown` : "";
    };
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", show);
    show();
  }

  const copied = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const box = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(box);
      box.select();
      document.execCommand("copy");
      box.remove();
    }
  };
  for (const command of all(".command")) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "copy", textContent: "Copy" });
    const code = command.querySelector("code");
    button.setAttribute("aria-label", `Copy ${code.textContent}`);
    button.addEventListener("click", async () => {
      await copied(code.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    command.append(button);
  }
})();
