"""What the items on the recurrent codec share: trainings that are kept, and files that are cut after each layer."""

import tempfile
from pathlib import Path
import numpy as np
from ..container import unpack
from ..evaluate import decode_folder
from ..metrics import bpp, ms_ssim, psnr
from ..modelfile import inspect_weights, model_path
from ..rnn.training import run
from ..zoo import load_codec
from .curves import Curve
from .items import Run

def trained(
    item: Run,
    settings: list,                   # name=value each, on top of the profile
    start: str | Path | None = None,  # name or path of the weights it starts from; None: random numbers, or what the profile begins with
) -> Path:                            # its weight file
    """A recurrent model, trained unless it is kept: items with equal parameters `store`, `profile` and `data` share what has the same start and settings.

    Raises `StanhlicError` as the training does."""
    v, origin = item.values, inspect_weights(model_path(start))["fingerprint"] if start else None
    folder = item.store(v["store"], profile=v["profile"], start=origin, settings=settings)
    file = folder / "model.safetensors"
    if not file.is_file(): run("train", v["profile"], v["data"] or None, folder, start, True, v["device"], settings)
    return file

def steps_of(
    file: str | Path,  # weights of a recurrent model
) -> int:
    """Optimizer steps of its stages as a recurrent codec."""
    return sum(s["plan"]["steps"] for s in inspect_weights(file)["provenance"].get("stages", []) if s.get("system", "rnn") == "rnn")

def measure_layers(
    file: str | Path,  # weights of a recurrent model
    images: list,      # [(name, uint8 [H, W, 3]), …]
    device: str,
) -> list:             # rows: image, layers, bytes, bpp, psnr, ms_ssim of the file cut there; z, y: bits per pixel of that layer's own chunks
    """Every picture compressed once, its file cut after each layer, each piece decoded in another process."""
    codec, rows = load_codec(file, device), []
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, array) in enumerate(images):
            whole = codec.encode(array)
            chunks = np.array([len(c) for c in unpack(whole)[1]]).reshape(codec.layers, -1)
            for k in range(1, codec.layers + 1):
                data = codec.truncate(whole, layers=k)
                Path(folder, f"{i:02d}_{k:02d}.slic").write_bytes(data)
                each = [bpp(n, *array.shape[:2]) for n in chunks[k - 1]]
                rows.append({"image": name, "layers": k, "bytes": len(data), "bpp": bpp(len(data), *array.shape[:2]), "z": sum(each[:-1]), "y": each[-1]})
        for (_, (picture, _)), row in zip(sorted(decode_folder(folder, file, device).items()), rows):
            array = dict(images)[row["image"]]
            row |= {"psnr": psnr(array, np.asarray(picture)), "ms_ssim": ms_ssim(array, np.asarray(picture))}
    return rows

def layer_means(
    rows: list,  # of `measure_layers`
) -> list:       # rows: layers, bpp, z, y, psnr, ms_ssim
    """Means over the pictures, a row for each number of layers."""
    return [{"layers": k} | {key: float(np.mean([r[key] for r in rows if r["layers"] == k])) for key in ("bpp", "z", "y", "psnr", "ms_ssim")} for k in sorted({r["layers"] for r in rows})]

def layer_curve(
    means: list,  # of `layer_means`
    method: str,  # chooses the color
    kind: str,    # of the numbers
    label: str,   # in legends and tables
) -> Curve:
    """The points of a file, one after each layer."""
    return Curve(method, kind, *([r[key] for r in means] for key in ("bpp", "psnr", "ms_ssim")), label)
