// Draws the charts, and looks up the plan that the sliders name: nothing is computed here.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const charts = read("charts");
const drawn = [...document.querySelectorAll("[data-chart]")].map((place) =>
  window.vegaEmbed(place, charts[place.dataset.chart], { renderer: "svg", actions: false, hover: false }),
);
Promise.all(drawn).then(() => document.documentElement.setAttribute("data-drawn", String(drawn.length)));

// What is folded to be brief on the screen is whole on paper.
const folded = [...document.querySelectorAll("details[data-print]")];
addEventListener("beforeprint", () => folded.forEach((d) => (d.open = true)));
addEventListener("afterprint", () => folded.forEach((d) => (d.open = false)));

const grid = read("what-if-data");
if (grid) {
  const panel = document.getElementById("what-if-panel");
  const sliders = grid.axes.map((_, i) => document.getElementById(`axis-${i}`));
  const show = () => {
    let place = 0;
    grid.axes.forEach((axis, i) => {
      const at = Number(sliders[i].value);
      const text = axis.unit && axis.unit !== "s" ? `${axis.texts[at]} ${axis.unit}` : axis.texts[at];
      document.getElementById(`axis-${i}-text`).textContent = text;
      sliders[i].setAttribute("aria-valuetext", text);
      place = place * axis.texts.length + at;
    });
    for (const field of panel.querySelectorAll("[data-cell]")) field.textContent = grid.cells[place][field.dataset.cell];
  };
  for (const slider of sliders) slider.addEventListener("input", show);
  document.getElementById("what-if-reset").addEventListener("click", () => {
    grid.axes.forEach((axis, i) => (sliders[i].value = String(axis.now)));
    show();
  });
  show();
  panel.hidden = false;
}
