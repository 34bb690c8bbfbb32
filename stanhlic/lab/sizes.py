"""Pictures from one to a hundred megapixels: processor seconds and memory of each, in processes of their own."""
import sys
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..datasets import sample_photograph
from ..errors import StanhlicError
from ..evaluate import environment, write_results
from .startup import output

SIZES = {1: (1152, 864), 4: (2304, 1728), 12: (4000, 3000), 24: (6000, 4000), 100: (12_240, 8160)}  # megapixels: width, height
MODELS = {"stanh-compact": 50, "progressive-compact": 50, "rnn-compact": 50}  # quality
JOB = """
import os, time, torch
torch.set_num_threads(1)
from stanhlic.lab.bench import peak_memory
from stanhlic.lab.sizes import picture
from stanhlic.zoo import load_codec
from stanhlic.errors import NotEnoughMemory
codec = load_codec({model!r}, "cpu")
source = picture({width}, {height}) if {job!r} == "encode" else open({path!r}, "rb").read()
codec.decode(codec.encode(picture(128, 64), {quality}))
loaded, start = peak_memory(), time.process_time()
try:
    if {job!r} == "encode": open({path!r}, "wb").write(codec.encode(source, {quality}))
    else: codec.decode(source)
    print(time.process_time() - start, peak_memory() - loaded, os.path.getsize({path!r}))
except NotEnoughMemory as e: print("refused:", e)
"""


def picture(
    width: int,
    height: int,
) -> np.ndarray:  # uint8 [height, width, 3]
    """The sample photograph at its own size, mirrored at its borders as often as it takes."""
    tile = sample_photograph()[:height, :width]
    return np.pad(tile, ((0, height - tile.shape[0]), (0, width - tile.shape[1]), (0, 0)), "symmetric")


def measure(
    model: str,       # name
    quality: float,
    sizes: tuple = tuple(SIZES),  # megapixels
) -> list:            # rows: model, megapixels, job, processor seconds, seconds per megapixel, memory in MB over that of the loaded model and the picture; or why not
    """Encoding and decoding of each size."""
    rows = []
    for megapixels in tqdm(sizes, desc=model, disable=len(sizes) < 2):
        width, height = SIZES[megapixels]
        with tempfile.TemporaryDirectory() as folder:
            for job in ("encode", "decode"):
                row = dict(model=model, megapixels=megapixels, width=width, height=height, job=job)
                try: said = output(JOB.format(model=model, quality=quality, width=width, height=height, job=job, path=str(Path(folder, "a.slic"))), threads=1).strip()
                except StanhlicError as e: raise StanhlicError(f"{model}, {width}x{height}, {job}: {e}") from e
                if said.startswith("refused: "):
                    rows.append(row | dict(refused=said.removeprefix("refused: ")))
                    break
                seconds, memory, size = map(float, said.split())
                rows.append(row | dict(seconds=round(seconds, 2), per_megapixel=round(seconds / (width * height / 1e6), 3), memory=round(memory), bytes=int(size)))
    return rows


def main(
    out: str = "figures/bench/sizes.json",
    largest: float = 100,  # megapixels
) -> dict:
    """Measure the models that ship, and write the numbers."""
    rows, sizes = [], tuple(n for n in SIZES if n <= float(largest))
    for model, quality in MODELS.items():
        rows += measure(model, quality, sizes)
        result = dict(what="pictures by size: processor seconds on one thread, and memory beside the loaded model", machine=environment("cpu"), rows=rows)
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        write_results(out, result)
    return result


if __name__ == "__main__": main(*sys.argv[1:3])
