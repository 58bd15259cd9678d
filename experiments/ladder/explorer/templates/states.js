// The states that were sampled: unpacked once, then read by rule, way to solve, guidance scale and time.
const NUM_COORDINATES = 2;

/** The bytes of the packed states. */
async function inflated() {
  const text = atob(document.getElementById("states").textContent), packed = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) packed[index] = text.charCodeAt(index);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The integers [rungs, frames, 2, scales, samples] of their differences along frames, then scales. */
function undone(bytes) {
  const { numFrames, numShown } = FACTS, numScales = FACTS.scales.length, count = bytes.length / 2;
  const values = new Int16Array(count), row = numScales * numShown, frame = NUM_COORDINATES * row, rung = numFrames * frame;
  for (let index = 0; index < count; index++) {
    const folded = bytes[index] | (bytes[count + index] << 8);
    values[index] = (folded >>> 1) ^ -(folded & 1);
    if (index % rung >= frame) values[index] += values[index - frame];
  }
  for (let index = 0; index < count; index++) if (index % row >= numShown) values[index] += values[index - numShown];
  return values;
}

/** The states of one rule, way to solve and guidance scale, [frames, 2, samples] in the mixture's units; NaN where lost. */
function statesOf(values, rung, scale) {
  const { numFrames, numShown } = FACTS, numScales = FACTS.scales.length;
  const found = new Float32Array(numFrames * NUM_COORDINATES * numShown);
  for (let row = 0; row < numFrames * NUM_COORDINATES; row++) {
    const start = ((rung * numFrames * NUM_COORDINATES + row) * numScales + scale) * numShown;
    for (let index = 0; index < numShown; index++) {
      const value = values[start + index];
      found[row * numShown + index] = value === FACTS.notFinite ? NaN : value * FACTS.step;
    }
  }
  return found;
}

/** Where sample i is at time t: on the straight line between the two states that are kept. */
function positionAt(states, index, t) {
  const { numFrames, numShown } = FACTS, place = t * (numFrames - 1), low = Math.min(Math.floor(place), numFrames - 2);
  const at = (frame, axis) => states[(frame * NUM_COORDINATES + axis) * numShown + index], share = place - low;
  return [0, 1].map((axis) => at(low, axis) + share * (at(low + 1, axis) - at(low, axis)));
}
