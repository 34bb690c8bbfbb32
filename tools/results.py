#!/usr/bin/env python3
"""RESULTS.md, and the kept table in each paper notebook, from the registry and the numbers beside the figures. `--check` writes nothing and fails where something differs.

Nothing in either is typed in: other numbers come from running an item again, `stanhlic reproduce ITEM --profile compact`."""
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stanhlic.lab.items import kept_text  # noqa: E402
from stanhlic.lab.reproduce import SIZES, as_text, headline_tally, headline_verdicts, kept_numbers, list_items, overview, tally  # noqa: E402
from stanhlic.lab.tables import markdown, percent  # noqa: E402
from stanhlic.zoo import list_models  # noqa: E402

RESULTS = ROOT / "RESULTS.md"
NOTE = "<!-- Written by tools/results.py from nbs/papers/papers.yaml and figures/: run an item, then `make readme`. -->"
PAPERS = {
    "stanh": ("STanH", "The paper has 8 figures and 7 tables. Its Fig. 1 (architecture), 2 (activation), 3 (six anchors down to one), 4 (three data sets, 3 anchors and 3 derivations) and 5 (the same in MS-SSIM) are known by their captions; which numbers the others bear, and what the tables say, could not be consulted."),
    "progressive": ("Variance-aware masking", "The text of the paper's tables could not be consulted; what is held beside our numbers are the points of the release and counts of its code."),
    "rnn": ("RNN hyperprior", "The text of the paper could not be consulted; its numbers are the four points of the sheet in the authors' repository."),
    "ours": ("Ours, across systems", "Questions of this project, which no single paper asks."),
}
COLUMNS = ("item", "claim", "published", "from their points or code", "ours", "ours is", "held if", "rule written", "held")


def link(entry): return f"[{entry['id']}](nbs/papers/{entry['notebook']})" if entry["notebook"] else entry["id"]
def fold(title, body): return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def in_words(row):
    """What a verdict row says under `held`, with its sign in bold."""
    return f"**{row['verdict']}**" if row["verdict"] in ("yes", "no") else row["verdict"]


def headline_table(paper, verdicts):
    """The claims that a paper is known by: the rule of each, our number, and what became of it."""
    lines = []
    for claim in verdicts:
        if claim["paper"] != paper: continue
        for k, r in enumerate(claim["rules"]):
            text = as_text(r)
            lines.append({"": f"**{claim['letter']}**" if not k else "", "claim": claim["claim"] if not k else "", "rule": f"{r['says']}: {text['held if']}", "theirs": text["published"] or text["from their points or code"],
                          "ours": "" if r["ours"] is None else f"{text['ours']}, {text['ours is']}", "held": in_words(r), "item": f"`{r['item']}`"})
    return markdown(lines)


def outcome(entry, own):
    """What became of an item, in a few words."""
    if not own: return "a picture, or numbers without a claim" if entry["notebook"] else f"needs {entry['needs']}"
    words = {"yes": "held", "no": "did not", "undecided": "undecided", "needs": "not measured yet"}
    count = {text: sum(r["word"] == w for r in own) for w, text in words.items()}
    sums = [r for r in own if r["word"] == "arithmetic"]
    return ", ".join([f"{n} {text}" for text, n in count.items() if n] + [f"arithmetic: {sum(bool(r['holds']) for r in sums)} of {len(sums)} held"] * bool(sums)) + ("" if entry["notebook"] else f"; needs {entry['needs']}")


def figures_of(items, rows):
    """Every figure and table of a paper, one line each: what it shows, how it is decided, or what it needs."""
    def line(e):
        minutes = e["minutes"].get("compact")
        return {"item": link(e), "what it is": e["item"], "minutes": "" if minutes is None else f"{minutes:g}", "outcome": outcome(e, [r for r in rows if r["item"] == e["id"]])}
    return markdown([line(e) for e in items])


def items_of(items, rows):
    """Every rule of a paper, with the numbers that it judges."""
    lines = []
    for e in items:
        own = [r for r in rows if r["item"] == e["id"]]
        numbers = kept_numbers(e, ROOT)
        kind = SIZES.get(numbers.get("kind"), numbers.get("kind") or e["status"])
        minutes = f", {e['minutes']['compact']:g} min" if "compact" in e["minutes"] else ""
        lines.append({"item": link(e), "claim": f"*{e['item']}*{minutes}", "ours is": kind, "held": "" if own else "no rule decides it"})
        for r in own:
            lines.append({k: as_text(r)[k] for k in COLUMNS if k != "item"} | {"held": in_words(r)})
    return markdown([{k: line.get(k) for k in COLUMNS} for line in lines])


def further(items):
    """The numbers of a paper's items that no rule judges."""
    rows = [c | {"item": e["id"]} for e in items for c in kept_numbers(e, ROOT).get("claims", [])]
    return fold(f"{len(rows)} further numbers", markdown(rows)) if rows else ""


def sentence(count):
    """The tally of a paper in words."""
    words = ", ".join(f"{count[k]} {text}" for k, text in (("yes", "held"), ("no", "did not"), ("undecided", "undecided"), ("needs", "not measured")) if count[k])
    after = f"; {count['rule after']} of these rules were written when a measurement was already there" if count["rule after"] else "; every rule is older than the first measurement that it judges"
    sums = f" Checks of arithmetic, on published points or on code alone: {count['arithmetic']} held." if not count["arithmetic"].endswith(" 0") else ""
    return f"**{words or 'nothing is judged'}**{after}.{sums}"


BESIDE = ("ours/latent_width", "stanh/ms_ssim", "rnn/ms_ssim")  # items that measure a model which ours/all_systems does not


def measured_models():
    """name -> results in CompressAI's schema, of the shipped models on Kodak."""
    found, named = {}, lambda e: kept_numbers(e, ROOT)
    items = {e["id"]: e for e in list_items()}
    whole = named(items["ours/all_systems"])
    for system, results in whole.get("results", {}).items(): found[whole["models"][system]] = results
    for item in BESIDE:
        if item in items and (d := named(items[item])): found[d["made_by"]["parameters"]["model"]] = d["table"]
    return found


def made_by(model):
    """How a shipped file came to be, by its header: one run a stage from committed code, as the workflow does it, or by hand."""
    stages = model["provenance"].get("stages", [])
    loose = [s for s in stages if not str(s.get("commit", "")).isalnum()]
    if stages and len({s["stage"] for s in stages}) == len(stages) and not loose: return f"one run a stage: {', '.join(s['stage'] for s in stages)}"
    return f"by hand: {len(stages)} runs, " + (f"{len(loose)} of them from code that was not committed as it was" if loose else "all from committed code")


def models():
    """The shipped models: size, range, seconds, and how they were made."""
    known, reach = {m["name"]: m for m in list_models()}, lambda v, digits: f"{min(v):.{digits}f} to {max(v):.{digits}f}"
    return markdown([{"model": f"`{n}`", "parameters": f"{known[n]['parameters']:,}", "MB": f"{known[n]['bytes'] / 1e6:.1f}", "bpp": reach(c["bpp"], 2), "dB": reach(c["psnr-rgb"], 1),
                      "encode / decode, s": f"{c['encoding_time'][-1]:.2f} / {c['decoding_time'][-1]:.2f}", "made": made_by(known[n])} for n, c in measured_models().items() if n in known])


def rates():
    """BD-rates of the shipped models against classical codecs."""
    items, value = {e["id"]: e for e in list_items()}, {}
    whole = kept_numbers(items["ours/all_systems"], ROOT)
    for r in whole.get("bd_rate", []): value[whole["models"][r["system"]], r["against"], r["metric"]] = r["ours"]
    for item in BESIDE:
        d = kept_numbers(items[item], ROOT) if item in items else {}
        value |= {(d["made_by"]["parameters"]["model"], c["against"], m): c.get(m) for c in d.get("against", []) for m in ("psnr", "ms-ssim")}
    rivals = list(dict.fromkeys(r["against"] for r in whole.get("bd_rate", [])))
    signed = lambda v: (percent(v) or "–").removesuffix(" %")
    return markdown([{"model": f"`{n}`", **{r: " / ".join(signed(value.get((n, r, m))) for m in ("psnr", "ms-ssim")) for r in rivals}} for n in dict.fromkeys(k[0] for k in value)])


def timings():
    """Times of the bench, medians with their spread."""
    bench = json.loads((ROOT / "figures/bench/bench.json").read_text(encoding="utf-8"))
    rows = [{"weights": bench["models"].get(key, {}).get("weights", key), "job": job, "median, s": r["value"], "fastest to slowest": f"{r['low']:.3g} to {r['high']:.3g}", "runs": r["n"]}
            for name, key in (("compact", "compact"), ("full", "full"), ("rnn_compact", "rnn compact"), ("rnn_full", "rnn full"), ("progressive_compact", "progressive compact"), ("progressive_full", "progressive full"))
            for job, r in bench["results"].get(name, {}).items() if isinstance(r, dict) and r.get("unit") == "s" and "low" in r and ":" not in job]
    m = bench["machine"]
    return f"{m['processor']}, {m['threads']} threads, torch {m['torch']}; {bench['picture']['what']}, {bench['picture']['width']} × {bench['picture']['height']}. Seconds of two machines do not compare.\n\n" + markdown(rows, 3)


def kept(name):
    """Numbers of `figures/bench`, and the machine they are from."""
    found = json.loads((ROOT / "figures/bench" / name).read_text(encoding="utf-8"))
    return found, f"{found['machine']['processor']}, torch {found['machine']['torch']}"


def startup():
    """Cold starts, beside those before networks were built once and files read without them."""
    found, machine = kept("startup.json")
    rows = [{"command": r["command"], "processor seconds": r["seconds"], "× `import torch`": r["multiple"], "before, ×": r.get("multiple_before")} for r in found["rows"]]
    return f"{machine}; {found['what']}. *Before* is the package of 2026-11-29, where networks were built twice and files were read with them. `python -m stanhlic.lab.startup` measures again.\n\n" + markdown(rows, 3)


def precision():
    """What transforms in bfloat16 cost and save."""
    found, machine = kept("precision.json")
    at = {(r["model"], r["quality"], r["wrote"], r["read"]): r for r in found["rows"]}
    rows = []
    for (model, quality) in dict.fromkeys((r["model"], r["quality"]) for r in found["rows"]):
        cost = {(c["wrote"], c["read"]): c for c in found["costs"] if (c["model"], c["quality"]) == (model, quality)}
        plain, fast = (at[model, quality, form, form] for form in ("fp32", "bf16"))
        written = [r["analyze_s"] + max(o["write_s"] for o in found["rows"] if (o["model"], o["wrote"]) == (model, r["wrote"])) for r in (plain, fast)]  # what is analyzed with the first file serves the others
        rows.append({"model": f"`{model}`", "quality": quality, "dB, read in bf16": cost["fp32", "bf16"]["dB"], "dB, written in bf16": cost["bf16", "fp32"]["dB"], "rate, %": cost["bf16", "fp32"]["rate"],
                     "dB, both": cost["bf16", "bf16"]["dB"], "encode, times faster": written[0] / written[1], "decode, times faster": plain["decode_s"] / fast["decode_s"]})
    return f"{found['pictures']}; {machine}. Differences to single precision on both sides, of real files; processor seconds on one thread. `python -m stanhlic.lab.precision` measures again.\n\n" + markdown(rows, 3)


def sizes():
    """Time and memory of large pictures."""
    found, machine = kept("sizes.json")
    at = {(r["model"], r["megapixels"], r["job"]): r for r in found["rows"]}
    rows = []
    for model, megapixels in dict.fromkeys((r["model"], r["megapixels"]) for r in found["rows"]):
        encode, decode = at[model, megapixels, "encode"], at.get((model, megapixels, "decode"), {})
        rows.append({"model": f"`{model}`", "picture": f"{megapixels} MP, {encode['width']} × {encode['height']}", "encode, s/MP": encode.get("per_megapixel", "refused"), "decode, s/MP": decode.get("per_megapixel", "refused"),
                     "encode, MB": encode.get("memory"), "decode, MB": decode.get("memory")})
    refused = next((f" The first refusal: *{r['refused']}*." for r in found["rows"] if "refused" in r), "")
    return f"{machine}; {found['what']} (the largest at any moment). The picture is the sample photograph, mirrored at its borders.{refused} `python -m stanhlic.lab.sizes` measures again.\n\n" + markdown(rows, 3)


def render():
    """All of RESULTS.md."""
    items, rows, counts, verdicts = list_items(), overview(ROOT), tally(ROOT), headline_verdicts(ROOT)
    parts = [NOTE, "# Results", "What this package measures, paper by paper: every figure, table and claim, and what became of it. `stanhlic reproduce ITEM` runs an item in seconds as a smoke run, which decides nothing; "
             "`stanhlic reproduce ITEM --profile compact` makes its numbers again, from the shipped weights, in the minutes given (two CPU cores).",
             "*Published* are the authors' own numbers. What is *recomputed* from their points or *counted* in their code stands in a column of its own. *Ours* is measured from real files with networks of the size that the next column names: *compact* "
             "decides about the method, not about the size of the effect; *full size, random weights* stands for times and nothing else. *Held if* is the rule in the [registry](nbs/papers/papers.yaml), which says of each whether it was written before or after the first "
             "measurement that it judges. A limit that lies among the single runs of a timing decides nothing, nor does a comparison with a reference that was trained too little.",
             "A reference is fair when it was trained for at least as many steps as what it judges, and when its own loss at its own λ is below the rival's there; otherwise nothing is decided, for a claim or against it. What was not measured yet says what it needs; its rule is written already.",
             "**From a claim to its verdict**: find the claim in the table of its paper; its line has the rule, the paper's number, ours, the verdict, and the item. `stanhlic reproduce ITEM --profile compact --force` measures it again and prints the same line; the executed notebook is then in `runs/`, the numbers with weights, parameters and commit in `figures/`. "
             "`stanhlic reproduce --list` prints all of this.",
             "## Tally", "Headline claims, those each paper is known by; *did not* if one of several rules was broken:", markdown([{"paper": PAPERS[c["paper"]][0], **{k: str(v) for k, v in c.items() if k != "paper"}} for c in headline_tally(ROOT)]),
             "All rules:", markdown([{"paper": PAPERS[c["paper"]][0], **{k: str(v) for k, v in c.items() if k != "paper"}} for c in counts])]
    for count in counts:
        name, about = PAPERS[count["paper"]]
        own = [e for e in items if e["paper"] == count["paper"]]
        claims = headline_table(count["paper"], verdicts)
        parts += [f"## {name}", about, *([f"### Headline claims of {name}", claims] if claims else []), "### Every figure, table and claim", figures_of(own, rows), sentence(count),
                  fold(f"{sum(r['item'] in {e['id'] for e in own} for r in rows)} rules with their numbers", items_of(own, rows)), further(own)]
    parts += ["## The shipped models", "Means at the two ends of a model's range on the 24 Kodak pictures; seconds are for one such picture at the upper end, on one thread of a CPU, the model loaded. `make weights` trains each anew, one run a stage, by the profile of today; *made* says how the file that ships came to be, by its own header.", models(),
              "BD-rate against classical codecs, by PSNR / by MS-SSIM, in percent of rate over the qualities both reach; negative means less rate. Every rate is the size of a file that a fresh process has decoded.", rates(),
              "## Timings", fold("Seconds of each stage", timings()), fold("Cold starts of the command line", startup()), fold("Transforms in bfloat16 (`--fast`)", precision()), fold("Pictures from one to a hundred megapixels", sizes())]
    return "\n\n".join(p for p in parts if p) + "\n"


def with_kept(path, item):
    """A notebook with the kept table of its item stored as the output of the cell that shows it."""
    nb = json.loads(path.read_text(encoding="utf-8"))
    for cell in nb["cells"]:
        if cell["cell_type"] == "code" and "".join(cell["source"]).strip() == f'kept("{item}")':
            data = {"text/markdown": kept_text(item, ROOT).splitlines(True), "text/plain": ["<IPython.core.display.Markdown object>"]}
            cell["outputs"] = [{"data": data, "execution_count": None, "metadata": {}, "output_type": "execute_result"}]
    return json.dumps(nb, indent=1, ensure_ascii=False) + "\n"


def main():
    wanted = {RESULTS: render()} | {p: with_kept(p, e["id"]) for e in list_items() if e["notebook"] for p in [ROOT / "nbs/papers" / e["notebook"]]}
    different = [p for p, text in wanted.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    if "--check" not in sys.argv[1:]:
        for p in different: p.write_text(wanted[p], encoding="utf-8")
    elif different: sys.exit(f"results: {', '.join(str(p.relative_to(ROOT)) for p in different)} differ from the kept numbers; run `make readme`")


if __name__ == "__main__": main()
