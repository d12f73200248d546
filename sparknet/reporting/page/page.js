// What a page does besides being read: a cursor on each chart and, while a run trains, its updates.
"use strict";

const byId = (id) => document.getElementById(id);

// -- the cursor: its values are those of the table beneath --

function rowsOf(key) {
  return [...byId(`rows-${key}`).rows].filter((row) => row.cells[0].dataset.round);
}

function place(slider) {
  const rows = rowsOf(slider.dataset.chart);
  slider.hidden = rows.length < 2;
  if (slider.hidden) return;
  const atEnd = slider.value === slider.max;
  slider.min = rows[0].cells[0].dataset.round;
  slider.max = rows.at(-1).cells[0].dataset.round;
  if (atEnd) slider.value = slider.max;
  tell(slider, rows);
}

function tell(slider, rows = rowsOf(slider.dataset.chart)) {
  const distance = (row) => Math.abs(row.cells[0].dataset.round - slider.value);
  const row = rows.reduce((best, one) => (distance(one) < distance(best) ? one : best));
  const heads = [...row.closest("table").tHead.rows[0].cells].map((cell) => cell.textContent);
  const values = [...row.cells].slice(1).map((cell) => cell.textContent);
  const named = values.length > 1 ? values.map((value, i) => `${heads[i + 1]} ${value}`) : values;
  const round = `round ${row.cells[0].dataset.round}`;
  slider.setAttribute("aria-valuetext", `${round}: ${named.join(", ")}`);
  const [at, ...spans] = byId(`latest-${slider.dataset.chart}`).children;
  at.textContent = slider.matches(":hover, :focus-visible") && slider.value !== slider.max ? round : "";
  spans.forEach((span, i) => { span.textContent = named[i]; });
}

const sliders = [...document.querySelectorAll("input[data-chart]")];
for (const slider of sliders) {
  place(slider);
  slider.addEventListener("input", () => tell(slider));
  slider.addEventListener("pointermove", (event) => {
    const box = slider.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    slider.value = Number(slider.min) + share * (slider.max - slider.min);
    tell(slider);
  });
  const leave = () => { slider.value = slider.max; tell(slider); };
  slider.addEventListener("pointerleave", leave);
  slider.addEventListener("blur", leave);
}

// -- updates --

function update(fragments) {
  for (const [id, html] of Object.entries(fragments)) {
    if (id === "title") document.title = html;
    else if (byId(id)) byId(id).innerHTML = html;
  }
  sliders.forEach(place);
}

function follow() {
  const say = (text) => { byId("connection").textContent = text; };
  const source = new EventSource("events");
  let over = false; // a run that goes on later is found at the same address
  source.onopen = () => { over = false; say(""); };
  source.onerror = () => say(over ? "The run has ended." : "Not connected: trying again.");
  source.addEventListener("fragments", (event) => update(JSON.parse(event.data)));
  source.addEventListener("over", () => { over = true; say("The run has ended."); });
}

if ("live" in document.body.dataset) follow();
