"use strict";
// The mixture's laws at every time, by their formulas, on a grid of the picture.
const FACTS = JSON.parse(document.getElementById("facts").textContent);
const GRID = 120;

/** A Gaussian component at signal alpha and noise beta: its label, the mean, the precision, the log of its factor. */
function componentAt(own, alpha, beta) {
  const [a, b, d] = own.covariance.map((value, index) => alpha ** 2 * value + (index === 1 ? 0 : beta ** 2));
  const determinant = a * d - b * b;
  const factor = Math.log(own.weight) - 0.5 * Math.log(determinant) - Math.log(2 * Math.PI);
  const [x, y] = own.mean;
  return { label: own.label, x: alpha * x, y: alpha * y, xx: d / determinant, xy: -b / determinant, yy: a / determinant, factor };
}

/** alpha and beta of the path at time t, between two of the times that are known. */
function coefficients(t) {
  const place = t * (FACTS.alpha.length - 1), low = Math.min(Math.floor(place), FACTS.alpha.length - 2), share = place - low;
  const between = (values) => values[low] + share * (values[low + 1] - values[low]);
  return [between(FACTS.alpha), between(FACTS.beta)];
}

/** [log p_t(x), log p_t(x|y)] as a function of x, for the label of the page. */
function logDensities(t) {
  const components = FACTS.components.map((own) => componentAt(own, ...coefficients(t)));
  const logLabel = Math.log(FACTS.components.reduce((sum, own) => sum + (own.label === FACTS.label ? own.weight : 0), 0));
  const terms = new Float64Array(components.length);
  return (x, y) => {
    let largest = -Infinity, own = -Infinity;
    components.forEach((each, index) => {
      const dx = x - each.x, dy = y - each.y;
      terms[index] = each.factor - 0.5 * (each.xx * dx * dx + 2 * each.xy * dx * dy + each.yy * dy * dy);
      largest = Math.max(largest, terms[index]);
      if (each.label === FACTS.label) own = Math.max(own, terms[index]);
    });
    let all = 0, some = 0;
    components.forEach((each, index) => {
      all += Math.exp(terms[index] - largest);
      if (each.label === FACTS.label) some += Math.exp(terms[index] - own);
    });
    return [largest + Math.log(all), own + Math.log(some) - logLabel];
  };
}

/** The coordinate of a place on the grid: the first and the last lie on the picture's edges. */
const coordinate = (place) => FACTS.halfWidth * (2 * place / (GRID - 1) - 1);

/** Both log-densities on the grid at time t, rows from the top. */
function gridAt(t) {
  const density = logDensities(t), marginal = new Float32Array(GRID * GRID), labelled = new Float32Array(GRID * GRID);
  for (let row = 0; row < GRID; row++) {
    for (let column = 0; column < GRID; column++) {
      [marginal[row * GRID + column], labelled[row * GRID + column]] = density(coordinate(column), -coordinate(row));
    }
  }
  return { t, marginal, labelled };
}

/** (1 - w) log p_t(x) + w log p_t(x|y) on the grid. */
const tilt = (grid, scale) => grid.marginal.map((value, index) => (1 - scale) * value + scale * grid.labelled[index]);

/** The log-densities above which a law on the grid holds these shares, which increase. */
function levelsOf(values, shares) {
  const sorted = Float32Array.from(values).sort().reverse(), largest = sorted[0];
  let total = 0, held = 0, index = 0;
  for (const value of sorted) total += Math.exp(value - largest);
  return shares.map((share) => {
    while (index < sorted.length - 1 && held + Math.exp(sorted[index] - largest) < share * total) {
      held += Math.exp(sorted[index++] - largest);
    }
    return sorted[index];
  });
}

/** The edges of a cell that a level crosses, as [edge's number, x, y] in places of the grid. */
function crossings(values, level, row, column) {
  const start = row * GRID + column, found = [];
  const cross = (edge, one, other, x, y, dx, dy) => {
    const first = values[one] - level, last = values[other] - level;
    if ((first > 0) !== (last > 0)) found.push([edge, x + dx * first / (first - last), y + dy * first / (first - last)]);
  };
  cross(2 * start, start, start + 1, column, row, 1, 0);
  cross(2 * (start + 1) + 1, start + 1, start + 1 + GRID, column + 1, row, 0, 1);
  cross(2 * (start + GRID), start + GRID, start + GRID + 1, column, row + 1, 1, 0);
  cross(2 * start + 1, start, start + GRID, column, row, 0, 1);
  return found;
}

/** The lines of a level, each a list of [x, y] in places of the grid: marching squares, whose pieces are joined. */
function contour(values, level) {
  const places = new Map(), beside = new Map();
  const join = (one, other) => beside.has(one) ? beside.get(one).push(other) : beside.set(one, [other]);
  for (let row = 0; row < GRID - 1; row++) {
    for (let column = 0; column < GRID - 1; column++) {
      const found = crossings(values, level, row, column);
      for (let index = 0; index + 1 < found.length; index += 2) {
        const [[one, ...from], [other, ...to]] = [found[index], found[index + 1]];
        places.set(one, from).set(other, to);
        join(one, other);
        join(other, one);
      }
    }
  }
  const lines = [], ends = [...beside.keys()].sort((one, other) => beside.get(one).length - beside.get(other).length);
  for (const start of ends) if (beside.has(start)) lines.push(lineFrom(start, places, beside));
  return lines;
}

/** Follows a line from an edge to its end, and takes its edges out of those that are left. */
function lineFrom(start, places, beside) {
  const line = [];
  let edge = start;
  while (edge !== undefined) {
    const next = beside.get(edge);
    beside.delete(edge);
    line.push(places.get(edge));
    edge = next.find((other) => beside.has(other));
    if (edge === undefined && line.length > 2 && next.includes(start)) line.push(places.get(start));
  }
  return line;
}
