// What is chosen, by pointer, keyboard or address, and what follows from it.
const byId = (id) => document.getElementById(id);
const LAST = FACTS.numTimes - 1, TWEEN = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 180, TRIP = 3200;
const chosen = { rule: 0, method: 0, sigma: 0, scale: FACTS.scales.indexOf(3), time: LAST };
const LAYERS = ["samples", "paths", "tilted", "labelled", "marginal"];
let values = null, target = null, tween = null, playing = null, hovered = null, isDue = false;

const hasNoise = () => FACTS.methods[chosen.method].length > 1;
const sigmaIndex = () => (hasNoise() ? chosen.sigma : 0);
const way = () => FACTS.methods[chosen.method][sigmaIndex()];
const rung = () => FACTS.places[chosen.rule][way()];
const goesWith = (rule, method) => FACTS.methods[method].some((each) => FACTS.places[rule][each] >= 0);

/** What is drawn: of particles that are resampled no trajectories, and few where noise makes a tangle of them. */
function layers() {
  const found = Object.fromEntries(LAYERS.map((name) => [name, byId(`layer-${name}`).checked]));
  const numPaths = FACTS.isOwn[chosen.rule] || sigmaIndex() > 0 ? FACTS.numNoisyPaths : FACTS.numShown;
  return { ...found, numPaths, paths: found.paths && !FACTS.isPopulation[chosen.rule] };
}

/** What the picture shows now: on its way from what it showed before. */
function current(now) {
  if (tween === null) return { states: target, scale: FACTS.scales[chosen.scale] };
  const share = Math.min(1, (now - tween.start) / TWEEN), eased = share * (2 - share);
  const between = (one, other) => one + eased * (other - one);
  const states = target.map((value, index) => between(tween.states[index], value));
  const scale = between(tween.scale, FACTS.scales[chosen.scale]);
  if (share >= 1) tween = null;
  return { states, scale };
}

function timeNow(now) {
  if (playing === null) return chosen.time / LAST;
  const t = Math.min(1, playing.from + (now - playing.start) / TRIP);
  chosen.time = Math.round(t * LAST);
  if (t >= 1) stop();
  tellTime();
  return t;
}

function frame(now) {
  isDue = false;
  const t = timeNow(now), { states, scale } = current(now);
  draw(states, scale, t, layers(), FACTS.isPopulation[chosen.rule] ? null : hovered);
  tellOutside(numOutside(states, t));
  if (tween !== null || playing !== null) ask();
}

function ask() {
  if (isDue || values === null) return;
  isDue = true;
  requestAnimationFrame(frame);
}

function tellOutside(count) {
  byId("outside").hidden = count === 0;
  byId("outside").textContent = `${count} of ${FACTS.numShown} samples lie outside the picture`;
}

function tellTime() {
  const text = `t = ${(chosen.time / LAST).toFixed(2)}`;
  byId("time").value = chosen.time;
  byId("time").setAttribute("aria-valuetext", text);
  byId("time-value").textContent = text;
}

function tellDistance(name, value, floor) {
  byId(name).textContent = shown(value);
  byId(name).classList.toggle("low", value !== null && value <= floor);
  byId(`${name}-floor`).textContent = `floor ${shown(floor)}${value !== null && value <= floor ? ": not told apart" : ""}`;
}

/** The distances of all rules by the chosen solver; null where not finite, undefined where a rule has not the solver. */
function tellRules() {
  const found = FACTS.places.map((places) => FACTS.rungs[places[way()]]?.tilted[chosen.scale]);
  const floor = FACTS.floors[chosen.scale], end = endOf(found, [found[chosen.rule]]);
  found.forEach((value, index) => {
    const row = byId(`rule-${index}`).closest("label");
    row.querySelector("i").style.width = `${100 * Math.min(1, value === null ? 1 : root((value ?? 0) / end))}%`;
    row.querySelector("b").style.left = `${100 * Math.min(1, root(floor / end))}%`;
    row.querySelector(".value").textContent = shown(value);
    row.classList.toggle("elsewhere", value === undefined);
    row.title = value === undefined ? "Not by this solver: to choose it changes the solver" : "";
  });
}

/** What of solver and noise a rule leaves open. */
function tellSolving() {
  const isOwn = FACTS.isOwn[chosen.rule], sigma = `σ = ${FACTS.sigmas[sigmaIndex()]}`;
  FACTS.methods.forEach((_, method) => { byId(`method-${method}`).disabled = isOwn || !goesWith(chosen.rule, method); });
  byId(`method-${chosen.method}`).checked = !isOwn;
  byId("sigma").disabled = isOwn || !hasNoise();
  byId("sigma").value = sigmaIndex();
  byId("sigma").setAttribute("aria-valuetext", isOwn || hasNoise() ? sigma : `${sigma}: this solver has no noise`);
  byId("sigma-value").textContent = isOwn ? "–" : sigma;
  byId("note").textContent = isOwn ? "a solver itself" : FACTS.isPopulation[chosen.rule] ? "resampled particles have no trajectories" : "";
}

/** Shows all numbers of what is chosen. */
function tell() {
  const { rule, scale } = chosen, own = FACTS.rungs[rung()], w = `w = ${FACTS.scales[scale]}`;
  byId("scale").value = scale;
  byId("scale").setAttribute("aria-valuetext", w);
  byId("scale-value").textContent = w;
  byId(`rule-${rule}`).checked = true;
  byId("paper").textContent = FACTS.papers[rule];
  tellSolving();
  tellDistance("tilted", own.tilted[scale], FACTS.floors[scale]);
  tellDistance("labelled", own.labelled[scale], FACTS.labelledFloor);
  byId("evaluations").textContent = own.evaluations;
  canvas.setAttribute("aria-label", `${FACTS.numShown} samples by ${FACTS.rules[rule]} at ${w}, with contours of the exact laws`);
  tellTime();
  tellRules();
  drawChart(rule, way(), scale);
}

/** Moves solver and noise to the first that the rule goes with. */
function settle() {
  if (!goesWith(chosen.rule, chosen.method)) chosen.method = FACTS.methods.findIndex((_, method) => goesWith(chosen.rule, method));
  if (rung() < 0) chosen.sigma = FACTS.methods[chosen.method].findIndex((each) => FACTS.places[chosen.rule][each] >= 0);
}

/** Takes a choice; the picture glides to it. */
function choose(change, isKept = true) {
  const before = target === null ? null : current(performance.now());
  Object.assign(chosen, change);
  settle();
  tell();
  if (isKept) keep();
  if (values === null) return;
  const isSame = target !== null && !["rule", "method", "sigma", "scale"].some((name) => name in change);
  if (!isSame) {
    target = statesOf(values, rung(), chosen.scale);
    tween = before === null || TWEEN === 0 ? null : { ...before, start: performance.now() };
  }
  ask();
}

function stop() {
  playing = null;
  byId("play").setAttribute("aria-pressed", "false");
  keep();
}

function play() {
  if (playing !== null) return stop();
  const from = chosen.time >= LAST ? 0 : chosen.time / LAST;
  playing = { from, start: performance.now() };
  byId("play").setAttribute("aria-pressed", "true");
  ask();
}

/** Writes what is chosen into the page's address, by names and values. */
function keep() {
  const words = { rule: FACTS.names[chosen.rule], solver: FACTS.methodNames[chosen.method], w: FACTS.scales[chosen.scale],
    sigma: FACTS.sigmas[sigmaIndex()], t: (chosen.time / LAST).toFixed(2) };
  history.replaceState(null, "", `#${new URLSearchParams(words)}`);
}

/** Reads the page's address; what is not among the choices is left out. */
function recall() {
  const words = new URLSearchParams(location.hash.slice(1)), t = Number(words.get("t") ?? 1);
  const places = { rule: FACTS.names.indexOf(words.get("rule")), method: FACTS.methodNames.indexOf(words.get("solver")),
    scale: FACTS.scales.indexOf(Number(words.get("w") ?? NaN)), sigma: FACTS.sigmas.indexOf(Number(words.get("sigma") ?? NaN)) };
  for (const [name, place] of Object.entries(places)) if (place >= 0) chosen[name] = place;
  if (t >= 0 && t <= 1) chosen.time = Math.round(t * LAST);
}

/** Under the pointer, the nearest sample within a few pixels. */
function hover(event) {
  const box = canvas.getBoundingClientRect(), half = FACTS.halfWidth;
  const x = ((event.clientX - box.left) / box.width * 2 - 1) * half, y = (1 - (event.clientY - box.top) / box.height * 2) * half;
  let nearest = (16 / box.width * 2 * half) ** 2, found = null;
  for (let index = 0; target !== null && index < FACTS.numShown; index++) {
    const [a, b] = positionAt(target, index, chosen.time / LAST), away = (a - x) ** 2 + (b - y) ** 2;
    if (away < nearest) [nearest, found] = [away, index];
  }
  if (found === hovered) return;
  hovered = found;
  ask();
}

function listen() {
  for (const name of ["scale", "sigma"]) byId(name).addEventListener("input", () => choose({ [name]: Number(byId(name).value) }));
  byId("time").addEventListener("input", () => {
    playing = null;
    byId("play").setAttribute("aria-pressed", "false");
    choose({ time: Number(byId("time").value) });
  });
  for (const name of ["rule", "method"]) {
    for (const input of document.getElementsByName(name)) input.addEventListener("change", () => choose({ [name]: Number(input.value) }));
  }
  for (const name of LAYERS) byId(`layer-${name}`).addEventListener("change", ask);
  byId("play").addEventListener("click", play);
  canvas.addEventListener("pointermove", hover);
  canvas.addEventListener("pointerleave", () => { hovered = null; ask(); });
  chart.addEventListener("pointerdown", (event) => choose({ scale: scaleAt(event.clientX) }));
  chart.addEventListener("pointermove", (event) => event.buttons && choose({ scale: scaleAt(event.clientX) }));
  addEventListener("hashchange", () => { recall(); choose({ scale: chosen.scale }, false); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColors(); ask(); });
  new ResizeObserver(ask).observe(canvas);
}

async function start() {
  if (chosen.scale < 0) chosen.scale = FACTS.scales.length - 1;
  readColors();
  recall();
  settle();
  tell();
  listen();
  try {
    values = undone(await inflated());
  } catch (error) {
    byId("trouble").textContent = `This browser cannot unpack the samples: ${error.message}`;
    byId("trouble").hidden = false;
    return;
  }
  choose({ scale: chosen.scale }, false);
  document.body.dataset.ready = "";
}
start();
