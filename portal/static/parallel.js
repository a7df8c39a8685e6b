// Parallel coordinates as lines of SVG, an axis a parameter: drag along an axis to keep only what runs through there.
// (Plotly's own needs WebGL and compiles code as it runs, which the content policy forbids.)

import { fill, h, number, range, s } from "./dom.js";

const HIGH = 400, TOP = 34, FOOT = 30; // units of the picture
const MOST = 3000; // lines

/** The element for a Plotly trace of type `parcoords`. */
export function parallel({ dimensions, line }) {
  const count = Math.min(dimensions[0].values.length, MOST);
  const wide = Math.max(dimensions.length * 110, 500);
  const x = (index) => 60 + (index * (wide - 120)) / Math.max(dimensions.length - 1, 1);
  const spans = dimensions.map((one) => one.range ?? range(one.values));
  const y = (axis, value) => {
    const [low, high] = spans[axis];
    return HIGH - FOOT - ((value - low) / (high - low || 1)) * (HIGH - FOOT - TOP);
  };
  const order = Array.from({ length: count }, (_, index) => index)
    .sort((a, b) => (line.color[a] - line.color[b]) * (line.reversescale ? -1 : 1)); // the best last, on top
  const drawn = order.map((index, place) => {
    const good = place / Math.max(count - 1, 1); // by rank: one bad result does not take all the colours
    const path = dimensions.map((one, axis) => `${axis ? "L" : "M"}${x(axis).toFixed(1)} ${y(axis, one.values[index]).toFixed(1)}`).join("");
    const element = s("path", { d: path, stroke: `hsl(${Math.round(262 - 140 * good)}, 55%, ${Math.round(52 - 8 * good)}%)` },
      s("title", {}, dimensions.map((one) => `${plain(one.label)}: ${said(one, one.values[index])}`).join("\n")));
    return [index, element];
  });
  const kept = new Map(); // by axis: the stretch that is kept
  const told = h("p.soft", { role: "status" }, "Drag along an axis to keep what runs through there; a click on it keeps all again.");
  const apply = () => {
    let inside = 0;
    for (const [index, element] of drawn) {
      const fits = [...kept].every(([axis, [low, high]]) => dimensions[axis].values[index] >= low && dimensions[axis].values[index] <= high);
      element.classList.toggle("out", !fits);
      inside += fits;
    }
    fill(told, kept.size ? `${inside} of ${count} results` : `${count} results`);
  };
  const axes = dimensions.map((one, axis) => {
    const brush = s("rect", { class: "brush", x: x(axis) - 7, width: 14, y: 0, height: 0 });
    const grip = s("rect", { x: x(axis) - 14, width: 28, y: TOP - 8, height: HIGH - FOOT - TOP + 16 });
    const value = (at) => spans[axis][0] + ((HIGH - FOOT - at) / (HIGH - FOOT - TOP)) * (spans[axis][1] - spans[axis][0]);
    let from = null;
    const place = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(grip.getScreenCTM().inverse()).y;
    grip.addEventListener("pointerdown", (event) => { from = place(event); grip.setPointerCapture(event.pointerId); });
    grip.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const [top, foot] = [from, place(event)].sort((a, b) => a - b);
      brush.setAttribute("y", top);
      brush.setAttribute("height", foot - top);
    });
    grip.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const [top, foot] = [from, place(event)].sort((a, b) => a - b);
      from = null;
      if (foot - top < 3) { kept.delete(axis); brush.setAttribute("height", 0); } else kept.set(axis, [value(foot), value(top)]);
      apply();
    });
    return s("g", {}, s("line", { x1: x(axis), x2: x(axis), y1: TOP, y2: HIGH - FOOT }),
      s("text", { x: x(axis), y: axis % 2 ? TOP - 10 : TOP - 22, "text-anchor": "middle" }, short(plain(one.label))),
      ticks(one, spans[axis]).map(([at, text]) => s("text", { class: "tick", x: x(axis) + 4, y: y(axis, at) + 3 }, short(text))),
      brush, grip);
  });
  return [h("div.scroll", {}, s("svg", { class: "parallel main-svg", style: `min-width: ${wide * 0.7}px`, viewBox: `0 0 ${wide} ${HIGH}`, role: "img", "aria-label": "parallel coordinates" }, drawn.map(([, element]) => element), axes)), told];
}

function ticks(one, [low, high]) {
  if (one.tickvals) return one.tickvals.map((at, index) => [at, plain(one.ticktext[index])]);
  return low === high ? [[low, number(low)]] : [0, 0.25, 0.5, 0.75, 1].map((share) => low + share * (high - low)).map((at) => [at, number(Number(at.toPrecision(3)))]);
}

/** What an axis says of a value: its label where it has one there. */
function said(one, value) {
  const index = one.tickvals?.indexOf(value) ?? -1;
  if (index >= 0) return plain(one.ticktext[index]);
  if (!one.tickvals) return number(value);
  return one.range || value < one.tickvals[0] ? "inactive" : number(10 ** value); // labels without a range: an axis of logarithms
}

/** The labels come escaped, as Plotly wants them; here a text is a text. */
function plain(text) {
  return text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
}

function short(text) {
  return text.length > 22 ? `${text.slice(0, 21)}…` : text;
}
