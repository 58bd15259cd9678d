// The picture: laws as shades and contours, trajectories, samples.
const canvas = document.getElementById("plot"), context = canvas.getContext("2d");
const shade = document.createElement("canvas"), shadeContext = shade.getContext("2d");
shade.width = shade.height = GRID;
const SHARES = [0.5, 0.9];
let colors = {}, grid = null;

function readColors() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ink", "soft", "line", "sample", "tilted", "labelled", "marginal", "halo"]) {
    colors[name] = style.getPropertyValue(`--${name}`).trim();
  }
}

/** The picture's size in pixels, for the screen that it is on. */
function fit() {
  const size = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  if (canvas.width !== size) canvas.width = canvas.height = size;
}

const onScreen = (value) => (value / FACTS.halfWidth + 1) / 2 * canvas.width;
const rgb = (color) => [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));

/** A law as a shade of one colour, densest at its largest value. */
function drawShade(values, color, most) {
  const picture = shadeContext.createImageData(GRID, GRID), largest = values.reduce((one, other) => Math.max(one, other));
  const [red, green, blue] = rgb(color);
  values.forEach((value, index) => picture.data.set([red, green, blue, 255 * most * Math.exp(value - largest)], 4 * index));
  shadeContext.putImageData(picture, 0, 0);
  const half = canvas.width / (GRID - 1) / 2;
  context.drawImage(shade, -half, -half, canvas.width + 2 * half, canvas.width + 2 * half);
}

function drawContours(values, color, width, dash) {
  const cell = canvas.width / (GRID - 1);
  context.strokeStyle = color;
  context.setLineDash(dash.map((length) => length * devicePixelRatio));
  levelsOf(values, SHARES).forEach((level, index) => {
    context.lineWidth = width * devicePixelRatio * (index ? 0.7 : 1);
    context.beginPath();
    for (const line of contour(values, level)) {
      line.forEach(([x, y], place) => (place ? context.lineTo(x * cell, y * cell) : context.moveTo(x * cell, y * cell)));
    }
    context.stroke();
  });
  context.setLineDash([]);
}

/** Adds the way of a sample up to time t to the path. */
function trace(states, index, t) {
  const place = t * (FACTS.numFrames - 1), last = Math.floor(place);
  for (let frame = 0; frame <= last; frame++) {
    const [x, y] = positionAt(states, index, frame / (FACTS.numFrames - 1));
    if (frame) context.lineTo(onScreen(x), onScreen(-y));
    else context.moveTo(onScreen(x), onScreen(-y));
  }
  if (place > last) context.lineTo(...positionAt(states, index, t).map((value, axis) => onScreen(axis ? -value : value)));
}

function drawPaths(states, t, count) {
  context.strokeStyle = colors.sample;
  context.globalAlpha = 0.22;
  context.lineWidth = 0.8 * devicePixelRatio;
  context.beginPath();
  for (let index = 0; index < Math.min(count, FACTS.numShown); index++) trace(states, index, t);
  context.stroke();
  context.globalAlpha = 1;
}

function drawSamples(states, t) {
  const radius = 2.3 * devicePixelRatio;
  context.fillStyle = colors.sample;
  context.strokeStyle = colors.halo;
  context.lineWidth = 0.8 * devicePixelRatio;
  for (let index = 0; index < FACTS.numShown; index++) {
    const [x, y] = positionAt(states, index, t);
    context.beginPath();
    context.arc(onScreen(x), onScreen(-y), radius, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
  }
}

function drawHovered(states, t, index) {
  context.strokeStyle = colors.ink;
  context.lineWidth = 1.8 * devicePixelRatio;
  context.beginPath();
  trace(states, index, t);
  context.stroke();
  const [x, y] = positionAt(states, index, t);
  context.beginPath();
  context.arc(onScreen(x), onScreen(-y), 4 * devicePixelRatio, 0, 2 * Math.PI);
  context.fillStyle = colors.sample;
  context.fill();
  context.stroke();
}

/** How many samples cannot be seen: outside the picture, or not finite. */
function numOutside(states, t) {
  let count = 0;
  for (let index = 0; index < FACTS.numShown; index++) {
    const [x, y] = positionAt(states, index, t);
    if (!(Math.max(Math.abs(x), Math.abs(y)) <= FACTS.halfWidth)) count++;
  }
  return count;
}

/** Draws everything: scale and t need not be among those stored. */
function draw(states, scale, t, layers, hovered) {
  fit();
  if (grid === null || grid.t !== t) grid = gridAt(t);
  context.clearRect(0, 0, canvas.width, canvas.height);
  const tilted = tilt(grid, scale);
  if (layers.marginal) drawShade(grid.marginal, colors.marginal, 0.3);
  if (layers.tilted) drawShade(tilted, colors.tilted, 0.32);
  if (layers.paths) drawPaths(states, t, layers.numPaths);
  if (layers.labelled) drawContours(grid.labelled, colors.labelled, 1.2, [5, 4]);
  if (layers.samples) drawSamples(states, t);
  if (layers.tilted) drawContours(tilted, colors.tilted, 2, []);
  if (hovered !== null) drawHovered(states, t, hovered);
}
