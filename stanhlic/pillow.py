"""Pillow reads and writes `.slic` files once this module is imported: `Image.open("photo.slic")`, `image.save("photo.slic", quality=50)`."""
import numpy as np
from PIL import Image, ImageFile

from . import decode, encode
from .container import MAGIC, extras, read_header

FORMAT = "SLIC"
KEYS = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp"}  # metadata as Pillow names it
LONGEST_HEADER = 4352  # bytes; parameters take up to 4096
_OPTIONS = ("quality", "target_bpp", "target_bytes", "target_psnr", "layers", "model", "device", "effort")


class SlicImageFile(ImageFile.ImageFile):
    """A `.slic` file as a Pillow image, RGBA if it has alpha: size and metadata are known at once, its colors are decoded on first use."""
    format, format_description = FORMAT, "learned image compression (stanhlic)"

    def _open(self) -> None:
        header = read_header(self.fp.read(LONGEST_HEADER))
        names = header.carried.values()
        self._size, self._mode, self.tile = (header.width, header.height), "RGBA" if "alpha" in names else "RGB", []
        self.info = {"kind": header.kind, "fingerprint": header.fingerprint.hex()}
        if names:
            self.fp.seek(0)
            self.info |= {KEYS[k]: v for k, v in extras(self.fp.read(), KEYS).items()}
        self._whole = False

    def load(self) -> "Image.core.PixelAccess | None":
        """Decode the file; warns if it is cut, raises `StanhlicError` if there is no picture in it."""
        if not self._whole:
            self.fp.seek(0)
            data = self.fp.read()
            picture = decode(data)
            if self.mode == "RGBA": picture = np.dstack([picture, extras(data, ("alpha",)).get("alpha", np.full(picture.shape[:2], 255, np.uint8))])
            self.im, self._whole = Image.fromarray(picture).im, True
            if self._exclusive_fp: self.fp.close()
            self.fp = None
        return super().load()


def _save(image: Image.Image, fp, filename) -> None:
    "`save` takes what `stanhlic.encode` takes, and `icc_profile`, `exif` and `xmp` in place of the image's own; what is not RGB is converted or refused by the rules of `stanhlic.images`"
    given = image.encoderinfo
    if own := {k: given[k].tobytes() if isinstance(given[k], Image.Exif) else given[k] for k in KEYS.values() if k in given}:
        image = image.copy()
        image.info |= own
    fp.write(encode(image, **{k: given[k] for k in _OPTIONS if k in given}))


Image.register_open(FORMAT, SlicImageFile, lambda prefix: prefix[:4] == MAGIC)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, ".slic")
Image.register_mime(FORMAT, "image/x-slic")
