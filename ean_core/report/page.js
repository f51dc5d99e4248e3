"use strict";
// Draws the charts in the width that there is, shows what a point stands for, sorts tables.

const SVG = "http://www.w3.org/2000/svg";
const GRID = "#E4E4E4", EMPTY = "#E4E4E4", FILLED = "#56B4E9";
const tip = document.getElementById("tip");

function element(name, attributes = {}, parent = null, text = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

// ---------------------------------------------------------------- axes

// Round numbers from low to high, some count of them; of an axis that counts, whole ones.
function ticks(low, high, count, whole = false) {
  const rough = Math.max((high - low) / Math.max(1, count), whole ? 1 : 0), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(factor => factor * power).find(size => size >= rough * 0.999 && !(whole && size % 1));
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(Number((k * step).toPrecision(12)));
  return found;
}

function scale(low, high, from, to) {
  const span = high - low || 1;
  return value => from + ((value - low) / span) * (to - from);
}

// A frame with grid, ticks and titles; its functions x and y give pixels.
// The logarithmic axis is for steps, which are whole and begin at 1.
function frame(holder, spec, width, height, [x0, x1], [y0, y1], logarithmic) {
  const left = 50, right = 10, top = 10, bottom = 44;
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `${spec.title || spec.y}: ${spec.y} against ${spec.x}` });
  const plain = logarithmic ? scale(Math.log10(x0), Math.log10(x1), left, width - right) : scale(x0, x1, left, width - right);
  const x = logarithmic ? value => plain(Math.log10(value)) : plain;
  const y = scale(y0, y1, height - bottom, top);
  const every = Math.ceil((spec.names || []).length * 30 / (width - left)); // a name takes some 30 pixels
  const across = spec.names ? spec.names.map((_, k) => k + 1).filter(t => (t - 1) % every === 0)
    : logarithmic ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].filter(t => t >= x0 && t <= x1)
    : ticks(x0, x1, (width - left) / (spec.whole ? 50 : 80), spec.whole);
  for (const t of across) {
    element("line", { x1: x(t), x2: x(t), y1: top, y2: height - bottom, stroke: GRID }, svg);
    element("text", { x: x(t), y: height - bottom + 16, "text-anchor": "middle", class: "tick" }, svg, spec.names ? spec.names[t - 1] : t);
  }
  for (const t of ticks(y0, y1, height / 60)) {
    element("line", { x1: left, x2: width - right, y1: y(t), y2: y(t), stroke: GRID }, svg);
    element("text", { x: left - 6, y: y(t) + 4, "text-anchor": "end", class: "tick" }, svg, t);
  }
  element("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, svg, spec.x);
  element("text", { transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, svg, spec.y);
  holder.append(svg);
  return { svg, x, y, left, right: width - right, top, bottom: height - bottom };
}

function padded(values, share) {
  const low = Math.min(...values), high = Math.max(...values), more = (high - low || 1) * share;
  return [low - more, high + more];
}

function legend(holder, items) {
  const list = document.createElement("div");
  list.className = "legend";
  for (const item of items) {
    const entry = document.createElement("span"), dot = document.createElement("i");
    dot.style.borderColor = item.colour;
    dot.style.background = item.hollow ? "none" : item.colour;
    entry.append(dot, item.name);
    list.append(entry);
  }
  holder.append(list);
}

// ---------------------------------------------------------------- what a point stands for

function strip(scheme) {
  const svg = element("svg", { height: 9 });
  let x = 0;
  for (const bit of scheme) {
    if (bit === "-") { x += 5; continue; }
    element("rect", { x, width: 9, height: 9, fill: bit === "1" ? FILLED : "#666" }, svg);
    x += 11;
  }
  svg.setAttribute("viewBox", `0 0 ${x - 2} 9`);
  svg.setAttribute("width", x - 2);
  return svg;
}

function describe(mark, lines, scheme) {
  mark.setAttribute("role", "img");
  mark.setAttribute("aria-label", [...lines, scheme].filter(Boolean).join(", "));
  const show = () => {
    tip.replaceChildren(...lines.map(line => Object.assign(document.createElement("div"), { textContent: line })));
    if (scheme) {
      tip.append(Object.assign(document.createElement("code"), { textContent: scheme }), strip(scheme));
    }
    tip.hidden = false;
    const at = mark.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const left = at.left + at.width / 2 - own.width / 2;
    tip.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - own.width - 8))}px`;
    const above = at.top - own.height - 8;
    tip.style.top = `${above > 0 ? above : at.bottom + 8}px`;
  };
  const hide = () => { tip.hidden = true; };
  for (const event of ["pointerenter", "focus", "click"]) mark.addEventListener(event, show);
  for (const event of ["pointerleave", "blur"]) mark.addEventListener(event, hide);
}
addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

// ---------------------------------------------------------------- charts

const CHARTS = {
  scatter(holder, spec, width) {
    legend(holder, spec.legend);
    const points = spec.points, height = Math.round(Math.min(420, Math.max(270, width * 0.7)));
    const spread = points.flatMap(point => [point.bar, point.thin].flatMap(half => [point.y - (half || 0), point.y + (half || 0)]));
    const reach = spec.names ? [0.4, spec.names.length + 0.6]
      : spec.whole ? [Math.min(...points.map(point => point.x)) - 0.6, Math.max(...points.map(point => point.x)) + 0.6]
      : padded(points.map(point => point.x), 0.12);
    const place = frame(holder, spec, width, height, reach, padded(spread, 0.14));
    for (const line of spec.lines || []) {
      const path = line.points.map(([x, y], k) => (k ? `H${place.x(x)}V${place.y(y)}` : `M${place.x(x)} ${place.y(y)}`)).join("");
      element("path", { d: path, fill: "none", stroke: line.colour, "stroke-width": 1.8 }, place.svg);
    }
    const taken = [];
    for (const point of points) {
      const cx = place.x(point.x), cy = place.y(point.y);
      for (const [half, colour, thick] of [[point.bar, point.barColour || point.colour, point.thin ? 6 : 2], [point.thin, point.thinColour, 2]]) {
        if (!half) continue;
        const top = place.y(point.y + half), bottom = place.y(point.y - half);
        element("line", { x1: cx, x2: cx, y1: bottom, y2: top, stroke: colour, "stroke-width": thick }, place.svg);
        taken.push([cx - thick / 2, top, thick, bottom - top]);
      }
      const mark = element("circle", {
        cx, cy, r: point.r, fill: point.hollow ? "#fff" : point.colour, stroke: point.hollow ? point.colour : "#fff",
        "stroke-width": point.hollow ? 2 : 1,
      }, place.svg);
      if (point.r > 3) { // each of hundreds would be a stop on the way through the page
        mark.setAttribute("tabindex", 0);
        taken.push([cx - point.r, cy - point.r, 2 * point.r, 2 * point.r]);
      }
      describe(mark, point.tip, point.scheme);
    }
    for (const point of points.filter(one => one.label)) name(point, place, taken);
  },

  lines(holder, spec, width) {
    legend(holder, spec.series);
    const all = spec.series.flatMap(one => [...one.low, ...one.high]);
    const longest = Math.max(...spec.series.map(one => one.mean.length));
    const place = frame(holder, spec, width, Math.round(Math.min(380, Math.max(250, width * 0.65))), [1, longest], padded(all, 0.06), spec.log);
    for (const one of spec.series) {
      const at = (values, k) => `${place.x(k + 1).toFixed(1)} ${place.y(values[k]).toFixed(1)}`;
      const steps = one.mean.map((_, k) => k), lines = [`${one.name}: ${one.mean.at(-1)} at the end`];
      if (steps.length === 1) {
        describe(element("circle", { cx: place.right, cy: place.y(one.mean[0]), r: 5, fill: one.colour, tabindex: 0 }, place.svg), lines);
        continue;
      }
      const band = `M${steps.map(k => at(one.high, k)).join("L")}L${steps.map(k => at(one.low, k)).reverse().join("L")}Z`;
      element("path", { d: band, fill: one.colour, opacity: 0.13 }, place.svg);
      const line = element("path", { d: `M${steps.map(k => at(one.mean, k)).join("L")}`, fill: "none", stroke: one.colour, "stroke-width": 2 }, place.svg);
      describe(line, lines);
    }
  },

  histograms(holder, spec, width) {
    const low = spec.edges[0], high = spec.edges.at(-1), row = 58, text = 18, left = 4;
    const height = spec.rows.length * row + 44;
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `distributions of ${spec.x}` });
    const x = scale(low, high, left, width - 4), bottom = height - 44;
    const highest = Math.max(...spec.base, ...spec.rows.flatMap(one => one.shares));
    for (const t of ticks(low, high, width / 80)) {
      element("line", { x1: x(t), x2: x(t), y1: 0, y2: bottom, stroke: GRID }, svg);
      element("text", { x: x(t), y: bottom + 16, "text-anchor": "middle", class: "tick" }, svg, t);
    }
    const outline = (shares, floor, full) => shares.map((share, k) => `V${floor - (share / highest) * full}H${x(spec.edges[k + 1])}`).join("");
    spec.rows.forEach((one, k) => {
      const floor = (k + 1) * row, full = row - text - 6;
      if (one.shares.length) element("path", { d: `M${x(low)} ${floor}${outline(one.shares, floor, full)}V${floor}Z`, fill: one.colour, opacity: 0.75 }, svg);
      for (const value of one.values) element("line", { x1: x(value), x2: x(value), y1: floor - full / 2, y2: floor, stroke: one.colour, "stroke-width": 2.5 }, svg);
      element("path", { d: `M${x(low)} ${floor}${outline(spec.base, floor, full)}V${floor}`, fill: "none", stroke: "#555", "stroke-width": 1 }, svg);
      element("line", { x1: left, x2: width - 4, y1: floor, y2: floor, stroke: "#bbb" }, svg);
      const label = element("text", { x: left, y: floor - row + text - 2, class: "name" }, svg, "");
      element("tspan", { "font-weight": 700 }, label, one.name);
      element("tspan", { dx: 8, class: "tick" }, label, width < 480 ? one.note.split(";")[0] : one.note);
    });
    element("text", { x: width / 2, y: height - 6, "text-anchor": "middle" }, svg, spec.x);
    holder.append(svg);
  },
};

// Write a point's name beside it, where it covers least.
function name(point, place, taken) {
  const width = 6.6 * point.label.length, height = 14, cx = place.x(point.x), cy = place.y(point.y);
  const shared = ([ax, ay, aw, ah], [bx, by, bw, bh]) =>
    Math.max(0, Math.min(ax + aw, bx + bw) - Math.max(ax, bx)) * Math.max(0, Math.min(ay + ah, by + bh) - Math.max(ay, by));
  const inside = [place.left, place.top, place.right - place.left, place.bottom - place.top];
  let best = null;
  for (const [across, up] of [[0, -1], [0, 1], [1, 0], [-1, 0], [1, -1], [-1, -1], [1, 1], [-1, 1]]) {
    const box = [cx + across * (point.r + width / 2 + 3) - width / 2, cy + up * (point.r + height / 2 + 2) - height / 2, width, height];
    const cost = taken.reduce((sum, other) => sum + shared(box, other), 0) + 4 * (width * height - shared(box, inside));
    if (best === null || cost < best.cost - 1e-6) best = { cost, box };
  }
  taken.push(best.box);
  element("text", { x: best.box[0] + width / 2, y: best.box[1] + 11, "text-anchor": "middle", class: "name" }, place.svg, point.label);
}

function draw(holder, spec) {
  const title = document.createElement("h3");
  title.textContent = spec.title;
  holder.replaceChildren(...(spec.title ? [title] : []));
  CHARTS[spec.kind](holder, spec, Math.max(280, holder.clientWidth));
}

const charts = JSON.parse(document.getElementById("charts").textContent);
for (const holder of document.querySelectorAll("[data-chart]")) {
  let drawn = 0;
  new ResizeObserver(() => {
    if (holder.clientWidth === drawn) return;
    drawn = holder.clientWidth;
    draw(holder, charts[holder.dataset.chart]);
  }).observe(holder);
}

// ---------------------------------------------------------------- tables

// The first number of a text, or the text.
function key(cell) {
  const text = cell.textContent.trim();
  if (cell.classList.contains("word")) return text || null;
  const found = text.replaceAll(",", "").match(/[-+]?\d+(\.\d+)?( M\b)?/);
  return found ? parseFloat(found[0]) * (found[2] ? 1e6 : 1) : null;
}

for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], original = [...body.rows];
  table.querySelectorAll("th button").forEach((button, column) => {
    button.addEventListener("click", () => {
      const head = button.parentElement, before = head.getAttribute("aria-sort");
      table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
      const order = before === null ? "ascending" : before === "ascending" ? "descending" : null;
      if (order === null) { body.append(...original); return; }
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      body.append(...original.toSorted((one, other) => {
        const a = key(one.cells[column]), b = key(other.cells[column]);
        if (a === null || b === null) return (a === null) - (b === null); // what is empty comes last
        return sign * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
      }));
    });
  });
}
