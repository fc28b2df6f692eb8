// Draws every figure of the page, in the colours of the reader's light or dark setting.
(function () {
  "use strict";
  const swap = JSON.parse(document.getElementById("tv-colours").textContent);
  const wantsDark = window.matchMedia("(prefers-color-scheme: dark)");

  function recoloured(value) {
    if (typeof value === "string") return Object.hasOwn(swap, value) ? swap[value] : value;
    if (Array.isArray(value)) return value.map(recoloured);
    if (value && typeof value === "object" && !("bdata" in value)) {
      return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, recoloured(part)]));
    }
    return value;
  }

  function fileName(text) {
    return text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "") || "figure";
  }

  // A figure with a slider is drawn again, or saved, as the reader has left it.
  function asLeft(place, figure) {
    const slider = place.layout && (place.layout.sliders || [])[0];
    if (!slider) return;
    const own = figure.layout.sliders[0], [to, traces] = own.steps[slider.active || 0].args;
    own.active = slider.active || 0;
    traces.forEach((trace, i) => { for (const axis of Object.keys(to)) figure.data[trace][axis] = to[axis][i]; });
  }

  const NARROW = 560;  // pixels of a place below which panels stand one under the other

  // On a phone: panels in one column, the legend below, names of levels inside, long names of columns turned.
  function stacked(figure, width) {
    const layout = figure.layout, titles = [], margin = layout.margin || {};
    const ends = Object.keys(layout).filter((key) => /^xaxis\d*$/.test(key)).map((key) => key.slice(5));
    const panels = ends.sort((a, b) => (a || 1) - (b || 1)).filter((end) => layout["yaxis" + end]);
    for (const note of layout.annotations || []) {
      if (note.xref === "paper" && note.yref === "paper") titles.push(note);
      else if (/ domain$/.test(note.xref || "") && note.x === 1 && note.xanchor === "left") {
        Object.assign(note, { xanchor: "right", xshift: -2, yanchor: "bottom" });
      }
    }
    const above = titles.length ? 26 : 10, each = 215, n = panels.length;
    const bars = figure.data.some((trace) => trace.type === "bar");
    const total = n > 1 ? n * (each + above + 50) : layout.height - (margin.t || 0) - (margin.b || 0);
    if (n > 1) {
      panels.forEach((end, i) => {
        const x = layout["xaxis" + end], y = layout["yaxis" + end], top = 1 - i / n;
        const drawn = (bars ? each * 0.8 : each) / total;
        x.domain = [0, 1];
        y.domain = [Math.max(0, top - above / total - drawn), top - above / total];
        y.showticklabels = x.showticklabels === false ? y.showticklabels : true;
        if (titles.length === n) Object.assign(titles[i], { x: 0.5, y: y.domain[1], xanchor: "center", yanchor: "bottom" });
      });
      layout.height = total + (margin.t || 60) + (margin.b || 60);
    }
    const named = new Set(figure.data.filter((trace) => trace.showlegend !== false && trace.name).map((one) => one.name));
    if (layout.showlegend !== false && named.size > 1 && !(layout.sliders || []).length) {
      const longest = Math.max(...Array.from(named, (name) => name.length)) * 7 + 50;
      const room = 22 * Math.ceil(named.size / Math.max(1, Math.floor(width / longest))) + 10;
      layout.legend = Object.assign({}, layout.legend, { orientation: "h", x: 0, y: -62 / total, xanchor: "left", yanchor: "top" });
      layout.height += room;
      layout.margin = Object.assign({}, margin, { r: 12, b: (margin.b || 55) + room });
    } else layout.margin = Object.assign({}, margin, { r: Math.min(margin.r || 12, 12) });
    for (const end of panels) {
      const axis = layout["xaxis" + end], words = axis.ticktext || [];
      if (axis.type !== "log" && words.join("").length * 8 > width - 130) axis.tickangle = -90;
    }
    return figure;
  }

  function plotly(place, text) {
    const camera = {
      name: "png", title: "Save as PNG", icon: Plotly.Icons.camera,
      click: function () {
        const figure = JSON.parse(text);  // a picture leaves the page: it needs its title and a light ground
        asLeft(place, figure);
        const layout = Object.assign({}, figure.layout, { title: figure.full, margin: figure.margin });
        Plotly.downloadImage({ data: figure.data, layout: layout },
          { format: "png", scale: 2, width: place.clientWidth, height: layout.height + 62, filename: fileName(figure.name) });
      },
    };
    // By default plotly.js offers to upload the data to its maker's server; a figure here offers no such thing.
    const config = { displaylogo: false, responsive: true, showSendToCloud: false, plotlyServerURL: "",
                     modeBarButtonsToAdd: [camera],
                     modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "autoScale2d"] };
    let narrow = false;
    window.addEventListener("resize", () => { if (narrow !== place.clientWidth < NARROW) draw(); });
    function draw() {
      let figure = JSON.parse(text);
      asLeft(place, figure);
      narrow = place.clientWidth < NARROW;
      if (narrow) figure = stacked(figure, place.clientWidth);
      const ground = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" };
      const layout = Object.assign(figure.layout, ground);
      const dark = wantsDark.matches;
      return Plotly.react(place, dark ? recoloured(figure.data) : figure.data, dark ? recoloured(layout) : layout, config);
    }
    wantsDark.addEventListener("change", draw);
    // The bar of buttons has one stop for the keyboard, the first, instead of six per figure.
    return draw().then(() => {
      reachable(place);
      place.querySelectorAll(".modebar-btn").forEach((button, i) => { if (i) button.setAttribute("tabindex", "-1"); });
    });
  }

  function circuitsvis(place, text) {
    const figure = JSON.parse(text);
    CircuitsVis.render(place.id, CircuitsVis[figure.component], figure.props);
  }

  function circuit(place, text) {
    TVCircuit.enhance(place, JSON.parse(text));
  }

  // A document inside a notebook's frame asks for the room that it takes; where it may not, the frame scrolls.
  function fitFrame() {
    try {
      if (!window.frameElement) return;
      window.frameElement.style.height = document.body.offsetHeight + 4 + "px";
      const still = window.frameElement.previousElementSibling;  // the picture for where no script runs
      if (still && still.className === "tv-still") still.style.display = "none";
      const picture = window.frameElement.dataset.picture;  // an output of its own in a notebook
      for (const image of picture ? window.parent.document.images : []) {
        if (image.src.endsWith(picture)) image.style.display = "none";
      }
    } catch (error) { /* the frame belongs to another origin */ }
  }

  // On a narrow screen a table that is wider becomes a list of cards: every cell under the name of its column.
  function fitTables() {
    for (const box of document.querySelectorAll(".table")) {
      box.classList.remove("cards");
      const over = box.scrollWidth > box.clientWidth + 1;
      if (over) box.tabIndex = 0; else box.removeAttribute("tabindex");  // what scrolls can be reached by keyboard
      if (over && window.innerWidth <= 640) box.classList.add("cards");
    }
  }

  function nameCells() {
    for (const table of document.querySelectorAll(".table table")) {
      const names = Array.from(table.querySelectorAll("thead th"), (cell) => cell.textContent);
      for (const row of table.tBodies[0].rows) {
        Array.from(row.cells).forEach((cell, i) => { cell.dataset.label = names[i]; });
      }
    }
    fitTables();
    window.addEventListener("resize", fitTables);
  }

  // The sliders of plotly are drawn: the arrow keys move them, too.
  function reachable(place) {
    const slider = place.layout && (place.layout.sliders || [])[0];
    if (!slider || place.tabIndex === 0) return;
    place.tabIndex = 0;
    place.setAttribute("role", "slider");
    const say = () => {
      const at = slider.active || 0;
      place.setAttribute("aria-valuemin", "0");
      place.setAttribute("aria-valuemax", String(slider.steps.length - 1));
      place.setAttribute("aria-valuenow", String(at));
      place.setAttribute("aria-valuetext", "step " + slider.steps[at].label);
    };
    say();
    place.addEventListener("keydown", (event) => {
      const last = place.layout.sliders[0].steps.length - 1, at = place.layout.sliders[0].active || 0;
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
      if (to === undefined || to < 0 || to > last) return;
      event.preventDefault();
      const [change, traces] = place.layout.sliders[0].steps[to].args;
      Plotly.update(place, change, { "sliders[0].active": to }, traces).then(() => { slider.active = to; say(); });
    });
  }

  window.tvDraw = function () {
    nameCells();
    if (window.parent !== window) new ResizeObserver(fitFrame).observe(document.body);
    for (const place of document.querySelectorAll("[data-figure]")) {
      const text = document.getElementById(place.id + "-data").textContent;
      try {
        ({ plotly: plotly, circuitsvis: circuitsvis, circuit: circuit })[place.dataset.figure](place, text);
        place.dataset.drawn = "yes";
      } catch (error) {
        if (place.querySelector("svg.tvc")) continue;  // a drawing that needs no script stays
        place.className = "problem";
        place.textContent = "This figure could not be drawn: " + error.message;
      }
    }
  };
})();
