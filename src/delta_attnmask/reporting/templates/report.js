"use strict";

// The gallery's filters. Cards beyond the first page wait hidden; without this script all of them are shown.
(() => {
  const form = document.getElementById("filters");
  if (!form) return;
  const pageSize = 24;
  const group = form.elements.namedItem("group");
  const [status, source, text] = ["status", "source", "text"].map((name) =>
    document.getElementById(`filter-${name}`),
  );
  const more = document.getElementById("more");
  const shown = document.getElementById("shown");
  const cards = Array.from(document.getElementById("cards").children, (element) => ({
    element,
    groups: element.dataset.groups.split(" "),
    text: element.textContent.toLowerCase(),
  }));
  let limit = pageSize;

  const fits = (card, wanted) =>
    (!group.value || card.groups.includes(group.value)) &&
    (!status.value || card.element.dataset.status === status.value) &&
    (source.value === "*" || card.element.dataset.source === source.value) &&
    card.text.includes(wanted);

  const show = () => {
    const wanted = text.value.trim().toLowerCase();
    const found = cards.filter((card) => fits(card, wanted));
    const visible = new Set(found.slice(0, limit));
    for (const card of cards) card.element.hidden = !visible.has(card);
    more.hidden = found.length <= limit;
    more.textContent = `Show ${Math.min(pageSize, found.length - limit)} more`;
    shown.textContent = found.length
      ? `${visible.size} of ${found.length} samples that fit`
      : "No sample fits. Take a filter away.";
  };
  const start = () => {
    limit = pageSize;
    show();
  };

  form.addEventListener("input", start);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const next = cards.filter((card) => !card.element.hidden).length;
    limit += pageSize;
    show();
    // The keyboard goes on at the first new card.
    const first = cards.filter((card) => !card.element.hidden)[next];
    if (first) {
      first.element.tabIndex = -1;
      first.element.focus({ preventScroll: true });
    }
  });
  addEventListener("beforeprint", () => {
    for (const card of cards) card.element.hidden = false;
  });
  addEventListener("afterprint", show);
  form.hidden = false;
  show();
})();
