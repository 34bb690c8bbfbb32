// Scale indexes, and the checksums by which a decoder finds those of its close calls that the encoder's machine decided the other way.
import {crc32, refuse} from "./bytes.js";

const BLOCK = 2 ** 16, CLOSE = 2 ** -14, DOUBTS = 20;
export const DESYNC = "this browser's arithmetic gives other scales than the encoder's did; decode the file with stanhlic decompress";

const width = size => size > 2 ** 13 ? 4 : 2; // bytes of a block's checksum

export function checksumsLength(size) {
  const rest = size % BLOCK;
  return 4 * Math.floor(size / BLOCK) + (rest ? width(rest) : 0);
}

// Boundaries between the intervals of the scale table, in double and in single precision
export function boundaries(scales) {
  const exact = Float64Array.from(scales, s => s * (1 + 2 ** -10));
  return {exact, single: Float32Array.from(exact.subarray(0, -1))};
}

function indexOf(edges, scale) {
  let low = 0;
  for (let high = edges.length; low < high;) {
    const middle = low + high >> 1;
    if (edges[middle] < scale) low = middle + 1; else high = middle;
  }
  return low;
}

export function scaleIndexes(scale, edges) { return Uint8Array.from(scale, s => indexOf(edges.single, s)); }

// Positions of the closest calls of a block, the closest first, and the index on the other side
function doubts(rows, scale, edges) {
  const found = [];
  for (let at = 0; at < rows.length; at++) {
    const [low, high] = [1 - CLOSE, 1 + CLOSE].map(f => indexOf(edges.single, Math.fround(scale[at] * f)));
    if (low !== high) found.push({at, other: rows[at] === low ? high : low, far: Math.abs(scale[at] / edges.exact[low] - 1)});
  }
  return found.sort((a, b) => a.far - b.far).slice(0, DOUBTS);
}

// Change of a block's CRC if the byte at a place changes
function effect(size, place, change) {
  const zeros = new Uint8Array(size), plain = crc32(zeros);
  zeros[place] = change;
  return crc32(zeros) ^ plain;
}

// Which effects add up to the difference; null if no set does
export function subset(effects, difference) {
  const basis = [];
  const reduce = (value, mask) => {
    for (let found; value && (found = basis[Math.clz32(value)]); value ^= found[0]) mask ^= found[1];
    return [value, mask];
  };
  effects.forEach((one, j) => {
    const [value, mask] = reduce(one, 1 << j);
    if (value) basis[Math.clz32(value)] = [value, mask];
  });
  const [rest, members] = reduce(difference, 0);
  return rest ? null : effects.flatMap((_, j) => members >> j & 1 ? [j] : []);
}

// The encoder's indexes, from those computed here and the encoder's checksums; refused if close calls do not explain the difference
export function settle(rows, scale, checksums, edges) {
  const out = rows.slice();
  let repaired = 0;
  for (let a = 0, at = 0; a < out.length; a += BLOCK) {
    const block = out.subarray(a, a + BLOCK), bytes = width(block.length), mask = bytes === 4 ? -1 : 0xffff;
    let difference = crc32(block) & mask;
    checksums.subarray(at, at += bytes).forEach((byte, i) => { difference ^= byte << 8 * i; });
    if (!difference) continue;
    const close = doubts(block, scale.subarray(a, a + BLOCK), edges);
    const chosen = subset(close.map(d => effect(block.length, d.at, block[d.at] ^ d.other) & mask), difference);
    if (!chosen) refuse(DESYNC);
    for (const j of chosen) block[close[j].at] = close[j].other;
    repaired += chosen.length;
  }
  return {rows: out, repaired};
}
