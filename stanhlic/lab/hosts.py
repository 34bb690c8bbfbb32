"""What the items on STanH in further networks share: their trainings, the three curves of each, and whether the comparison is fair."""
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from .. import stanh
from ..evaluate import evaluate
from ..modelfile import inspect_weights, load_weights, restore, save_weights
from ..stanh.model import RatePoint, StanhModel, build_model, model_config, rounding_point
from ..stanh.plugin import build_host
from ..stanh.training import join_anchors, run
from ..stanh.transformer import SymmetricalTransFormer, linear_start
from ..training import ImagePool, load_profile, training_arrays
from .curves import Curve, against, from_results

PROFILES = Path(stanh.__file__).with_name("profiles.yaml")
LABELS = {"learned": ("stanh", "learned derivations"), "fixed": ("stanh-fixed", "a network for each rate"), "manual": ("stanh-manual", "steps set by hand")}
PAIRS = {"derivations against fixed-rate references": ("learned", "fixed"), "learned against manual steps": ("learned", "manual")}


@dataclass
class Trainings:
    """How networks of several architectures are trained, and where: what is there already is not trained again."""
    folder: Path       # a folder for each architecture is made in it
    lmbda: float       # of the network that everything starts from
    lambdas: list      # of the other rates
    steps: list        # uniform steps by hand, in latent units
    profile: str       # of the training stages
    base: list         # settings of the first training on top of the profile
    tune: list         # of the networks for each rate and of the anchor's, which all start from the first
    quantizers: list   # settings of levels and thresholds: the anchor's, the derivations' and those of the networks for each rate
    data: str          # folder of photographs; empty: the data set "train"
    device: str

    def __post_init__(self): self.rates = sorted([self.lmbda, *self.lambdas])

    def _steps(self, stage, settings):
        "Of a stage, by its settings or its profile"
        given = [s.removeprefix("steps=") for s in settings if s.startswith("steps=")]
        return int(given[-1]) if given else load_profile(PROFILES, self.profile, stage)["steps"]

    @property
    def anchor_steps(self) -> int:
        """Of the anchor's own network, from the first: what a network for a rate has beyond the steps of a derivation. Both learn levels of their own after that."""
        return max(0, self._steps("base", self.tune) - self._steps("derivation", self.quantizers))

    def _save(self, path, model, stages=()):
        save_weights(path, model.state_dict(), {"system": "stanh", "name": path.stem, "config": model_config(model), "provenance": {"stages": list(stages)}})
        return path

    def untrained(self, config: dict) -> Path:
        """File of a plugged network with random numbers; of a transformer, with a start from which it learns."""
        torch.manual_seed(0)
        net, place = build_host(config), self.folder / config["architecture"]
        if isinstance(net, SymmetricalTransFormer):
            smoke = self.profile == "smoke"
            linear_start(net, ImagePool(training_arrays(self.data or None, smoke=smoke)[0], 64 if smoke else 128, 1).batch(96))
        place.mkdir(parents=True, exist_ok=True)
        return self._save(place / "untrained.safetensors", StanhModel([net], [rounding_point(self.lmbda)]))

    def stage(self, place: str, name: str, init: Path, rate, settings: list) -> Path:
        """The weight file of a stage; trained unless it is there."""
        folder = self.folder / place
        if not (folder / "model.safetensors").is_file(): run(name, self.profile, self.data or None, folder, init, True, self.device, [f"{'lmbdas' if name == 'derivation' else 'lmbda'}={rate}", *settings])
        return folder / "model.safetensors"

    def _by_hand(self, anchor):
        "The anchor's network and its quantizer of z, with a uniform quantizer of y for each step"
        model = restore(build_model, load_weights(anchor))
        return StanhModel(model.anchors, [RatePoint(rounding_point(step=s).y, model.points[0].z, lmbda=self.lmbda) for s in sorted(self.steps, reverse=True)], model.forms)

    def train(
        self,
        config: dict,  # of the network, as `build_host` takes it
    ) -> tuple:        # {"learned", "fixed", "manual": files of their rate points}, files of the networks for each rate
        """All trainings of a network: a first one, one for each rate with levels of its own, and the anchor with its derivations."""
        name = config["architecture"]
        place = self.folder / name
        first = self.stage(f"{name}/base-{self.lmbda:g}", "base", self.untrained(config), self.lmbda, self.base)
        networks = [self.stage(f"{name}/network-{rate:g}", "base", first, rate, self.tune) for rate in self.rates]
        single = [self.stage(f"{name}/levels-{rate:g}", "anchor", n, rate, self.quantizers) for rate, n in zip(self.rates, networks)]
        root = self.stage(f"{name}/root-{self.lmbda:g}", "base", first, self.lmbda, [*self.tune, f"steps={self.anchor_steps}"]) if self.anchor_steps else first
        anchor = self.stage(f"{name}/anchor-{self.lmbda:g}", "anchor", root, self.lmbda, self.quantizers)
        learned = self.stage(f"{name}/derivations", "derivation", anchor, self.lambdas, self.quantizers)
        return {"learned": learned, "fixed": self._save(place / "fixed.safetensors", *join_anchors(single)), "manual": self._save(place / "manual.safetensors", self._by_hand(anchor))}, single

    def plan(self) -> dict:
        """What the numbers of an item say about the trainings."""
        return {k: v for k, v in asdict(self).items() if k not in ("folder", "steps", "data", "device")} | {"anchor_steps": self.anchor_steps}


def sizes(
    files: dict,  # architecture -> files of `Trainings.train`
) -> list:        # rows
    """Numbers of each network, and of all its rate points."""
    held = {name: load_weights(f["learned"]).tensors for name, f in files.items()}
    return [{"network": name, **{what: sum(t.numel() for k, t in tensors.items() if k.startswith(own)) for what, own in (("parameters", "anchors"), ("numbers of all rate points", "points"))}} for name, tensors in held.items()]


def measure(
    path: Path,    # a weight file
    name: str,     # learned, fixed or manual
    images: list,
    kind: str,     # of the numbers
    device: str,
) -> Curve:
    """The curve of all rate points of a file: from files, decoded in a fresh process."""
    count = len(inspect_weights(path)["config"]["points"])
    return from_results(evaluate(path, images, [100 * k / (count - 1) for k in range(count)], device), LABELS[name][0], kind, LABELS[name][1])


def compared(
    curves: dict,  # architecture -> {"learned", "fixed", "manual": Curve}
) -> dict:         # architecture -> question -> BD-rate
    """Both questions put to each network."""
    return {name: {question: against(own[a], own[b]) for question, (a, b) in PAIRS.items()} for name, own in curves.items()}


def points_of(curves: dict) -> list:
    """A row for each point of each curve."""
    return [{"network": name, "curve": c.label, "bpp": b, "psnr": p} for name, own in curves.items() for c in own.values() for b, p in zip(c.bpp, c.psnr)]


def leads(
    curves: dict,  # architecture -> {"learned", "fixed": Curve}
    rates: list,   # λ of each point of "fixed", rising
) -> list:         # rows
    """By how much a network trained for a λ leads the derivations in loss λD + R at that λ."""
    def losses(curve, lmbda): return [lmbda * 255 ** 2 * 10 ** (-q / 10) + b for b, q in zip(curve.bpp, curve.psnr)]
    rows = [{"network": name, "λ": l, "trained for it": losses(own["fixed"], l)[i], "derivations, lowest": min(losses(own["learned"], l))} for name, own in curves.items() for i, l in enumerate(rates)]
    return [r | {"lead (%)": 100 * (1 - r["trained for it"] / r["derivations, lowest"])} for r in rows]


def steps_ratio(
    files: dict,   # architecture -> files of `Trainings.train`
    single: dict,  # architecture -> files of the networks for each rate
) -> float:
    """Least ratio of the steps of a network for a rate to those of the derivations it judges, all stages counted."""
    steps = lambda path: sum(s["plan"]["steps"] for s in inspect_weights(path)["provenance"]["stages"])
    return min(min(map(steps, own)) / steps(files[name]["learned"]) for name, own in single.items())


def fairness(
    rows: list,    # of `leads`
    lmbda: float,  # of the first training
    ratio: float,  # of `steps_ratio`
) -> dict:
    """What the numbers of an item say about its references; the registry's conditions read them."""
    leads = {n: {f"{r['λ']:g}": r["lead (%)"] for r in rows if r["network"] == n} for n in dict.fromkeys(r["network"] for r in rows)}
    return {"losses": rows, "references_lead_percent": leads, "references_worst_lead_percent": min(r["lead (%)"] for r in rows), "references_steps_ratio": ratio,
            "lead_at_first_lambda_percent": {r["network"]: r["lead (%)"] for r in rows if r["λ"] == lmbda}}
