"""What every paper notebook does at its start and end: find pictures and weights, say what the run is worth, save the figure with a record of what made it."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
import numpy as np
from ..datasets import demo_images, find_dataset, has_dataset, sample_photograph
from ..errors import StanhlicError
from ..images import find_files, is_image_name, read_image
from ..modelfile import inspect_weights, save_weights
from ..zoo import list_models, model_path
from .curves import figure_numbers
from .plots import save_figure
from .reproduce import as_text, check_count, defaults, digest, find_item, kept_numbers, state_of, verdicts
from .tables import markdown, shown

def size_of(
    config: dict,  # of a weight file's header
) -> str:          # full or compact
    """Does a network have the published size?"""
    net = config.get("anchors", [config])[0]
    if net.get("lean"): return "compact"  # a recurrent network in a shape of our own
    if net.get("architecture") == "SymmetricalTransFormer": return "full" if net["latent"] >= 384 else "compact"
    if str(net.get("architecture")).startswith("Cheng"): return "full" if net["width"] >= 128 else "compact"  # 128 and 192 channels are released
    return "full" if net.get("latent") == 320 or net.get("size") == "full" or net.get("width") == 1 or net.get("level", {}).get("latent") == 320 else "compact"

def _random_progressive():
    from dataclasses import replace
    from ..progressive.model import model_config, random_model
    from ..progressive.networks import PROGRESSIVE_SMOKE
    net = random_model(replace(PROGRESSIVE_SMOKE, rems=(7.5,)))
    return net, model_config(net)

def _random_rnn():
    from dataclasses import asdict
    import torch
    from ..rnn.model import build_model
    torch.manual_seed(0)
    net = build_model(dict(width=0.0625, latent=8, hyper=8, latent_gain=1000.0, init_scale=3.0))
    return net, asdict(net.config)

def random_model(
    system: str,  # progressive or rnn
) -> str:         # its file, under runs
    """A tiny network of random numbers, for runs without the shipped weights; its output means nothing."""
    net, config = {"progressive": _random_progressive, "rnn": _random_rnn}[system]()
    path = Path(f"runs/random/{system}.safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, net.state_dict(), {"system": system, "name": f"random-{system}", "config": config, "provenance": {}})
    return str(path)

def middle(
    array: np.ndarray,  # picture, uint8 (H, W, 3)
    side: int,          # pixels; 0: the whole picture
) -> np.ndarray:
    """The middle of a picture, a square at most."""
    if not side: return array
    top, left = (max(0, (n - side) // 2) for n in array.shape[:2])
    return np.ascontiguousarray(array[top:top + side, left:left + side])

def commit() -> str:
    """The commit this package is at, marked if its own files have changed since; empty outside a repository."""
    git = lambda *words: subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    try: return git("rev-parse", "--short", "HEAD").stdout.strip() + "-dirty" * (git("diff", "--quiet", "HEAD", "--", ".").returncode == 1)
    except OSError: return ""

def describe_photographs(
    data: str,  # folder, name of a data set, or nothing for the data set "train"
) -> list:      # name, number of files, bytes
    """What a training was given, so that another set of photographs is not mistaken for it."""
    if not data and not has_dataset("train"): return ["sample photograph", 1, 0]  # a smoke run's; any other training says what it lacks
    folder = Path(data or "train")
    files = find_files(folder, is_image_name, recursive=True)[0] if folder.is_dir() else find_dataset(data or "train", verify=False)
    return [folder.name, len(files), sum(p.stat().st_size for p in files)]

@dataclass
class Run:
    """A run of an item's notebook: its pictures, its weights, and what its numbers are worth."""
    entry: dict    # of the registry
    values: dict   # parameters
    model: str | None = None                     # name or path of the weights, or of random ones if those are not shipped
    images: list = field(default_factory=list)   # [(name, uint8 (H, W, 3)), ...]
    note: str = ""                               # what the pictures are
    size: str = "compact"                        # full or compact
    kind: str = "smoke"                          # full, compact, drawn or smoke
    weights: dict = field(default_factory=dict)  # name -> fingerprint

    def use(self,
        *models,  # names or paths
    ):
        """Note weights that the run reads."""
        for model in models:
            header = inspect_weights(model_path(model))
            self.weights[header["name"]] = header["fingerprint"]

    def store(self,
        root: str | Path,  # parameter of the notebook
        **depends,         # what a result depends on, besides the weights and the photographs; plain values
    ) -> Path:             # folder, made if it was not there
        """Folder for what is trained once and used again: runs that depend on the same things share it."""
        data = describe_photographs(self.values["data"]) if "data" in self.values else None
        folder = Path(root) / digest(self.weights, data, depends)
        try: folder.mkdir(parents=True, exist_ok=True)
        except OSError as e: raise StanhlicError(f"{folder}: cannot be created ({e.strerror or e}); choose another place") from e
        return folder

    def save(self,
        fig,               # matplotlib figure, or axes
        numbers: dict,     # what it shows
        claims: list = (), # rows: what, published or recomputed or counted, ours by kind
    ):                     # IPython Markdown: what the run decides, and where it was written
        """Save the figure, its numbers, and what made them; a smoke run makes no claim."""
        from IPython.display import Markdown
        made = {"weights": self.weights, "data": {"set": self.note, "images": len(self.images)} if self.images else None, **state_of(self.entry, self.values), "commit": commit()}
        numbers = {"kind": self.kind} | ({"images": self.note} if self.note else {}) | numbers
        numbers |= {"claims": [{k: v for k, v in c.items() if v is not None} for c in claims] if numbers["kind"] != "smoke" else [], "made_by": made}
        stem = Path(self.values["out"], self.entry["id"].split("/")[1])
        if "random" in str(self.model) and stem.parts[0] != "runs" and not stem.is_absolute(): stem = Path("runs", stem)
        written = save_figure(fig, stem, numbers)
        return Markdown(f"{report(self.entry, numbers)}\n\n*Written: {', '.join(map(str, written))}*")

_BY_LAMBDA = ("stanh/quantizer_curves", "stanh/training_cost")  # items that draw against λ; those that train have a parameter `data`

def begin(
    item: str,             # id in the registry
    given: dict,           # globals() of the notebook
    enough: int = 24,      # Kodak images that make a measurement; of a single `picture`, that one
    serious: bool = True,  # anything else that makes it more than a smoke run
    drawn: bool = False,   # nothing is measured: numbers are exact
) -> Run:
    """Find what a notebook needs: weights by its parameter `model`, pictures by `n_images` (`side`: a piece of each) or `picture`.

    Raises `StanhlicError` for an unknown item or model, or less than one picture."""
    entry = find_item(item)
    known = defaults(entry)
    run = Run(entry, {name: given[name] for name in known})
    check_count(run.values)
    names, chosen = [m["name"] for m in list_models()], run.values.get("model")
    rumor, random = False, chosen is not None and chosen == known["model"][1] and chosen not in names and entry["paper"] in ("progressive", "rnn")
    run.model = random_model(entry["paper"]) if random else chosen
    run.use(*([run.model] if run.model else []), *(v for p in run.values.values() for v in (p if isinstance(p, list) else [p]) if isinstance(v, str) and v in names))
    if run.model:
        header = inspect_weights(model_path(run.model))
        run.size, known_history = size_of(header["config"]), {"stages", "release"} & header["provenance"].keys()
        rumor = run.size == "full" and not known_history
        if ("data" in known or item in _BY_LAMBDA) and any(p.get("lambda", 0) is None for p in header["config"].get("points", ())): raise StanhlicError(f"{run.model}: its rate points have no λ, which the authors' files do not record and this item needs; import it again with --lambdas")
    for path in entry.get("inputs", []): run.weights |= (figure_numbers(path) or {}).get("made_by", {}).get("weights", {})  # their numbers rest on those
    kodak = has_dataset("kodak")  # or another picture that makes a measurement
    if "n_images" in run.values: run.images, run.note = demo_images(run.values["n_images"])
    if "picture" in run.values:
        name, enough = run.values["picture"], 1
        if name == "sample": kodak, run.images, run.note = True, [("grace_hopper.jpg", middle(sample_photograph(), 512))], "the middle of matplotlib's sample photograph"
        elif kodak and name: run.images, run.note = [(p.name, read_image(p)) for p in find_dataset("kodak") if p.stem == name], f"Kodak, {name}"
        else: kodak, run.images, run.note = False, [("grace_hopper.jpg", middle(sample_photograph(), 256))], "a piece of matplotlib's sample photograph"
        if not run.images: raise StanhlicError(f"Kodak has no picture {name}; it has kodim01 to kodim24")
    if side := run.values.get("side", 0):
        run.images, run.note = [(n, middle(a, side)) for n, a in run.images], f"{run.note}; a piece of {side} × {side} of each"
    if random or rumor: run.note += "; random weights" if random else "; weights of unknown history"
    whole = kodak and not side and len(run.images) >= enough or not run.images
    run.kind = "drawn" if drawn else run.size if serious and not random and not rumor and whole else "smoke"
    return run

def report(
    entry: dict,    # of the registry
    numbers: dict,  # that a run left
) -> str:           # Markdown
    """What numbers show: the claims of the item, and the rules that decide them."""
    measured, sums = ([as_text(v) for v in verdicts(entry, numbers) if v["arithmetic"] == a] for a in (False, True))
    claims = [{k: shown(v) if v is not None else "" for k, v in c.items()} for c in numbers.get("claims", [])]
    parts = [markdown(claims)] if claims else []
    if measured: parts.append("**What a rule decides**\n\n" + markdown(measured))
    if sums: parts.append("**Checks of arithmetic**, on published points or on code alone\n\n" + markdown(sums))
    if numbers.get("kind") == "smoke": parts.insert(0, "*A smoke run: it shows that the code runs, and decides nothing.*")
    return "\n\n".join(parts) or "*No rule decides this item: its claim is a picture, or there is none.*"

def made_of(
    numbers: dict,  # behind a figure
) -> str:
    """One line on what made numbers: kind, weights, pictures, commit."""
    made = numbers.get("made_by") or {}
    weights = ", ".join(f"{n} `{f}`" for n, f in made.get("weights", {}).items())
    return "; ".join(filter(None, [numbers.get("kind"), weights, numbers.get("images"), f"commit {made['commit']}" if made.get("commit") else ""]))

def kept_text(
    item: str,               # id in the registry
    root: str | Path = ".",  # where figures/ is
) -> str:                    # Markdown
    """The numbers kept with an item's figure: what was claimed, what a rule decides, and what made them."""
    entry = find_item(item)
    numbers = kept_numbers(entry, root)
    return f"*Kept with the package: {made_of(numbers)}.*\n\n{report(entry, numbers)}" if numbers else "*No numbers of this item are kept here.*"

def kept(
    item: str,  # id in the registry
):              # IPython Markdown
    """The numbers kept with an item's figure, to be shown in its notebook."""
    from IPython.display import Markdown
    return Markdown(kept_text(item))
