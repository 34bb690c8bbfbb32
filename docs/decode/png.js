// A PNG file of pixels, with their alpha and color profile; a canvas would lose both.
import {crc32} from "./bytes.js";

const word = n => Uint8Array.of(n >>> 24, n >>> 16, n >>> 8, n);

const letters = text => Uint8Array.from(text, c => c.charCodeAt(0));

function chunk(name, ...parts) {
  const body = [letters(name), ...parts];
  return [word(parts.reduce((n, part) => n + part.length, 0)), ...body, word(body.reduce((crc, part) => crc32(part, crc), 0))];
}

// Rows, each as its difference from the row above; alpha is left out where a picture has none
function filtered(pixels, width, height, channels) {
  const out = new Uint8Array(height * (1 + width * channels));
  for (let y = 0, to = 0; y < height; y++) {
    out[to++] = y ? 2 : 0;
    for (let x = 0, at = 4 * y * width; x < width; x++, at += 4)
      for (let c = 0; c < channels; c++) out[to++] = pixels[at + c] - (y ? pixels[at + c - 4 * width] : 0);
  }
  return out;
}

// Blob of pixels RGBA; `profile` is a color profile as a .slic file carries it, compressed
export async function pngOf(pixels, width, height, alpha, profile) {
  const channels = alpha ? 4 : 3, stream = new Blob([filtered(pixels, width, height, channels)]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = new Uint8Array(await new Response(stream).arrayBuffer());
  const head = chunk("IHDR", word(width), word(height), Uint8Array.of(8, alpha ? 6 : 2, 0, 0, 0));
  const color = profile ? chunk("iCCP", letters("profile\0\0"), profile) : [];
  return new Blob([Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10), ...head, ...color, ...chunk("IDAT", data), ...chunk("IEND")], {type: "image/png"});
}
