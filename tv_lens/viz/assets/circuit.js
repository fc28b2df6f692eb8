// Makes a circuit's drawing answer: a slider for how many edges, a tip on hover, a panel for a chosen node or edge.
// The drawing itself is in the page already, and stays as it is where this script does not run.
window.TVCircuit = (function () {
  "use strict";
  const WRITER = 0, READER = 1, NAME = 2, EFFECT = 3, LOW = 4, HIGH = 5, RANK = 6;
  const KINDS = { input: "what enters: the token embeddings", source: "the injected vector", logits: "the result",
                  target: "the result" };
  let count = 0;

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function number(value) {
    if (value === null) return "–";
    const size = Math.abs(value);
    const text = value === 0 ? "0" : size >= 1e5 || size < 1e-3 ? value.toExponential(2) : value.toPrecision(3);
    return text.replace("-", "−");
  }

  function interval(wire) {
    if (wire[EFFECT] === null) return "";
    const limits = wire[LOW] === null ? "no limits" : number(wire[LOW]) + ", " + number(wire[HIGH]);
    return number(wire[EFFECT]) + " [" + limits + "]";
  }

  function enhance(place, figure) {
    const { nodes, wires, edges, units, attention, recovered, requested } = figure.props;
    const drawing = place.querySelector("svg");
    const paths = [], groups = [];
    for (const path of drawing.querySelectorAll("[data-wire]")) paths[Number(path.dataset.wire)] = path;
    for (const group of drawing.querySelectorAll("[data-node]")) groups[Number(group.dataset.node)] = group;
    const largest = Math.max(...wires.map((wire) => Math.abs(wire[EFFECT] || 0))) || 1;
    let shown = edges, chosen = null;

    // ---- the frame: a bar above, the drawing, a panel beside it
    const bar = element("div", "tvc-bar"), stage = element("div", "tvc-stage"), panel = element("div", "tvc-panel");
    const scroll = element("div", "tvc-scroll"), tip = element("div", "tvc-tip");
    const label = element("label", "", "Edges "), slider = element("input"), told = element("output");
    slider.type = "range"; slider.min = "1"; slider.max = String(edges); slider.value = String(edges);
    slider.setAttribute("aria-label", "number of edges shown");
    label.append(slider);
    const back = element("button", "tvc-back", "Show all");
    back.type = "button";
    bar.append(label, told, back);
    place.prepend(bar);
    drawing.replaceWith(stage);
    scroll.append(drawing);
    stage.append(scroll, panel);
    if (drawing.width.baseVal.value > 740) stage.classList.add("tvc-wide");
    scroll.scrollLeft = scroll.scrollWidth;  // the answer is on the right
    tip.hidden = true;
    place.append(tip);
    for (const title of drawing.querySelectorAll("path > title, g > title")) title.remove();  // the tip says it

    // ---- what is shown
    function visible(i) { return wires[i][RANK] < shown; }

    // Effects of single edges do not add up, so what several carry is said by the circuits that were measured whole.
    function together() {
      const most = shown === edges ? requested : shown;  // edges that lead nowhere were asked for and are not drawn
      const measured = recovered.filter((one) => one[0] <= most).pop();
      if (measured === undefined) return "";
      const [size, mean, low, high] = measured;
      const limits = low === null ? "no limits" : low.toFixed(2) + ", " + high.toFixed(2);
      return (" · the " + size + " strongest alone recover " + mean.toFixed(2) + " [" + limits + "] of the effect on test queries")
        .replaceAll("-", "−");
    }

    function draw() {
      const alive = new Set(), near = new Set();
      wires.forEach((wire, i) => {
        const on = visible(i);
        paths[i].classList.toggle("tvc-off", !on);
        if (on) { alive.add(wire[WRITER]); alive.add(wire[READER]); }
        const mine = chosen === null || (chosen.node !== undefined
          ? wire[WRITER] === chosen.node || wire[READER] === chosen.node : wires[chosen.wire][RANK] === wire[RANK]);
        paths[i].classList.toggle("tvc-dim", !mine);
        if (on && mine) { near.add(wire[WRITER]); near.add(wire[READER]); }
      });
      groups.forEach((group, i) => {
        group.classList.toggle("tvc-off", !alive.has(i));
        group.classList.toggle("tvc-dim", chosen !== null && !near.has(i));
        group.classList.toggle("tvc-chosen", chosen !== null && chosen.node === i);
      });
      told.textContent = (shown === edges ? "all " + edges : "the strongest " + shown + " of " + edges + " edges") + together();
      back.hidden = chosen === null;
      fill();
    }

    function choose(what) { chosen = what; draw(); }

    // ---- the panel
    function row(i) {
      const wire = wires[i], made = element("li", wire[EFFECT] === null ? "" : wire[EFFECT] >= 0 ? "helps" : "hurts");
      const button = element("button", "tvc-row");
      button.type = "button";
      const size = element("span", "tvc-size");
      size.style.width = (100 * Math.abs(wire[EFFECT] || 0) / largest).toFixed(1) + "%";
      button.append(element("span", "tvc-name", wire[NAME]), element("span", "tvc-number", interval(wire)), size);
      button.addEventListener("click", () => choose({ wire: i }));
      button.addEventListener("pointerenter", () => paths[i].classList.add("tvc-hot"));
      button.addEventListener("pointerleave", () => paths[i].classList.remove("tvc-hot"));
      made.append(button);
      return made;
    }

    function list(title, which, most) {
      const once = which.filter((i, k) => which.findIndex((j) => wires[j][RANK] === wires[i][RANK]) === k);
      if (!once.length) return;
      panel.append(element("h4", "", title + " (" + once.length + ")"));
      const items = element("ul");
      once.slice(0, most).forEach((i) => items.append(row(i)));
      panel.append(items);
      if (once.length > most) panel.append(element("p", "tvc-hint", "and " + (once.length - most) + " weaker ones"));
    }

    function fill() {
      panel.replaceChildren();
      const all = wires.map((_, i) => i).filter(visible);
      if (chosen === null) {
        panel.append(element("p", "tvc-hint", "Choose a node or an edge. Effects are in " + (units || "no units") + "."));
        list("Strongest edges", all, 14);
        return;
      }
      if (chosen.wire !== undefined) {
        const wire = wires[chosen.wire];
        panel.append(element("h3", "", wire[NAME]), element("p", "tvc-hint", "edge " + (wire[RANK] + 1) + " by size of effect"));
        if (wire[EFFECT] !== null) panel.append(element("p", "", "effect " + interval(wire) + " " + units));
        return;
      }
      const node = nodes[chosen.node];
      const kind = node.kind === "head" ? "head " + node.head + " of layer " + node.layer
        : node.kind === "mlp" ? "MLP of layer " + node.layer : KINDS[node.kind];
      const crowd = nodes.some((other) => other.position !== node.position);
      panel.append(element("h3", "", node.name + (crowd ? " at " + node.position : "")), element("p", "tvc-hint", kind));
      list("Edges in", all.filter((i) => wires[i][READER] === chosen.node), 30);
      list("Edges out", all.filter((i) => wires[i][WRITER] === chosen.node), 30);
      pattern(node);
    }

    function pattern(node) {
      const held = node.kind === "head" ? attention[String(node.layer)] : undefined;
      if (!held || !window.CircuitsVis) return;
      panel.append(element("h4", "", "Attention pattern"));
      const ground = element("div", "circuitsvis tvc-pattern");
      ground.id = "tvc-pattern-" + (count += 1);
      panel.append(ground);
      window.CircuitsVis.render(ground.id, window.CircuitsVis.AttentionPattern,
        { tokens: held.tokens, attention: held.heads[node.head], maskUpperTri: true });
    }

    // ---- hover
    function told_of(event) {
      const path = event.target.closest("[data-wire]"), group = event.target.closest("[data-node]");
      if (path) {
        const wire = wires[Number(path.dataset.wire)];
        return [wire[NAME], wire[EFFECT] === null ? "" : interval(wire) + " " + units];
      }
      if (!group) return null;
      const i = Number(group.dataset.node), node = nodes[i];
      const into = wires.filter((w, k) => visible(k) && w[READER] === i).length;
      const out = wires.filter((w, k) => visible(k) && w[WRITER] === i).length;
      return [node.name + (node.position && nodes.some((o) => o.position !== node.position) ? " at " + node.position : ""),
              into + " edges in, " + out + " out"];
    }
    drawing.addEventListener("pointermove", (event) => {
      const lines = told_of(event);
      tip.hidden = lines === null;
      if (lines === null) return;
      tip.replaceChildren(element("b", "", lines[0]), element("span", "", lines[1]));
      const box = place.getBoundingClientRect();
      const x = event.clientX - box.left + 14, y = event.clientY - box.top + 16;
      tip.style.left = Math.max(0, Math.min(x, box.width - tip.offsetWidth - 4)) + "px";
      tip.style.top = y + "px";
    });
    drawing.addEventListener("pointerleave", () => { tip.hidden = true; });
    drawing.addEventListener("click", (event) => {
      const path = event.target.closest("[data-wire]"), group = event.target.closest("[data-node]");
      choose(group ? { node: Number(group.dataset.node) } : path ? { wire: Number(path.dataset.wire) } : null);
    });
    groups.forEach((group, i) => {
      group.setAttribute("tabindex", "0");
      group.setAttribute("role", "button");
      group.setAttribute("aria-label", nodes[i].name);
      group.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose({ node: i }); }
        if (event.key === "Escape") choose(null);
      });
    });
    back.addEventListener("click", () => choose(null));
    slider.addEventListener("input", () => { shown = Number(slider.value); draw(); });
    draw();
    place.tvChoose = choose;  // for tests and for other scripts of a page
  }

  return { enhance: enhance };
})();
