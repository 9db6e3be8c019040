/* Draws the figures of a report in the colours of the reader's scheme; nothing is fetched. */
"use strict";

(function () {
  const given = JSON.parse(document.getElementById("given").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const options = { displaylogo: false, responsive: true, displayModeBar: false };
  let shown = given.chosen;

  function scheme() {
    return dark.matches ? "dark" : "light";
  }

  function draw(place, figures) {
    const figure = figures[scheme()];
    return window.Plotly.react(place, figure.data, figure.layout, options);
  }

  function show(index) {
    const structure = given.structures[index];
    if (!structure) {
      return;
    }
    shown = index;
    document.getElementById("structure-title").textContent = structure.title;
    const list = document.createElement("dl");
    for (const [name, value] of structure.facts) {
      const term = document.createElement("dt");
      const said = document.createElement("dd");
      term.textContent = name;
      said.textContent = value;
      list.append(term, said);
    }
    const sentences = structure.story.map(function (said) {
      const paragraph = document.createElement("p");
      paragraph.textContent = said;
      return paragraph;
    });
    document.getElementById("story").replaceChildren(list, ...sentences);
    draw("structure", structure.figures);
  }

  function drawAll() {
    for (const [place, figures] of Object.entries(given.figures)) {
      draw(place, figures);
    }
    show(shown);
  }

  document.documentElement.dataset.scheme = scheme();
  drawAll();
  document.getElementById("hull").on("plotly_click", function (event) {
    show(event.points[0].customdata);
  });
  document.addEventListener("click", function (event) {
    const button = event.target.closest("button[data-structure]");
    if (button) {
      show(button.dataset.structure);
    }
  });
  dark.addEventListener("change", function () {
    document.documentElement.dataset.scheme = scheme();
    drawAll();
  });
})();
