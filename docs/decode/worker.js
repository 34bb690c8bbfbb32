// Decodes beside the page, so that it does not freeze. Gets {id, data, folder}; answers {id, share, doing} on the way, at the end {id, pixels, …} or {id, error}.
// {folder} alone makes the first model ready, before a file is there.
import {Refusal} from "./bytes.js";
import {unpack} from "./container.js";
import {listModels, loadModel} from "./onnx.js";
import {applyAlpha} from "./plane.js";
import {check, readLatents, readParams, synthesize} from "./stanh.js";

const loaded = {}; // model by the name of its folder
let models;

async function list(folder) { return models ??= await listModels(folder); }

async function ready(name, folder, tell) {
  return loaded[name] ??= await loadModel(new URL(`${name}/`, folder), (k, n) => tell(k / n, `loading ${name}`));
}

async function decode(data, folder, tell) {
  const {header, chunks, extras} = unpack(data);
  const {name} = check(header, await list(folder));
  if (chunks.length !== 1) throw new Refusal(`${chunks.length} chunks where one belongs; the file is damaged`);
  const begun = performance.now(), model = await ready(name, folder, tell), start = performance.now();
  const params = readParams(header.params, model.points.length), tables = await model.tables(params.number);
  const {y, repaired} = await readLatents({header, payload: chunks[0], params, model, tables, run: model.run, tell: (k, n) => tell(0.5 * k / n, "decoding")});
  const pixels = await synthesize(y, header, model, model.run, (k, n) => tell(0.5 + 0.5 * k / n, "decoding"));
  if (extras.alpha) await applyAlpha(extras.alpha, pixels, header.width, header.height);
  return {pixels, width: header.width, height: header.height, model: name, quality: params.quality, repaired, alpha: Boolean(extras.alpha), profile: extras.icc,
    others: Object.keys(extras).filter(e => !["alpha", "icc"].includes(e)), loading: start - begun, decoding: performance.now() - start};
}

async function answer({id, data, folder}) {
  try {
    const found = await decode(new Uint8Array(data), new URL(folder), (share, doing) => postMessage({id, share, doing}));
    postMessage({id, ...found}, [found.pixels.buffer]);
  } catch (error) {
    const memory = /memory|allocat/i.test(error.message) || error instanceof RangeError;
    postMessage({id, error: error instanceof Refusal ? error.message : memory ? "the picture needs more memory than this page has; decode it with stanhlic decompress" : `this browser cannot decode it (${error.message}); decode it with stanhlic decompress`});
  }
}

async function prepare(folder) {
  try { await ready((await list(folder))[0].name, folder, () => {}); } catch { /* fails again with a file, and is told then */ }
}

let last = Promise.resolve(); // one file after another
onmessage = ({data}) => { last = last.then(() => data.id ? answer(data) : prepare(new URL(data.folder))); };
