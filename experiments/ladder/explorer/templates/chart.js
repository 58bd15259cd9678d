// The divergence along w, of every rule by the chosen solver.
const chart = document.getElementById("chart"), BOX = { left: 44, right: 448, top: 8, bottom: 122 };

const element = (name, attributes, text = "") => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
};

/** A distance in few letters. */
function shown(value) {
  if (value === undefined) return "–";
  if (value === null) return "not finite";
  return (value < 1 ? value.toFixed(4) : value < 1000 ? value.toPrecision(4) : value.toExponential(1)).replace("-0.0000", "0.0000").replace("-", "−");
}

const root = (value) => Math.sqrt(Math.max(0, value));
const across = (scale) => BOX.left + scale / FACTS.scales.at(-1) * (BOX.right - BOX.left);

/** The end of the distances' axis: the few largest of all rules do not flatten the others, unless they are chosen. */
function endOf(values, chosen) {
  const sorted = values.filter(Number.isFinite).sort((one, other) => one - other);
  const most = sorted[Math.floor(0.85 * (sorted.length - 1))] ?? 0;
  return 1.1 * Math.max(0.01, most, ...chosen.filter(Number.isFinite));
}

function points(values, up) {
  const kept = values.map((value, index) => [value, FACTS.scales[index]]).filter(([value]) => Number.isFinite(value));
  return kept.map(([value, scale]) => `${across(scale).toFixed(1)},${up(value).toFixed(1)}`).join(" ");
}

function ticksOf(end) {
  const wanted = [0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100].filter((value) => value <= end);
  const kept = [];
  for (const value of wanted.reverse()) if (!kept.length || root(kept.at(-1) / end) - root(value / end) > 0.13) kept.push(value);
  return kept;
}

/** Draws the curves of a way to solve, with the chosen rule's in front and a mark at the chosen scale. */
function drawChart(rule, way, scale) {
  const rows = FACTS.places.map((places) => FACTS.rungs[places[way]]?.tilted ?? []), end = endOf(rows.flat(), rows[rule]);
  const up = (value) => BOX.bottom - root(value / end) * (BOX.bottom - BOX.top);
  const line = (values, style) => element("polyline", { points: points(values, up), fill: "none", "stroke-linejoin": "round", "clip-path": "url(#box)", ...style });
  const floor = `${across(0)},${BOX.bottom} ${points(FACTS.floors, up)} ${across(FACTS.scales.at(-1))},${BOX.bottom}`;
  const clip = element("clipPath", { id: "box" });
  clip.append(element("rect", { x: 0, y: BOX.top - 4, width: 460, height: BOX.bottom - BOX.top + 8 }));
  const parts = [clip, element("polygon", { points: floor, fill: "var(--soft)", opacity: 0.22 })];
  for (const value of ticksOf(end)) {
    parts.push(element("line", { x1: BOX.left, x2: BOX.right, y1: up(value), y2: up(value), stroke: "var(--line)" }));
    parts.push(element("text", { x: BOX.left - 6, y: up(value) + 4, "text-anchor": "end" }, String(value)));
  }
  for (const value of [0, 1, 2, 3, 4, 5, 6, 8].filter((value) => value <= FACTS.scales.at(-1))) {
    parts.push(element("text", { x: across(value), y: BOX.bottom + 14, "text-anchor": "middle" }, value ? String(value) : "w = 0"));
  }
  rows.forEach((values, index) => index !== rule && parts.push(line(values, { stroke: "var(--soft)", "stroke-width": 1, opacity: 0.55 })));
  parts.push(line(rows[rule], { stroke: "var(--sample)", "stroke-width": 2.5 }));
  const x = across(FACTS.scales[scale]), value = rows[rule][scale];
  parts.push(element("line", { x1: x, x2: x, y1: BOX.top, y2: BOX.bottom, stroke: "var(--tilted)", "stroke-width": 1.5 }));
  if (value !== null) parts.push(element("circle", { cx: x, cy: Math.max(BOX.top, up(value)), r: 4.5, fill: "var(--sample)", stroke: "var(--paper)", "stroke-width": 1.5 }));
  chart.replaceChildren(...parts);
  const told = FACTS.scales.map((each, index) => `${shown(rows[rule][index])} at ${each}`).join(", ");
  chart.setAttribute("aria-label", `Energy distance to the tilted law by w, ${FACTS.rules[rule]}: ${told}`);
}

/** The stored scale that is nearest to a place on the chart. */
function scaleAt(clientX) {
  const { left, width } = chart.getBoundingClientRect(), x = (clientX - left) / width * 460;
  const away = FACTS.scales.map((scale) => Math.abs(across(scale) - x));
  return away.indexOf(Math.min(...away));
}
