// The networks of a model, run by onnxruntime on one core, and the files that lie beside them.
import * as ort from "./ort/ort.wasm.min.mjs";
import {refuse} from "./bytes.js";
import {readTables} from "./stanh.js";

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;

async function fetched(address) {
  const answer = await fetch(address).catch(() => refuse(`${address.pathname} did not arrive; load the page again`));
  if (!answer.ok) refuse(`${address.pathname} is not there; load the page again`);
  return answer;
}

export async function listModels(folder) { return (await fetched(new URL("models.json", folder))).json(); }

async function unzip(data) {
  const whole = new Response(new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip")));
  return new Uint8Array(await whole.arrayBuffer().catch(() => refuse("a table of this page is damaged; load the page again")));
}

// A model whose decoder is ready: what model.json says, `run(name, inputs)`, `tables(number)`; `tell(done, of)` is told of every network
export async function loadModel(folder, tell) {
  const about = await (await fetched(new URL("model.json", folder))).json(), sessions = {};
  if (about.anchors.length !== 1) refuse("this page decodes models of one anchor; decode the file with stanhlic decompress");
  const names = Object.keys(about.networks).filter(n => !["analysis", "hyper_analysis"].includes(n));
  for (const [k, name] of names.entries()) {
    const data = new Uint8Array(await (await fetched(new URL(`${name}.onnx`, folder))).arrayBuffer());
    if (data.length !== about.networks[name].bytes) refuse("a network of this page is damaged; load the page again");
    sessions[name] = await ort.InferenceSession.create(data);
    tell(k + 1, names.length);
  }
  const run = (name, inputs) => sessions[name].run(Object.fromEntries(Object.entries(inputs).map(([n, {data, dims}]) => [n, new ort.Tensor("float32", data, dims)])));
  const tables = async number => {
    const block = about.tables.find(b => b.first <= number && number < b.first + b.count);
    return readTables(block, await unzip(await (await fetched(new URL(block.file, folder))).arrayBuffer()), number);
  };
  return {...about, run, tables};
}
