// Refusals, variable-length integers and CRC-32: what everything else is read with.

export class Refusal extends Error {}

export function refuse(why) { throw new Refusal(why); }

// [value, offset behind it] of a LEB128 integer below 2 ** 35
export function readVarint(data, offset) {
  let value = 0;
  for (let place = 0; place < 5; place++) {
    if (offset + place >= data.length) refuse("a number is cut off by the end of the data; fetch the file again");
    const byte = data[offset + place];
    value += (byte & 0x7f) * 2 ** (7 * place);
    if (byte < 0x80) {
      if (byte === 0 && place) break;
      return [value, offset + place + 1];
    }
  }
  refuse("a number is spelled as no encoder spells it; the data is damaged, fetch it again");
}

export function writeVarint(value) {
  const out = [];
  for (; value > 0x7f; value = Math.floor(value / 128)) out.push(value % 128 + 128);
  return Uint8Array.from([...out, value]);
}

// [values, offset behind them] of a list of signed integers; a count that cannot be is refused before anything is allocated
export function readIntegers(data, most, offset = 0) {
  let count;
  [count, offset] = readVarint(data, offset);
  if (count > Math.min(most, data.length - offset)) refuse(`a list claims ${count} values where ${most} are possible; the data is damaged, fetch it again`);
  const values = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    let folded;
    [folded, offset] = readVarint(data, offset);
    if (folded >= 2 ** 32) refuse("an escaped value is beyond 32 bits; the data is damaged, fetch it again");
    values[i] = folded % 2 ? -(folded + 1) / 2 : folded / 2;
  }
  return [values, offset];
}

const TABLE = Uint32Array.from({length: 256}, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? n >>> 1 ^ 0xedb88320 : n >>> 1;
  return n;
});

export function crc32(data, crc = 0) {
  crc = ~crc;
  for (let i = 0; i < data.length; i++) crc = TABLE[(crc ^ data[i]) & 0xff] ^ crc >>> 8;
  return ~crc >>> 0;
}

// CRC-32 of arrays of integers: of each its length in 8 bytes, then its values in 4
export function stateCrc(...arrays) {
  let crc = 0;
  for (const array of arrays) {
    crc = crc32(new Uint8Array(Uint32Array.of(array.length, 0).buffer), crc);
    crc = crc32(new Uint8Array(Int32Array.from(array).buffer), crc);
  }
  return crc;
}

export const bytesOf = number => new Uint8Array(Uint32Array.of(number).buffer);

export const hex = data => Array.from(data, byte => byte.toString(16).padStart(2, "0")).join("");
