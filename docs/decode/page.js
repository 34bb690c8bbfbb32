// The page: takes a file, hands it to the worker, shows what comes back.
import {pngOf} from "./png.js";

const LARGEST = 2 ** 28; // bytes of a file
const at = id => document.getElementById(id), whole = n => n.toLocaleString("en-US"), seconds = ms => `${(ms / 1000).toFixed(2)} s`;
const worker = new Worker(new URL("worker.js", import.meta.url), {type: "module"}), folder = new URL("models/", import.meta.url).href;
let id = 0, file = null, shown = null;

function state(name) { document.body.dataset.state = name; } // empty, busy, shown or refused

function say(text) { at("error").textContent = text; state("refused"); }

async function take(given) {
  id++; file = {name: given.name, size: given.size};
  at("file").textContent = given.name; at("bar").removeAttribute("value"); at("doing").textContent = "reading";
  state("busy");
  if (given.size > LARGEST) return say(`a file of ${whole(given.size)} bytes is more than this page reads; decode it with stanhlic decompress`);
  const mine = id, data = await given.arrayBuffer().catch(() => null);
  if (mine !== id) return;
  if (data) worker.postMessage({id, data, folder}, [data]); else say("the file cannot be read; choose it again");
}

async function show(found) {
  const canvas = at("picture"), {pixels, width, height, profile} = shown = found;
  canvas.width = width; canvas.height = height;
  const pen = canvas.getContext("2d");
  pen.putImageData(new ImageData(pixels, width, height), 0, 0);
  if (profile) { // as the profile says; the picture is shown without it where a browser does not know it
    const seen = await createImageBitmap(await pngOf(pixels, width, height, found.alpha, profile)).catch(() => null);
    if (shown !== found) return;
    if (seen) { pen.clearRect(0, 0, width, height); pen.drawImage(seen, 0, 0); }
  }
  canvas.setAttribute("aria-label", `${file.name}, ${width} by ${height} pixels`);
  at("bytes").textContent = whole(file.size);
  at("bpp").textContent = (8 * file.size / (width * height)).toFixed(4);
  at("size").textContent = `${width} × ${height}`;
  at("model").textContent = found.model;
  at("quality").textContent = String(Number(found.quality.toPrecision(4)));
  at("time").textContent = seconds(found.decoding);
  const notes = [
    found.loading > 50 && `Loading the model took ${seconds(found.loading)} before that; it stays for the next file.`,
    found.repaired && `${whole(found.repaired)} coding table${found.repaired > 1 ? "s" : ""} that this browser would have chosen differently ${found.repaired > 1 ? "were" : "was"} found by checksum and set right.`,
    profile && "The color profile is kept in the PNG.",
    found.others.length && `The file also carries ${found.others.join(" and ")}; the PNG is without, stanhlic decompress keeps it.`,
  ];
  at("notes").replaceChildren(...notes.filter(Boolean).map(text => Object.assign(document.createElement("p"), {textContent: text})));
  state("shown");
}

worker.onmessage = ({data}) => {
  if (data.id !== id) return;
  if (data.error) say(data.error);
  else if (data.pixels) show(data);
  else { at("bar").value = data.share; at("doing").textContent = data.doing; }
};
worker.postMessage({folder});
worker.onerror = () => say("the decoder does not start in this browser; take a newer one, or stanhlic decompress");

async function save() {
  const {pixels, width, height, alpha, profile} = shown, address = URL.createObjectURL(await pngOf(pixels, width, height, alpha, profile));
  Object.assign(document.createElement("a"), {href: address, download: file.name.replace(/(\.slic)?$/i, ".png")}).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

async function example() {
  const answer = await fetch(new URL("example.slic", import.meta.url)).catch(() => null);
  if (answer?.ok) take(new File([await answer.blob()], "example.slic")); else say("the example is not there; choose a file of your own");
}

at("choose").onchange = ({target}) => { if (target.files.length) take(target.files[0]); target.value = ""; };
at("save").onclick = save;
at("example").onclick = example;
document.ondragover = event => { event.preventDefault(); document.body.classList.add("over"); };
document.ondragleave = event => { if (!event.relatedTarget) document.body.classList.remove("over"); };
document.ondrop = event => {
  event.preventDefault();
  document.body.classList.remove("over");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
};
state("empty");
