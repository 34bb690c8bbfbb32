"""What bfloat16 transforms cost: every picture written and read in both precisions, with real files."""
import itertools
import sys
import time
from pathlib import Path

from tqdm import tqdm

from ..datasets import demo_images
from ..evaluate import environment, write_results
from ..metrics import bpp, psnr
from ..zoo import load_codec

MODELS = {"stanh-compact": (10, 50, 90), "stanh-zou22-compact": (10, 50, 90), "progressive-compact": (1, 10, 100), "rnn-compact": (0, 100)}
FORMS = ("fp32", "bf16")


def _seconds(call, *args):
    "What a call returns, and the processor seconds that it took"
    start = time.process_time()
    return call(*args), time.process_time() - start


def compare(
    name: str,         # model
    pictures: list,    # [(name, uint8 [H, W, 3]), ...]
    qualities: tuple,
) -> list:             # rows: model, quality, wrote, read, bpp, dB, and processor seconds of analysis, writing and decoding, means over the pictures
    """Rate and PSNR of each quality for both precisions of the encoder and of the decoder."""
    codecs, sums = {form: load_codec(name, "cpu", form) for form in FORMS}, {}
    for (_, picture), wrote in tqdm(list(itertools.product(pictures, FORMS)), desc=name, disable=len(pictures) < 2):
        analysis, analyze = _seconds(codecs[wrote].analyze, picture)
        for quality in qualities:
            data, write = _seconds(codecs[wrote].encode, analysis, quality)
            for read in FORMS:
                shown, decode = _seconds(codecs[read].decode, data)
                row = (bpp(len(data), *picture.shape[:2]), psnr(picture, shown), analyze, write, decode)
                sums[quality, wrote, read] = [a + b for a, b in zip(sums.get((quality, wrote, read), (0,) * 5), row)]
    mean = lambda values: [round(v / len(pictures), 4) for v in values]
    return [dict(model=name, quality=q, wrote=w, read=r, **dict(zip(("bpp", "psnr", "analyze_s", "write_s", "decode_s"), mean(v)))) for (q, w, r), v in sums.items()]


def costs(
    rows: list,  # of `compare`
) -> list:       # rows: model, quality, dB lost, and rate in percent, with one side or both in bf16
    """What each use of bfloat16 costs against fp32 on both sides."""
    at, out = {(r["model"], r["quality"], r["wrote"], r["read"]): r for r in rows}, []
    for model, quality in dict.fromkeys((r["model"], r["quality"]) for r in rows):
        plain = at[model, quality, "fp32", "fp32"]
        for wrote, read in (("fp32", "bf16"), ("bf16", "fp32"), ("bf16", "bf16")):
            r = at[model, quality, wrote, read]
            out.append(dict(model=model, quality=quality, wrote=wrote, read=read, dB=round(r["psnr"] - plain["psnr"], 4), rate=round(100 * (r["bpp"] / plain["bpp"] - 1), 3)))
    return out


def main(
    out: str = "figures/bench/precision.json",
    limit: int = None,  # pictures
) -> dict:
    """Measure on Kodak, or on what is here instead, and write the numbers."""
    (pictures, what), out, rows = demo_images(limit), Path(out), []
    out.parent.mkdir(parents=True, exist_ok=True)
    for name, qualities in MODELS.items():
        rows += compare(name, pictures, qualities)
        result = dict(what="bfloat16 transforms against fp32, real files", pictures=what, machine=environment("cpu"), rows=rows, costs=costs(rows))
        write_results(out, result)
    return result


if __name__ == "__main__": main(*sys.argv[1:2])
