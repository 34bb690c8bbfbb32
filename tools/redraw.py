#!/usr/bin/env python3
"""Figures drawn again from the numbers beside them, by the cell of each notebook that draws; nothing is measured. `python tools/redraw.py [ITEM…]`

For a change of look. Items that are not here run in seconds: `stanhlic reproduce ITEM --profile compact --force`."""
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import nbformat  # noqa: E402
from stanhlic.datasets import sample_photograph  # noqa: E402
from stanhlic.errors import StanhlicError  # noqa: E402
from stanhlic.images import atomic_write  # noqa: E402
from stanhlic.lab.curves import Curve, classical_curves, published  # noqa: E402
from stanhlic.lab.items import middle  # noqa: E402
from stanhlic.lab.plots import as_png  # noqa: E402
from stanhlic.lab.reproduce import find_item  # noqa: E402


def code(notebook): return [c.source for c in nbformat.read(ROOT / "nbs/papers" / notebook, as_version=4).cells if c.cell_type == "code"]


def curves(figure):
    """The curves of one panel, or of a panel for each metric, in their order: {label: Curve}."""
    found = {}
    for panel in [figure] if "curves" in figure else figure.values():
        for c in panel["curves"]:
            own = found.setdefault(c["label"], Curve(c["method"], c["kind"], c["bpp"], None, None, c["label"], c["source"] or "kept"))
            if panel["metric"] == "psnr": own.psnr = c["psnr_db"]
            else: own.ms_ssim = [1 - 10 ** (-v / 10) for v in c["ms-ssim_db"]]
    return found


def reference(figure): return figure["reference"] if "curves" in figure else next(iter(figure.values()))["reference"]
def kept_as(k, label): return [(r[0], r[1]) for r in zip(k["curves"][label]["bpp"], k["curves"][label]["psnr"])]


def of_curves(k, **first):
    """What a notebook of rate-distortion curves draws: all of them, and by what name it knows the first ones."""
    every = list(curves(k["figure"]).values())
    return {"curves": every, "reference": reference(k["figure"])} | {name: every[at] for name, at in first.items()}


def all_systems(k):
    every, ours = curves(k["figure"]), {s: f"ours, {s}" for s in k["models"]}
    return {"curves": list(every.values()), "ours": {s: every[n] for s, n in ours.items()}, "rivals": {n: c for n, c in every.items() if c.kind == "measured"}, "missing": k["missing"], "full_set": k["kind"] != "smoke"}


def latent_width(k):
    wide, *others = curves(k["figure"]).values()
    return {"ours": wide, "slim": others[0], "others": dict(enumerate(others)), "places": k["places"]}


def ms_ssim(k):
    ours, *others = curves(k["figure"]).values()
    return {"ours": ours, "mse": others[0], "others": dict(enumerate(others))}


def progressive(k):
    mine, *others = curves(k["figure"]).values()
    return {"mine": mine, "rivals": {"stanh" if c.label == reference(k["figure"]) else c.label: c for c in others}, "papers": []}


def masking(k):
    orders = [n for n in k["bits_spent"] if n != "elements"]
    return {"points": {n: [list(zip(c.bpp, c.psnr))] for n, c in zip(orders, curves(k["figure"]).values())}, "shares": {n: [k["bits_spent"][n]] for n in orders}, "grid": np.array(k["bits_spent"]["elements"])}


def complexity(k): return {"release": k["release"], "totals": k["passes"], "clocks": k["seconds"], "codec": SimpleNamespace(name=list(k["passes"])[-1]), "torch": SimpleNamespace(get_num_threads=lambda: k["environment"]["threads"])}


def first_increment(k):
    before, after = k["curves"]
    return {"papers": {n: list(zip(c["bpp"], c["psnr"])) for n, c in k["published"].items()}, "mean": {n: np.array(kept_as(k, n)) for n in k["curves"]}, "plain": None, "before": before, "after": after}


def bit_allocation(k):
    middles = lambda values: [float(np.sqrt(a * b)) for a, b in zip(values, values[1:])]
    from stanhlic.rnn.training import PRESETS
    return {"tables": k["allocation"], "lambdas": k["lambdas"], "middles": middles, "candidates": {n: middles(PRESETS[n].lambdas) for n in ("rd-sheet", "readme")}, "codec": SimpleNamespace(layers=len(k["allocation"]["ours"]))}


def of_layers(k, labels):
    """Curves of recurrent models, one for each seed; `labels`: name -> color, label."""
    from stanhlic.lab.layered import layer_curve
    many = {n: [layer_curve(rows, labels[n][0], k["kind"], labels[n][1]) for rows in own] for n, own in k["table"].items()}
    return {"curves": many, "rows": k["table"], "labels": labels, "item": SimpleNamespace(kind=k["kind"], note=k["images"])}


def separate_starts(k):
    from stanhlic.lab.curves import published
    return of_layers(k, {"with": ("rnn", "with hyperprior"), "without": ("rnn-no-hyper", "without")}) | {"sheet": {"with": published("rnn-hyper", label="with, sheet", color="rnn"), "without": published("rnn-no-hyper", label="without, sheet")}}


def backbones(k):
    names = ("fixed", "learned", "manual")
    one = next(iter(k["figure"].values()))
    by = {c["label"]: n for c, n in zip(one["curves"], sorted(names, key=lambda n: [c["method"] for c in one["curves"]].index({"fixed": "stanh-fixed", "learned": "stanh", "manual": "stanh-manual"}[n])))}
    return {"curves": {a: {by[n]: c for n, c in curves(panel).items()} for a, panel in k["figure"].items()}, "labels": {"fixed": (None, one["reference"])}}


def interpolation(k):
    column = lambda name: np.array([p[name] for p in k["points"]])
    return {"rate": column("bpp"), "psnr": column("psnr"), "off": column("off_db"), "place": column("position"), "trained": column("trained"), "images": [None] * int(k["made_by"]["data"]["images"])}


def schedules(k):
    """The courses are computed again, by the cells that did it: of their values one in ten is kept."""
    from stanhlic.modelfile import load_weights, restore
    from stanhlic.stanh.model import build_model
    from stanhlic.zoo import model_path
    made, rows = k["made_by"]["parameters"], k["rows"]
    points = [p for p in restore(build_model, load_weights(model_path(made["model"]))).points if p.anchor == 0]
    first, *others = code("stanh/schedules_of_the_release.ipynb")
    space = {}
    exec(first, space)
    space |= {"anchor": next((p for p in points if p.kind == "anchor"), points[len(points) // 2]), "steps": made["steps"], "schedules": made["schedules"]}
    for cell in others:
        if "class Drawn(" in cell or "def course(" in cell: exec(cell, space)
    of = lambda name: np.array([r["loss"] for r in rows if r["schedule"] == name])
    return {"courses": space["courses"], "of": of, "means": {n: float(of(n).mean()) for n in made["schedules"]}, "best": k["best"]}


def tuned_for_ms_ssim(k):
    """Numbers of stanh/ms_ssim, None if they are of other weights than those here, and the model's name."""
    tuned = json.loads((ROOT / "figures/stanh/ms_ssim.json").read_text(encoding="utf-8"))
    name = tuned["made_by"]["parameters"]["model"]
    return tuned if k["made_by"]["weights"].get(name) == tuned["made_by"]["weights"][name] else None, name


def weights(k):
    """Beside PSNR, the MS-SSIM of the model that was trained for it: kept with stanh/ms_ssim, from the same weights and pictures."""
    tuned, name = tuned_for_ms_ssim(k)
    if tuned is None: raise StanhlicError("ours/weights and stanh/ms_ssim were measured on different weights; measure both again")
    known, systems = dict(zip(tuned["table"]["bpp"], tuned["table"]["ms-ssim-rgb"])), ("stanh", "rnn", "progressive")
    days = {(r["model"], r["version"]): r["day"] for r in k["versions"]}
    def one(c):
        own = c["model"] == name
        header = {"system": next(s for s in systems if c["model"].startswith(s)), "provenance": {"stages": [{"settings": {"metric": "ms-ssim"}}] if own else []}}
        return c["model"], c["version"], days[c["model"], c["version"]], header, Curve(header["system"], k["kind"], c["bpp"], c["psnr_db"], [known[b] for b in c["bpp"]] if own else None)
    before = {r["model"]: r["bd_rate"]["before"]["psnr"] for r in k["versions"] if r["bd_rate"]["before"]["psnr"] is not None}
    return {"measured": [one(c) for c in k["curves"]], "gained": before, "rivals": classical_curves(k["made_by"]["parameters"]["classical"], k["images"])}


def layers(k):
    """The means are kept; the picture that is shown, on which no number rests, is coded again."""
    first, *others = code("rnn/layers.ipynb")
    shown, space = "the picture shown", {}
    exec(first, space)
    space |= {"item": SimpleNamespace(model=k["made_by"]["parameters"]["model"]), "device": "cpu", "every": {shown: middle(sample_photograph(), find_item("rnn/layers")["parameters"]["compact"]["piece"])}}
    for cell in others:
        if "decode_folder(" in cell or "def blocks(" in cell: exec(cell, space)
    return {n: space[n] for n in ("every", "rows", "pictures", "maps", "codec")} | {"shown": shown, "means": k["table"], "sheet_layers": np.diff([0, *published("rnn-hyper").bpp])}


def of_variants(k):
    """The curves of trained variants, one for each seed, and the BD-rates between them."""
    return {"curves": {n: [Curve(c["method"], k["kind"], c["bpp"], c["psnr"], None, c["label"]) for c in own] for n, own in k["curves"].items()}, "bd": k["bd_rate"]}


def throughput(k): return {"rows": k["table"], "VARIANTS": dict.fromkeys(r["variant"] for r in k["table"])}


NAMES = {  # what the drawing cell of an item reads, from its kept numbers; beside kind, size, note and the parameters
    "stanh/rd_kodak": lambda k: of_curves(k, ours=0), "rnn/rd_kodak": lambda k: of_curves(k, ours=0) | {"sheet": curves(k["figure"])["RNN hyperprior, sheet"]}, "ours/all_systems": all_systems, "progressive/rd_kodak": progressive,
    "ours/latent_width": latent_width, "stanh/ms_ssim": ms_ssim, "rnn/ms_ssim": ms_ssim, "progressive/masking": masking, "progressive/complexity": complexity,
    "progressive/first_increment": first_increment, "rnn/bit_allocation": bit_allocation, "rnn/separate_starts": separate_starts,
    "rnn/eight_layers": lambda k: of_layers(k, {"four": ("rnn", "four layers"), "eight": ("stanh", "eight layers")}),
    "stanh/backbones": backbones, "stanh/hosts": backbones,
    "stanh/derivations": lambda k: {"curves": curves(k["figure"]), "labels": {"references": reference(k["figure"])}},
    "stanh/forms": lambda k: {"trained": dict.fromkeys(r["form"] for r in k["forms"]), "rows": k["forms"], "z_rows": k["interpolation_of_z"], "between": [float(r["between"]) for r in k["interpolation_of_z"]]},
    "stanh/interpolation": interpolation, "stanh/schedules_of_the_release": schedules, "ours/effort": lambda k: {"measured": k["measured"], "note": k["pieces"]}, "ours/throughput": throughput, "ours/weights": weights, "rnn/layers": layers,
    **{f"progressive/{n}": of_variants for n in ("decoder_stage", "trained_loops", "one_or_two", "rem_variants")},
    "ours/entropy_coders": lambda k: {"rows": k["rows"], "facts": k["machine"], "count": k["symbols"]},
}


def drawn(item, numbers):
    """The figure of an item from its kept numbers."""
    cells = code(item["notebook"])
    space = {}
    exec(cells[0], space)  # its imports
    space |= numbers["made_by"]["parameters"] | {"kind": numbers["kind"], "size": numbers["kind"], "item": SimpleNamespace(kind=numbers["kind"]), "note": numbers.get("images", "")} | NAMES[item["id"]](numbers)
    first = next(k for k, c in enumerate(cells) if "style()" in c.splitlines())
    for k, cell in enumerate(cells[first:]):
        if not k or "subplots(" in cell: exec(cell, space)
    return space["fig"] if "fig" in space else space["ax"].get_figure()


def files(item): return sorted(ROOT / o for o in item["outputs"])  # .json, .png


def kept():
    """The items here whose numbers are kept; ours/weights draws those of stanh/ms_ssim too, and is left out while they are of other weights."""
    there = {name: files(find_item(name))[0] for name in NAMES}
    return [name for name, file in there.items() if file.is_file() and (name != "ours/weights" or tuned_for_ms_ssim(json.loads(file.read_text(encoding="utf-8")))[0])]


def main():
    wanted = sys.argv[1:] or kept()
    if other := [n for n in wanted if n not in kept()]: raise StanhlicError(f"{other[0]}: not drawn from its numbers; stanhlic reproduce {other[0]} --profile compact --force")
    for name in wanted:
        item = find_item(name)
        numbers, picture = files(item)
        atomic_write(picture, as_png(drawn(item, json.loads(numbers.read_text(encoding="utf-8")))))
        plt.close("all")
        print(picture.relative_to(ROOT))


if __name__ == "__main__":
    try: main()
    except StanhlicError as e: sys.exit(f"redraw: {e}")
