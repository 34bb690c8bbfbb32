// Integer tables and the range decoder over them; every operation is exact.
import {refuse, stateCrc} from "./bytes.js";

const SUM = 2 ** 24; // of every table row

// Tables [rows, symbols] of frequencies that are at least 1 and sum to 2 ** 24 in each row
export class Tables {
  constructor(frequencies, rows, symbols) {
    this.rows = rows; this.symbols = symbols;
    this.crc = stateCrc([rows, symbols], frequencies);
    this.starts = new Uint32Array(rows * (symbols + 1)); // of each symbol's interval, and the end of the last
    for (let row = 0, to = 0, from = 0; row < rows; row++, to++) {
      for (let k = 0; k < symbols; k++, to++) {
        if (!(frequencies[from] >= 1)) refuse("a table of this page is damaged; load the page again");
        this.starts[to + 1] = this.starts[to] + frequencies[from++];
      }
      if (this.starts[to] !== SUM) refuse("a table of this page is damaged; load the page again");
    }
  }
}

// First-in-first-out range decoder with 64 bits of state. Range and distance of the message from the interval's lower end
// are each kept as two integers, high * 2 ** 24 + low: the range divided by 2 ** 24 is then its high part, and
// products with a frequency stay below 2 ** 53, where doubles are exact.
export class SymbolDecoder {
  constructor(data) {
    this.data = data; this.at = 8;
    this.rangeHigh = 2 ** 40 - 1; this.rangeLow = SUM - 1;
    const byte = i => data[i] ?? 0;
    this.high = (byte(0) * 2 ** 32 + byte(1) * 2 ** 24 + byte(2) * 2 ** 16 + byte(3) * 2 ** 8 + byte(4));
    this.low = byte(5) * 2 ** 16 + byte(6) * 2 ** 8 + byte(7);
  }

  // Symbols under the table of each; grouped by table, as they were encoded
  decode(indexes, tables) {
    const next = new Uint32Array(tables.rows + 1), order = new Uint32Array(indexes.length), symbols = new Int32Array(indexes.length);
    for (const row of indexes) next[row + 1]++;
    for (let row = 1; row <= tables.rows; row++) next[row] += next[row - 1];
    const ends = next.slice(1);
    for (let i = 0; i < indexes.length; i++) order[next[indexes[i]]++] = i;
    for (let row = 0, k = 0; row < tables.rows; row++)
      for (; k < ends[row]; k++) symbols[order[k]] = this.symbol(tables.starts, row * (tables.symbols + 1), tables.symbols);
    return symbols;
  }

  symbol(starts, first, count) {
    const scale = this.rangeHigh, upper = Math.floor(scale / SUM), lower = scale - upper * SUM;
    const near = (this.high * SUM + this.low) / scale;
    let k = first;
    for (let end = first + count; end - k > 1;) {
      const middle = k + end >> 1;
      if (starts[middle] <= near) k = middle; else end = middle;
    }
    for (;;) { // `near` is rounded, so that the symbol may be the next one or the one before
      const start = starts[k], size = starts[k + 1] - start;
      const product = lower * start, carry = Math.floor(product / SUM);
      let high = this.high - upper * start - carry, low = this.low - (product - carry * SUM);
      if (low < 0) { low += SUM; high--; }
      if (high < 0) { k--; continue; }
      const width = lower * size, over = Math.floor(width / SUM);
      const rangeHigh = upper * size + over, rangeLow = width - over * SUM;
      if (high > rangeHigh || high === rangeHigh && low >= rangeLow) {
        if (++k < first + count) continue;
        refuse("coded symbols are damaged or belong to another model; fetch the file again");
      }
      this.high = high; this.low = low; this.rangeHigh = rangeHigh; this.rangeLow = rangeLow;
      if (rangeHigh < 256) this.shift();
      return k - first;
    }
  }

  // 32 more bits
  shift() {
    const byte = () => this.data[this.at++] ?? 0;
    this.rangeHigh = (this.rangeHigh * SUM + this.rangeLow) * 256; this.rangeLow = 0;
    this.high = (this.high * SUM + this.low) * 256 + byte();
    this.low = byte() * 2 ** 16 + byte() * 2 ** 8 + byte();
  }
}

// Frequencies of one position of a block: its first table, how the second differs from it, then second differences,
// each as four planes of bytes of folded integers
export function readFrequencies(planes, size, position) {
  const values = new Int32Array(size), steps = new Int32Array(size);
  if (planes.length < (position + 1) * 4 * size) refuse("a table of this page is damaged; load the page again");
  for (let p = 0; p <= position; p++) {
    const at = p * 4 * size;
    for (let i = 0; i < size; i++) {
      const folded = planes[at + i] + planes[at + size + i] * 2 ** 8 + planes[at + 2 * size + i] * 2 ** 16 + planes[at + 3 * size + i] * 2 ** 24;
      const value = folded % 2 ? -(folded + 1) / 2 : folded / 2;
      if (p < 2) steps[i] = value; else steps[i] += value;
      values[i] += steps[i];
    }
  }
  return values;
}
