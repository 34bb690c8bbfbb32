// Calls functions of the page that decodes, for tests/test_decode_page.py: reads [[task, arguments], ...], writes [{value} or {refused}, ...]; bytes are base64.
import {readFileSync} from "node:fs";
import {Refusal, crc32, readIntegers, readVarint, stateCrc, writeVarint} from "../docs/decode/bytes.js";
import {unpack} from "../docs/decode/container.js";
import {SymbolDecoder, Tables} from "../docs/decode/entropy.js";
import {sizeOf} from "../docs/decode/plane.js";
import {pngOf} from "../docs/decode/png.js";
import {check, quantizers, readLatents, readParams, readTables, synthesize} from "../docs/decode/stanh.js";
import {boundaries, checksumsLength, scaleIndexes, settle, subset} from "../docs/decode/sync.js";

const bytes = text => new Uint8Array(Buffer.from(text, "base64"));
const floats = text => new Float32Array(bytes(text).buffer);
const text = array => Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("base64");
const map = ({data, dims}) => ({data: floats(data), dims});
const tablesOf = ({frequencies, rows, symbols}) => new Tables(frequencies, rows, symbols);

const tasks = {
  varint: data => readVarint(bytes(data), 0),
  spelled: value => [...writeVarint(value)],
  integers: (data, most) => { const [values, end] = readIntegers(bytes(data), most); return [[...values], end]; },
  crc: data => crc32(bytes(data)),
  state: arrays => stateCrc(...arrays),
  unpack: data => {
    const {header: {params, ...header}, chunks, extras} = unpack(bytes(data));
    return {...header, params: text(params), chunks: chunks.map(text), payloads: Object.fromEntries(Object.entries(extras).map(([k, v]) => [k, text(v)]))};
  },
  symbols: (data, calls) => { // [tables, indexes] of each call
    const decoder = new SymbolDecoder(bytes(data));
    return calls.map(([tables, indexes]) => [...decoder.decode(Uint16Array.from(indexes), tablesOf(tables))]);
  },
  tables: tables => tablesOf(tables).crc,
  block: (block, planes, number) => {
    const found = readTables(block, bytes(planes), number), sizes = t => Array.from(t.starts.subarray(1), (end, i) => end - t.starts[i]).filter(size => size > 0);
    return {crc: [found.y.crc, found.z.crc], y: sizes(found.y), z: sizes(found.z)};
  },
  quantizers: (model, number) => {
    const {y, z} = quantizers(model, {level: Math.floor(number / 256), alpha: number % 256});
    return {y: [...y.levels, ...y.ends, y.step], z: [...z.levels, ...z.ends]};
  },
  indexes: (scale, scales) => [...scaleIndexes(floats(scale), boundaries(scales))],
  length: checksumsLength,
  subset: (effects, difference) => subset(effects, difference),
  settle: (rows, scale, checksums, scales) => { const found = settle(bytes(rows), floats(scale), bytes(checksums), boundaries(scales)); return {rows: text(found.rows), repaired: found.repaired}; },
  check: (header, models) => check(header, models).name,
  params: (params, points) => readParams(bytes(params), points),
  plane: data => sizeOf(bytes(data)),
  png: async (pixels, width, height, alpha, profile) => Buffer.from(await (await pngOf(bytes(pixels), width, height, alpha, profile && bytes(profile))).arrayBuffer()).toString("base64"),
  // A file under networks that answer what was recorded; `far` is the largest difference of what they are given from what they were given then
  latents: async (data, model, block, planes, recorded) => {
    const {header, chunks: [payload]} = unpack(bytes(data)), params = readParams(header.params, model.points.length), tables = readTables(block, bytes(planes), params.number);
    let far = 0;
    const run = async (name, inputs) => {
      for (const [input, {data}] of Object.entries(inputs)) {
        const want = floats(recorded[name].inputs[input].data);
        if (want.length !== data.length) throw new Error(`${input} of ${name} has ${data.length} numbers, not ${want.length}`);
        data.forEach((v, i) => { far = Math.max(far, Math.abs(v - want[i])); });
      }
      return Object.fromEntries(Object.entries(recorded[name].outputs).map(([n, m]) => [n, map(m)]));
    };
    const {y, repaired} = await readLatents({header, payload, params, model, tables, run});
    return {far, repaired, pixels: text(await synthesize(y, header, model, run)), quality: params.quality};
  },
  // Synthesis in strips of a network that repeats each latent value over 16 × 16 pixels
  strips: async (y, header, about) => {
    const calls = [];
    const run = async (_, {y_hat: {data, dims: [, channels, h, w]}}) => {
      calls.push(h);
      const out = new Float32Array(3 * 256 * h * w);
      for (let c = 0; c < 3; c++) for (let i = 0; i < 16 * h; i++) for (let j = 0; j < 16 * w; j++) out[(c * 16 * h + i) * 16 * w + j] = data[((c % channels) * h + (i >> 4)) * w + (j >> 4)];
      return {picture: {data: out, dims: [1, 3, 16 * h, 16 * w]}};
    };
    return {pixels: text(await synthesize(map(y), header, {anchors: [about]}, run)), calls};
  },
};

const answers = [];
for (const [task, ...args] of JSON.parse(readFileSync(0, "utf8"))) {
  try { answers.push({value: await tasks[task](...args)}); } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    answers.push({refused: error.message});
  }
}
process.stdout.write(JSON.stringify(answers));
