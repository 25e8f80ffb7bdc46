"use strict";
(() => {
  const scenarios = [...document.querySelectorAll("details.scenario")];
  const chips = [...document.querySelectorAll(".chip[data-outcome], .chip[data-tag]")];
  const find = document.getElementById("find");
  const unfold = document.getElementById("unfold");
  const pressed = (kind) => chips.filter((c) => c.dataset[kind] && c.getAttribute("aria-pressed") === "true").map((c) => c.dataset[kind]);

  const apply = () => {
    const outcomes = pressed("outcome");
    const tags = pressed("tag");
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const scenario of scenarios) {
      const own = scenario.dataset.tags.split(" ");
      const match =
        (!outcomes.length || outcomes.includes(scenario.dataset.outcome)) &&
        tags.every((tag) => own.includes(tag)) &&
        words.every((word) => scenario.dataset.name.includes(word));
      scenario.hidden = !match;
      shown += match;
    }
    document.getElementById("nothing").hidden = shown > 0;
  };
  const toggle = (button) => button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));

  for (const chip of chips) {
    chip.addEventListener("click", () => {
      toggle(chip);
      apply();
    });
  }
  find.addEventListener("input", apply);
  unfold.addEventListener("click", () => {
    toggle(unfold);
    for (const scenario of scenarios) scenario.open = unfold.getAttribute("aria-pressed") === "true";
  });
  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  addEventListener("hashchange", open);
  open();
})();
