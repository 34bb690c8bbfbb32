"""Pillow reads and writes `.slic` files once this module is imported: `Image.open("photo.slic")`, `image.save("photo.slic", quality=50)`."""
from PIL import Image, ImageFile

from . import decode, encode
from .container import MAX_PARAMS, MAGIC, read_header

FORMAT = "SLIC"
_OPTIONS = ("quality", "target_bpp", "target_bytes", "target_psnr", "layers", "model", "device", "effort")


class SlicImageFile(ImageFile.ImageFile):
    """A `.slic` file as a Pillow image: its size is known at once, its pixels are decoded on first use."""
    format, format_description = FORMAT, "learned image compression (stanhlic)"

    def _open(self) -> None:
        header = read_header(self.fp.read(MAX_PARAMS + 64))
        self._size, self._mode, self.tile = (header.width, header.height), "RGB", []
        self.info = {"kind": header.kind, "fingerprint": header.fingerprint.hex()}
        self._whole = False

    def load(self) -> "Image.core.PixelAccess | None":
        """Decode the file; warns if it is cut, raises `StanhlicError` if there is no picture in it."""
        if not self._whole:
            self.fp.seek(0)
            picture = decode(self.fp.read())
            self.im, self._whole = Image.fromarray(picture).im, True
            if self._exclusive_fp: self.fp.close()
            self.fp = None
        return super().load()


def _save(image: Image.Image, fp, filename) -> None:
    "`save` takes what `stanhlic.encode` takes; what is not RGB is converted or refused by the rules of `stanhlic.images`"
    fp.write(encode(image, **{k: image.encoderinfo[k] for k in _OPTIONS if k in image.encoderinfo}))


Image.register_open(FORMAT, SlicImageFile, lambda prefix: prefix[:4] == MAGIC)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, ".slic")
Image.register_mime(FORMAT, "image/x-slic")
