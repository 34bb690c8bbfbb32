// The alpha channel of a file: a WebP or PNG picture of one plane, which the browser decodes once its size has been found right.
import {refuse} from "./bytes.js";

// {type, width, height} that a picture without loss claims, or null
export function sizeOf(data) {
  const view = new DataView(data.buffer, data.byteOffset, data.length), tag = (at, size = 4) => String.fromCharCode(...data.subarray(at, at + size));
  if (data.length > 33 && tag(1, 3) === "PNG" && tag(12) === "IHDR") return {type: "image/png", width: view.getUint32(16), height: view.getUint32(20)};
  if (data.length > 25 && tag(0) === "RIFF" && tag(8, 8) === "WEBPVP8L" && data[20] === 0x2f) {
    const bits = view.getUint32(21, true);
    return {type: "image/webp", width: (bits & 0x3fff) + 1, height: (bits >>> 14 & 0x3fff) + 1};
  }
  return null;
}

// Alpha of each pixel into the fourth channel of `pixels`
export async function applyAlpha(data, pixels, width, height) {
  const found = sizeOf(data);
  if (found?.width !== width || found.height !== height) refuse("the alpha channel is not that of the picture; the file is damaged or forged");
  const unread = () => refuse("the alpha channel cannot be read; the file is damaged or forged");
  const picture = await createImageBitmap(new Blob([data], {type: found.type}), {colorSpaceConversion: "none", premultiplyAlpha: "none"}).catch(unread);
  const pen = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
  pen.drawImage(picture, 0, 0);
  const plane = pen.getImageData(0, 0, width, height).data;
  for (let i = 0; i < plane.length; i += 4) pixels[i + 3] = plane[i];
}
