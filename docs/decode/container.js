// The .slic container: header, then chunks, each with a checksum. Nothing is believed before its checksum has passed.
import {bytesOf, crc32, hex, readVarint, refuse, writeVarint} from "./bytes.js";

const KINDS = {1: "stanh", 2: "rnn", 3: "progressive"}, VERSION = 2; // of stanh files, which are decoded here
const EXTRAS = {1: "icc", 2: "alpha", 3: "exif", 4: "xmp"}, HAS_EXTRAS = 0x80;
const MAX_SIDE = 65535, MAX_PIXELS = 2 ** 28, MAX_PARAMS = 4096, MAX_CHUNKS = 65536, MAX_EXTRAS = 16;

// Reads the header from its start; every step fails where the data ends
class Reader {
  constructor(data) { this.data = data; this.at = 0; }

  take(size) {
    if (this.data.length < this.at + size) refuse(`the file is cut inside its header, after ${this.data.length} bytes; fetch it again`);
    this.at += size;
    return this.data.subarray(this.at - size, this.at);
  }

  number() {
    const seen = this.data.subarray(this.at, this.at + 5);
    if (seen.length < 5 && seen.every(byte => byte >= 0x80)) this.take(5);
    const [value, end] = readVarint(this.data, this.at);
    this.at = end;
    return value;
  }
}

function checkSize(height, width) {
  if (!(height > 0 && width > 0 && height <= MAX_SIDE && width <= MAX_SIDE && height * width <= MAX_PIXELS))
    refuse(`picture of ${width}x${height} pixels; sides go from 1 to ${MAX_SIDE} and ${MAX_PIXELS} pixels are the limit`);
}

function readExtras(reader) {
  const size = reader.number();
  if (size > MAX_EXTRAS) refuse(`the header claims ${size} extras, at most ${MAX_EXTRAS} are allowed; the file is damaged`);
  return Array.from({length: size}, () => ({number: reader.take(1)[0], place: reader.number()}));
}

// {kind, fingerprint, height, width, params, extras: [{number, place}], count: chunks of the codec, end, crc}
export function readHeader(data) {
  if (!data.length) refuse("the file is empty; fetch it again");
  const start = data.subarray(0, 4);
  if (start.some((byte, i) => byte !== "SLIC".charCodeAt(i))) refuse(`not a .slic file (it starts with ${hex(start)}); give one that stanhlic compress wrote`);
  const reader = new Reader(data);
  reader.take(4);
  const [version] = reader.take(1), [code] = reader.take(1), kind = KINDS[code & ~HAS_EXTRAS];
  if (kind === "stanh" && version !== VERSION)
    refuse(`the file has format version ${version}, this page reads version ${VERSION} of stanh; ${version > VERSION ? "a newer page reads it" : "an earlier version of the package decodes it"}, or the file is damaged`);
  const fingerprint = hex(reader.take(8)), height = reader.number(), width = reader.number(), size = reader.number();
  if (size > MAX_PARAMS) refuse(`the header claims ${size} bytes of parameters, at most ${MAX_PARAMS} are allowed; the file is damaged`);
  const params = reader.take(size), extras = code & HAS_EXTRAS ? readExtras(reader) : [], count = reader.number(), crc = crc32(data.subarray(0, reader.at));
  if (hex(bytesOf(crc)) !== hex(reader.take(4))) refuse("the header fails its checksum; the file is damaged, fetch it again");
  if (count > MAX_CHUNKS) refuse(`the header claims ${count} chunks, at most ${MAX_CHUNKS} are allowed; the file is not ours`);
  if (!kind) refuse(`codec number ${code & ~HAS_EXTRAS} is unknown to this page; decode the file with a newer stanhlic`);
  const places = new Set(extras.map(e => e.place)), numbers = new Set(extras.map(e => e.number));
  if (extras.some(e => e.place >= count + extras.length) || places.size + numbers.size < 2 * extras.length)
    refuse("the header's list of extras is impossible; the file is damaged or forged");
  checkSize(height, width);
  return {kind, fingerprint, height, width, params, extras, count, end: reader.at, crc};
}

function chunkCrc(headerCrc, number, length, payload) { return hex(bytesOf(crc32(payload, crc32(length, headerCrc + number >>> 0)))); }

// The chunk at an offset: {payload, end}; `what` is its name, for the refusal
function readChunk(data, at, crc, number, what) {
  const cut = missing => refuse(`the file is cut after ${data.length} bytes: ${what} ${missing}; fetch it again`);
  const damaged = () => refuse(`${what} fails its checksum; the file is damaged, fetch it again`);
  if (data.length < at + 5 && data.subarray(at).every(byte => byte >= 0x80)) cut("is incomplete");
  let size, start;
  try { [size, start] = readVarint(data, at); } catch { damaged(); }
  const payload = data.subarray(start, start + size), end = start + size + 4;
  if (data.length >= end) return chunkCrc(crc, number, data.subarray(at, start), payload) === hex(data.subarray(start + size, end)) ? {payload, end} : damaged();
  const real = data.length - start - 4; // what the payload has if it is whole and its length was damaged
  if (real >= 0 && chunkCrc(crc, number, writeVarint(real), data.subarray(start, start + real)) === hex(data.subarray(-4))) damaged();
  cut(start + size > data.length ? `lacks ${start + size - data.length} bytes` : "is incomplete");
}

// {header, chunks, extras: name -> payload} of a whole file
export function unpack(data) {
  const header = readHeader(data), names = new Map(header.extras.map(e => [e.place, EXTRAS[e.number] ?? `extra ${e.number}`])), chunks = [], extras = {};
  let at = header.end;
  for (let number = 0; number < header.count + names.size; number++) {
    const name = names.get(number), found = readChunk(data, at, header.crc, number, name ? `its ${name}` : `chunk ${chunks.length + 1} of ${header.count}`);
    at = found.end;
    if (name) extras[name] = found.payload; else chunks.push(found.payload);
  }
  if (data.length > at) refuse(`${data.length - at} bytes follow the last chunk; the file is damaged or was joined to another`);
  return {header, chunks, extras};
}
