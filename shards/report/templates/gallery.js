"use strict";
(() => {
  const form = document.getElementById("filter"), fields = ["survey", "class", "split", "text"];
  const samples = [...document.querySelectorAll(".gallery article")];
  const show = () => {
    const wanted = fields.map((name) => [name, form.elements[name].value.trim().toLowerCase()]);
    let shown = 0;
    for (const sample of samples) {
      sample.hidden = !wanted.every(([name, value]) => name === "text"
        ? sample.dataset.text.includes(value) : !value || sample.dataset[name].toLowerCase() === value);
      shown += !sample.hidden;
    }
    form.elements.shown.value = `${shown} of ${samples.length} samples shown`;
  };
  const follow = () => {
    const fragment = location.hash.slice(1), place = document.getElementById(fragment);
    const filter = !place && fragment.includes("=");
    if (!filter && !(place && place.hidden)) return show();
    const values = new URLSearchParams(filter ? fragment : "");
    for (const name of fields) form.elements[name].value = values.get(name) ?? "";
    for (const name of fields) if (form.elements[name].selectedIndex < 0) form.elements[name].value = "";
    show();
    (place ?? form).scrollIntoView();
  };
  form.addEventListener("input", () => {
    const values = new URLSearchParams(fields.map((name) => [name, form.elements[name].value]).filter(([, v]) => v));
    history.replaceState(null, "", `#${values}`);
    show();
  });
  form.addEventListener("reset", () => setTimeout(() => { history.replaceState(null, "", "#"); show(); }));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", follow);
  form.hidden = false;
  follow();
})();
