// A stanh file and its model's networks → pixels. `run(name, inputs)` is given by the caller; maps are {data, dims}.
import {readIntegers, refuse, stateCrc} from "./bytes.js";
import {SymbolDecoder, Tables, readFrequencies} from "./entropy.js";
import {DESYNC, boundaries, checksumsLength, scaleIndexes, settle} from "./sync.js";

const STEPS = 256;      // positions between two rate points
const MULTIPLE = 64;    // of pixels, which the networks see
const PIECE = 8192;     // positions of the latent that synthesis sees at once, about
export const MAX_PIXELS = 2 ** 24, MAX_SIDE = 2 ** 14; // what a page holds in memory

// {level, alpha, number: position on the dial, quality, check} of a file
export function readParams(params, points) {
  if (params.length !== 6) refuse(`${params.length} bytes of parameters where 6 belong; the file is damaged`);
  const [level, alpha] = params, number = level * STEPS + alpha;
  if (level + (alpha > 0) >= points) refuse(`rate level ${level} of a model that has ${points}; the file is damaged`);
  const check = new DataView(params.buffer, params.byteOffset).getUint32(2, true);
  return {level, alpha, number, quality: 100 * number / (STEPS * Math.max(1, points - 1)), check};
}

// Levels of a quantizer, how they go on beyond both ends, and its step: between two points all are interpolated
function stairs(low, high, alpha) {
  const mix = (u, v) => alpha ? Math.fround(Math.fround((1 - alpha) * u) + Math.fround(alpha * v)) : u;
  return {levels: Float32Array.from(low.levels, (v, i) => mix(v, high.levels[i])), ends: low.ends.map((v, i) => mix(v, high.ends[i])), step: mix(low.step, high.step)};
}

export function quantizers(model, {level, alpha}) {
  const low = model.points[level], high = alpha ? model.points[level + 1] : low;
  return {y: stairs(low.y, high.y, alpha / STEPS), z: stairs(low.z, high.z, model.interpolate_z ? alpha / STEPS : 0)};
}

// Tables of y and z at a position; `planes` is the unpacked file of its block
export function readTables(block, planes, number) {
  const [[rowsY, symbolsY], [rowsZ, symbolsZ]] = [block.y, block.z], sizeY = rowsY * symbolsY;
  const all = readFrequencies(planes, sizeY + rowsZ * symbolsZ, number - block.first);
  return {y: new Tables(all.subarray(0, sizeY), rowsY, symbolsY), z: new Tables(all.subarray(sizeY), rowsZ, symbolsZ)};
}

// Values of symbols about a center; the last symbol of a table stands for an index of the list `escapes`, which is taken from its front
function valuesOf(symbols, center, quantizer, escapes) {
  const top = quantizer.levels.length - 1, [first, last] = quantizer.ends;
  return Float32Array.from(symbols, (k, i) => {
    let value;
    if (k <= top) value = quantizer.levels[k];
    else {
      const over = escapes.values[escapes.at++];
      if (!over) refuse("escapes do not match their symbols; the file is damaged");
      value = Math.fround(over < 0 ? quantizer.levels[0] + over * first : quantizer.levels[top] + over * last);
    }
    return value + center(i);
  });
}

function forget(known, steps) {
  const needed = new Set(steps.flatMap(s => s.inputs ?? [`mean${s.code}`, `scale${s.code}`]));
  for (const name of known.keys()) if (!needed.has(name)) known.delete(name);
}

// ŷ of a file; `tell(done, of)` is told of every step, here and in synthesis
export async function readLatents({header, payload, params, model, tables, run, tell = () => {}}) {
  const [about] = model.anchors, channels = about.medians.length, [h, w] = [header.height, header.width].map(n => Math.ceil(n / MULTIPLE)), quantizer = quantizers(model, params);
  const [values, start] = readIntegers(payload, 16 * h * w * about.latent + channels * h * w), escapes = {values, at: 0};
  const lengths = about.parts.map(n => checksumsLength(n * h * w)), coded = payload.subarray(start + lengths.reduce((a, b) => a + b));
  if (start + lengths.reduce((a, b) => a + b) > payload.length) refuse("the coded picture is too short; the file is damaged");
  const decoder = new SymbolDecoder(coded), edges = boundaries(model.scales), seen = [];
  const channel = Uint16Array.from({length: channels * h * w}, (_, i) => Math.floor(i / (h * w)));
  const z = valuesOf(decoder.decode(channel, tables.z), i => about.medians[channel[i]], quantizer.z, escapes);
  const known = new Map([["z_hat", {data: z, dims: [1, channels, h, w]}], ["step", {data: Float32Array.of(quantizer.y.step), dims: []}]]);
  const steps = model.plan.slice(model.plan.findIndex(s => s.run === "hyper_synthesis"), model.plan.findIndex(s => s.run === "synthesis"));
  let at = start, repaired = 0;
  for (const [number, step] of steps.entries()) {
    if (step.run) {
      const found = await run(step.run, Object.fromEntries(step.inputs.map(name => [name, known.get(name)])));
      for (const name of step.outputs) known.set(name, found[name]);
    } else {
      const mean = known.get(`mean${step.code}`), scale = known.get(`scale${step.code}`).data, length = lengths[step.code];
      const found = settle(scaleIndexes(scale, edges), scale, payload.subarray(at, at += length), edges);
      repaired += found.repaired; seen.push(found.rows);
      known.set(`value${step.code}`, {data: valuesOf(decoder.decode(found.rows, tables.y), i => mean.data[i], quantizer.y, escapes), dims: mean.dims});
    }
    forget(known, [...steps.slice(number + 1), {inputs: ["y_hat", "step"]}]);
    tell(number + 1, steps.length);
  }
  if (((stateCrc(...seen) ^ tables.y.crc ^ tables.z.crc) >>> 0) !== params.check || escapes.at !== values.length) refuse(DESYNC);
  return {y: known.get("y_hat"), repaired};
}

// Rows of a latent, with the rows around them that synthesis looks at
function rowsOf({data, dims: [, channels, height, width]}, from, to) {
  if (from === 0 && to === height) return {data, dims: [1, channels, height, width]};
  const part = new Float32Array(channels * (to - from) * width);
  for (let c = 0; c < channels; c++) part.set(data.subarray((c * height + from) * width, (c * height + to) * width), c * (to - from) * width);
  return {data: part, dims: [1, channels, to - from, width]};
}

// Pixels RGBA of a latent, a strip of rows after another; alpha is 255
export async function synthesize(y, header, model, run, tell = () => {}) {
  const [{reach, step}] = model.anchors, [, , height, width] = y.dims, pixels = new Uint8ClampedArray(header.height * header.width * 4);
  const strip = height * width <= PIECE ? height : Math.max(step, Math.floor(PIECE / width / step) * step);
  for (let from = 0; from < height; from += strip) {
    const to = Math.min(from + strip, height), above = Math.max(0, from - reach), below = Math.min(height, to + reach);
    const {picture} = await run("synthesis", {y_hat: rowsOf(y, above, below)}), plane = picture.dims[2] * picture.dims[3];
    for (let row = 16 * from; row < Math.min(16 * to, header.height); row++)
      for (let c = 0; c < 3; c++)
        for (let x = 0, at = c * plane + (row - 16 * above) * picture.dims[3], pixel = row * header.width * 4 + c; x < header.width; x++, at++, pixel += 4) {
          if (!Number.isFinite(picture.data[at])) refuse("the decoded picture holds numbers that are not finite; the file is damaged or forged");
          pixels[pixel] = Math.fround(255 * picture.data[at]);
        }
    tell(to, height);
  }
  for (let i = 3; i < pixels.length; i += 4) pixels[i] = 255;
  return pixels;
}

// A picture that this page can hold, of a model that it has
export function check(header, models) {
  if (header.kind !== "stanh") refuse(`the file was written by a model of the ${header.kind} system, and this page decodes those of stanh models; decode it with stanhlic decompress`);
  const found = models.find(m => m.fingerprint === header.fingerprint);
  if (!found) refuse(`the file needs the model ${header.fingerprint}, and this page has ${models.map(m => `${m.name} ${m.fingerprint}`).join(", ")}; decode it with stanhlic decompress`);
  if (header.height * header.width > MAX_PIXELS || Math.max(header.height, header.width) > MAX_SIDE)
    refuse(`a picture of ${header.width}x${header.height} is more than a page holds, at most ${MAX_PIXELS} pixels and ${MAX_SIDE} a side; decode it with stanhlic decompress`);
  return found;
}
