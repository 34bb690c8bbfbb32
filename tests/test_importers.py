"""The authors' checkpoints, rebuilt with random numbers in their exact layout: what is read, what the model then says, what is refused."""
import json
import os
import re
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from stanhlic.backbone import ZOU22, Zou22, Zou22Config, rate
from stanhlic.errors import StanhlicError
from stanhlic.images import to_array, to_tensor
from stanhlic.stanh.importers import import_stanh, import_zou22
from stanhlic.modelfile import inspect_weights, read_checkpoint, save_weights
from stanhlic.stanh.codec import StanhCodec
from stanhlic.stanh.file import Position
from stanhlic.stanh.model import PUBLISHED, StanhModel, rounding_point

SMALL = Zou22Config(width=32, latent=48, slices=2, support=1, context=(16,), heads=2, units=1)
PICTURE = np.random.default_rng(0).integers(0, 256, (8, 4, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)  # 128 x 64


# %% the layout of the released files, as the specification lists it

def convolution(name, out, into, side): return {f"{name}.weight": (out, into, side, side), f"{name}.bias": (out,)}


def gdn(name, n):
    parts = {f"{name}.beta": (n,), f"{name}.gamma": (n, n)}
    for p in ("beta", "gamma"): parts |= {f"{name}.{p}_reparam.pedestal": (1,), f"{name}.{p}_reparam.lower_bound.bound": (1,)}
    return parts


def gate(name, c, window):
    parts = convolution(f"{name}.conv_b.4", c, c, 1)
    for unit in [f"{name}.conv_a.{i}" for i in range(3)] + [f"{name}.conv_b.{i}" for i in (1, 2, 3)]:
        parts |= convolution(f"{unit}.conv.0", c // 2, c, 1) | convolution(f"{unit}.conv.2", c // 2, c // 2, 3) | convolution(f"{unit}.conv.4", c, c // 2, 1)
    attn = f"{name}.conv_b.0.attn"
    return parts | {f"{attn}.relative_position_bias_table": ((2 * window - 1) ** 2, 8), f"{attn}.relative_position_index": (window ** 2,) * 2,
                    f"{attn}.qkv.weight": (3 * c, c), f"{attn}.qkv.bias": (3 * c,), f"{attn}.proj.weight": (c, c), f"{attn}.proj.bias": (c,)}


def published_keys():
    """Name -> shape of every entry of a full-size network but its prior and coding tables."""
    keys = {}
    for i, out, into in ((0, 192, 3), (2, 192, 192), (5, 192, 192), (7, 320, 192)): keys |= convolution(f"g_a.{i}", out, into, 5)
    for i, into, out in ((1, 320, 192), (3, 192, 192), (6, 192, 192), (8, 192, 3)):
        keys |= {f"g_s.{i}.weight": (into, out, 5, 5), f"g_s.{i}.bias": (out,)}
    for name in ("g_a.1", "g_a.3", "g_a.6", "g_s.2", "g_s.4", "g_s.7"): keys |= gdn(name, 192)
    keys |= gate("g_a.4", 192, 8) | gate("g_a.8", 320, 4) | gate("g_s.0", 320, 4) | gate("g_s.5", 192, 8)
    for i, out, into in ((0, 320, 320), (2, 288, 320), (4, 256, 288), (6, 224, 256), (8, 192, 224)): keys |= convolution(f"h_a.{i}", out, into, 3)
    for net in ("h_mean_s", "h_scale_s"):
        for i, out, into in (("0", 192, 192), ("2.0", 896, 192), ("4", 256, 224), ("6.0", 1152, 256), ("8", 320, 288)): keys |= convolution(f"{net}.{i}", out, into, 3)
    for net, more, most in (("cc_mean_transforms", 0, 5), ("cc_scale_transforms", 0, 5), ("lrp_transforms", 1, 6)):
        for s in range(10):
            widths = (320 + 32 * min(s + more, most), 224, 176, 128, 64, 32)
            for i in range(5): keys |= convolution(f"{net}.{s}.{2 * i}", widths[i + 1], widths[i], 3)
    return keys


def quantizer(step, count, seed):
    """Random jumps and their thresholds near the midpoints, as the release holds them: parameters, thresholds in no order."""
    draw = torch.Generator().manual_seed(seed)
    w = step * (0.7 + 0.6 * torch.rand(count, generator=draw))
    b = w.cumsum(0) - w.sum() / 2 - w / 2 + 0.1 * step * torch.randn(count, generator=draw)
    return {"w": nn.Parameter(w), "b": nn.Parameter(b[torch.randperm(count, generator=draw)])}


def point(step_y, step_z, seed, jumps=(120, 40)):
    """A file of one rate."""
    parts = {"gaussian_conditional": quantizer(step_y, jumps[0], seed), "entropy_bottleneck": quantizer(step_z, jumps[1], seed + 100)}
    config = {"beta": 10, "num_sigmoids": 0, "activation": "nonlinearstanh", "annealing": "gap_stoc", "gap_factor": 15, "extrema": 60, "trainable": True}
    return {"state_dict": parts, "factorized_configuration": dict(config, extrema=20), "gaussian_configuration": config}


def anchor_state(net, levels=2, jumps=(120, 40)):
    """State dict of an anchor made of `net`: `levels` levels, or the single-level layout for 0."""
    own = net.state_dict()
    state = OrderedDict((k, v) for k, v in own.items() if not k.startswith("entropy_bottleneck"))
    for dot in ([f".{i}." for i in range(levels)] if levels else ["."]):
        z, y, one = "entropy_bottleneck" + dot, "gaussian_conditional" + dot, torch.tensor([1e-9])
        state |= {k.replace("entropy_bottleneck.", z): v for k, v in own.items() if k.startswith("entropy_bottleneck._")}
        state |= {f"{z}_quantized_cdf": torch.IntTensor(), f"{z}_cdf_length": torch.IntTensor(), f"{z}likelihood_lower_bound.bound": one}
        state |= {f"{y}_offset": torch.tensor(60.), f"{y}_quantized_cdf": torch.zeros(64, 123, dtype=torch.int32), f"{y}_cdf_length": torch.full((64,), 123),
                  f"{y}scale_table": torch.ones(64), f"{y}scale_bound": one, f"{y}likelihood_lower_bound.bound": one, f"{y}lower_bound_scale.bound": one}
        for name, count in ((y, jumps[0]), (z, jumps[1])): state |= {f"{name}sos.{k}": v.detach() for k, v in quantizer(1., count, 7).items()}
    return state


def stf_state(net):
    """State dict as a GPU run of the STF code leaves it: prefix, old spellings, coding tables, attention masks."""
    old = lambda k: re.sub(r"entropy_bottleneck\._(matri|bias|factor)x?(\d)", lambda m: f"entropy_bottleneck._{m[1]}{'ces' if m[1] == 'matri' else 'es' if m[1] == 'bias' else 's'}.{m[2]}", k)
    state = OrderedDict(("module." + old(k), v) for k, v in net.state_dict().items())
    for part in ("entropy_bottleneck", "gaussian_conditional"):
        state |= {f"module.{part}.{k}": torch.zeros(3, dtype=torch.int32) for k in ("_offset", "_quantized_cdf", "_cdf_length")}
    return state | {"module.entropy_bottleneck.target": torch.zeros(3), "module.gaussian_conditional.scale_table": torch.ones(64),
                    "module.g_a.4.conv_b.0.attn_mask": torch.zeros(1)}


@torch.no_grad()
def spread(net):
    """Scale a random network so that latents reach over many levels and scales differ."""
    x = to_tensor(PICTURE)
    for conv, feature, wanted in ((net.g_a[7], lambda: net.g_a(x), 5.), (net.h_a[8], lambda: net.h_a(net.g_a(x)), 5.)):
        factor = wanted / feature().std()
        for p in (conv.weight, conv.bias): p.mul_(factor)
    for net_i in net.cc_scale_transforms: net_i[-1].bias.uniform_(2., 9.)
    for p in net.entropy_bottleneck.parameters(): p.add_(0.1 * torch.randn_like(p))
    return net.eval()


class Annealings:
    """Stands for the authors' class, which is not installed where their file is read."""

    def __init__(self): self.beta = 10.


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """The full-size files: a folder with anchor, points and `cnn_0067.pth.tar`, all tagged as if saved from a GPU."""
    folder = tmp_path_factory.mktemp("release")
    (folder / "stanh").mkdir()
    torch.manual_seed(0)
    net = spread(Zou22())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save({"state_dict": anchor_state(net), "factorized_configuration": [{}] * 7, "gaussian_configuration": [{}] * 7}, folder / "anchor.pth.tar")
        torch.save({"epoch": 1, "state_dict": stf_state(net), "loss": 1.5, "optimizer": {"param_groups": []}}, folder / "cnn_0067.pth.tar")
        for i, (name, step_y, step_z) in enumerate((("D10", 1., 1.), ("D01", 2.2, 1.3), ("D11", .06, .9))):  # D11 cannot reach the latents: they are drawn to its ends
            torch.save(point(step_y, step_z, i), folder / "stanh" / f"{name}-A040.pth.tar")
    (folder / "stanh" / ".DS_Store").write_bytes(b"\0")
    yield folder
    for path in folder.glob("*.pth.tar"): path.unlink()


@pytest.fixture(scope="module")
def stanh(release):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return import_stanh(release / "anchor.pth.tar", release / "stanh")


@pytest.fixture(scope="module")
def codec(stanh): return StanhCodec(stanh)


# %% full size: keys, counts, values

def test_plain_network_is_read_and_files_decode_to_its_picture(release):
    net = import_zou22(release / "cnn_0067.pth.tar")
    shapes = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    prior = {k: shapes.pop(k) for k in list(shapes) if k.startswith("entropy_bottleneck.")}
    assert shapes == published_keys() and net.config == ZOU22
    assert {k.split(".")[1] for k in prior} == {f"_{n}{i}" for n in ("matrix", "bias", "factor") for i in range(5)} - {"_factor4"} | {"quantiles"}
    saved = read_checkpoint(release / "cnn_0067.pth.tar")["state_dict"]
    assert torch.equal(net.entropy_bottleneck._matrix3, saved["module.entropy_bottleneck._matrices.3"])
    assert all(torch.equal(v, saved["module." + k]) for k, v in net.state_dict().items() if not k.startswith("entropy_bottleneck"))
    del saved
    codec = StanhCodec(StanhModel([net], [rounding_point()]))
    with torch.inference_mode(): expected = net(to_tensor(PICTURE))["x_hat"]
    data = codec.encode(PICTURE)
    np.testing.assert_array_equal(codec.decode(data), to_array(expected))
    assert abs(8 * len(data) / codec.estimate(PICTURE, 50.) - 1) < 0.05


def test_parameter_counts_are_the_papers(stanh):
    net = stanh.anchors[0]
    count = lambda module: sum(p.numel() for p in module.parameters())
    assert {n: count(m) for n, m in net.named_children() if n != "entropy_bottleneck"} == {
        "g_a": 6_928_528, "g_s": 6_928_211, "h_a": 3_319_040, "h_mean_s": 5_882_624, "h_scale_s": 5_882_624,
        "cc_mean_transforms": 15_212_640, "cc_scale_transforms": 15_212_640, "lrp_transforms": 15_857_760}
    prior = count(net.entropy_bottleneck) - net.entropy_bottleneck.quantiles.numel()
    backbone = count(net) - count(net.entropy_bottleneck)
    assert (backbone, backbone + prior + count(stanh.points[0])) == (75_224_067, 75_235_523)


def test_points_stand_by_name_and_hold_the_numbers_exactly(release, stanh):
    assert len(read_checkpoint(release / "anchor.pth.tar")["state_dict"]) == 614
    assert ([p.kind for p in stanh.points], stanh.forms, stanh.training) == (["derivation", "anchor", "derivation"], PUBLISHED, False)
    for name, p in zip(("D01", "D10", "D11"), stanh.points):
        saved = read_checkpoint(release / "stanh" / f"{name}-A040.pth.tar")["state_dict"]
        for q, part in ((p.y, saved["gaussian_conditional"]), (p.z, saved["entropy_bottleneck"])):
            assert torch.equal(q.jumps, part["w"]) and torch.equal(q.thresholds, part["b"].sort().values)


# %% the published formulas, written once more and naively

def hard(x, w, b):
    d = x.double()[..., None] - b
    return (w * torch.relu(torch.sign(d)) - w / 2).sum(-1)


def half_cells(v, w):
    """Distances to the edges of the interval whose mass is charged for the values `v`."""
    c = torch.cat([-w.sum()[None] / 2, -w.sum() / 2 + w.cumsum(0)])
    a, d = (c[1:] + c[:-1]) / 2, (c[1:] - c[:-1]) / 2
    k = (v[..., None] > a).sum(-1)
    none = torch.zeros(1, dtype=d.dtype)
    return torch.cat([none, d])[k], torch.cat([d, none])[k]


def prior_logit(prior, x):
    """Logit of F(x) for x [C, n], in float64, from the numbers of the file."""
    x = x[:, None]
    for i in range(5):
        x = nn.functional.softplus(prior[f"_matrix{i}"].double()) @ x + prior[f"_bias{i}"].double()
        if i < 4: x = x + torch.tanh(prior[f"_factor{i}"].double()) * torch.tanh(x)
    return x[:, 0]


def published(net, prior, x, y_wb, z_wb):
    """Picture, p(y) and p(z) by the released inference: hard STanH on z and on y − μ, mass between midpoints."""
    y = net.g_a(x)
    z = net.h_a(y)
    z_hat = hard(z, *z_wb)
    low, up = half_cells(z_hat, z_wb[0])
    rows = lambda t: t.transpose(0, 1).flatten(1)
    lower, upper = prior_logit(prior, rows(z_hat - low)), prior_logit(prior, rows(z_hat + up))
    s = -torch.sign(lower + upper)
    p_z = (torch.sigmoid(s * upper) - torch.sigmoid(s * lower)).abs().clamp(min=1e-9)
    mean_feature, scale_feature, done, p_y = net.h_mean_s(z_hat.float()), net.h_scale_s(z_hat.float()), [], []
    for i in range(10):
        support = done[:5]
        mu = net.cc_mean_transforms[i](torch.cat([mean_feature, *support], 1))
        sigma = net.cc_scale_transforms[i](torch.cat([scale_feature, *support], 1)).clamp(min=0.11).double()
        v = hard(y[:, 32 * i:32 * i + 32] - mu, *y_wb)
        low, up = half_cells(v, y_wb[0])
        phi = torch.special.ndtr
        p = torch.where(v >= 0, phi((low - v) / sigma) - phi((-up - v) / sigma), phi((v + up) / sigma) - phi((v - low) / sigma))
        p_y.append(p.clamp(min=1e-9))
        y_hat = (v + mu).float()
        done.append(y_hat + 0.5 * torch.tanh(net.lrp_transforms[i](torch.cat([mean_feature, *support, y_hat], 1))))
    return net.g_s(torch.cat(done, 1)), torch.cat(p_y, 1), p_z.view(z.shape[1], 1, *z.shape[2:]).transpose(0, 1)


@pytest.fixture(scope="module")
def numbers(release):
    """From the files: prior of level 0, and (w, b) of y and z at each level with b sorted, in float64."""
    state = read_checkpoint(release / "anchor.pth.tar")["state_dict"]
    prior = {k.split(".")[-1]: v for k, v in state.items() if k.startswith("entropy_bottleneck.0._")}
    points = [read_checkpoint(p)["state_dict"] for p in sorted((release / "stanh").glob("D*"))]
    pair = lambda q: (q["w"].detach().double(), q["b"].detach().double().sort().values)
    return prior, [(pair(p["gaussian_conditional"]), pair(p["entropy_bottleneck"])) for p in points]


@pytest.mark.parametrize("quality", [0., 50., 100., 12.5, 87.5])
def test_picture_and_rate_are_the_published_ones(stanh, codec, numbers, quality):
    prior, points = numbers
    r = quality / 100 * (len(points) - 1)
    level, alpha = int(r), r - int(r)
    y_wb, z_wb = points[level]                                   # z stays at the lower level, y moves
    if alpha: y_wb = tuple((1 - alpha) * u + alpha * v for u, v in zip(y_wb, points[level + 1][0]))
    with torch.inference_mode():
        x = to_tensor(PICTURE)
        x_hat, p_y, p_z = published(stanh.anchors[0], prior, x, y_wb, z_wb)
        out = stanh(x, quality=quality)
    scale = float(x_hat.abs().max())
    assert float((out["x_hat"] - x_hat).abs().max()) < 2e-5 * max(1., scale)
    for name, p in (("y", p_y), ("z", p_z)):
        torch.testing.assert_close(out["likelihoods"][name].double(), p, rtol=2e-3, atol=2e-7)
    bits = float(-p_y.log2().sum() - p_z.log2().sum())
    assert abs(float(rate(out["likelihoods"], 1)) / bits - 1) < 1e-5


# %% real files of an imported model

@pytest.mark.parametrize("quality", [0., 37., 100.])
def test_files_decode_to_what_the_model_shows(stanh, codec, quality):
    with torch.inference_mode(): expected = to_array(stanh(to_tensor(PICTURE), quality=quality)["x_hat"])
    data = codec.encode(PICTURE, quality)
    np.testing.assert_array_equal(StanhCodec(stanh).decode(data), expected)
    assert abs(8 * (len(data) - 40) / codec.estimate(PICTURE, quality) - 1) < 0.05


def test_the_finest_point_saturates(stanh):
    net, qy, _ = stanh.quantizers(Position(2, 0))
    y = net.g_a(to_tensor(PICTURE)).detach()
    assert (y.abs() > qy.levels[-1]).float().mean() > 0.2


# %% other layouts, at a small size

@pytest.fixture(scope="module")
def small():
    torch.manual_seed(1)
    return Zou22(SMALL).eval()


@pytest.fixture
def files(tmp_path, small):
    """A small release that `import_stanh` takes, to be spoilt by the tests."""
    (tmp_path / "stanh").mkdir()
    torch.save({"state_dict": anchor_state(small, jumps=(12, 8))}, tmp_path / "anchor.pth.tar")
    for i, name in enumerate(("D01", "D10")): torch.save(point(2. - i, 1., i, (12, 8)), tmp_path / "stanh" / f"{name}.pth.tar")
    return tmp_path


def load(files): return import_stanh(files / "anchor.pth.tar", files / "stanh")


@pytest.mark.parametrize("levels", [0, 1, 7])
def test_every_number_of_levels(files, small, levels):
    state = OrderedDict((f"module.{k}", v) for k, v in anchor_state(small, levels, (12, 8)).items())
    torch.save({"state_dict": state}, files / "anchor.pth.tar")
    model = load(files)
    assert model.anchors[0].config == SMALL
    own, ours = small.state_dict(), model.anchors[0].state_dict()
    assert all(torch.equal(own[k], ours[k]) for k in own if not k.endswith("quantiles"))
    data = StanhCodec(model).encode(PICTURE, 60.)
    assert StanhCodec(model).decode(data).shape == PICTURE.shape


def test_bare_state_dict(tmp_path, small):
    torch.save(small.state_dict(), tmp_path / "bare.pt")
    assert import_zou22(tmp_path / "bare.pt").config == SMALL


def test_raw_training_checkpoint_needs_no_foreign_class(files, small, monkeypatch):
    foreign = type("Annealings", (), {"__module__": __name__, "__qualname__": "Annealings"})
    monkeypatch.setitem(globals(), "Annealings", foreign)
    a = foreign()
    a.beta = torch.tensor(10.)
    torch.save({"epoch": 3, "annealing_strategy_gaussian": a, "state_dict": anchor_state(small, jumps=(12, 8))}, files / "anchor.pth.tar")
    monkeypatch.delitem(globals(), "Annealings")
    assert len(load(files).points) == 2


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *args): self.call = function, args
    def __reduce__(self): return self.call


@pytest.mark.parametrize("function", [os.mkdir, eval, print])
def test_nothing_in_a_file_runs(tmp_path, capsys, function):
    victim = tmp_path / "made"
    argument = {os.mkdir: str(victim), eval: f"__import__('os').mkdir({str(victim)!r})"}.get(function, "ran")
    torch.save({"state_dict": {"x": Call(function, argument)}}, tmp_path / "hostile.pth.tar")
    with pytest.raises(StanhlicError) as refusal: import_zou22(tmp_path / "hostile.pth.tar")
    assert "\n" not in str(refusal.value) and not victim.exists() and capsys.readouterr().out == ""


def test_warns_of_levels_that_do_not_rise(files):
    bad = point(1., 1., 3, (12, 8))
    bad["state_dict"]["gaussian_conditional"]["w"].data[4] = -0.2
    torch.save(bad, files / "stanh" / "D11.pth.tar")
    with pytest.warns(UserWarning, match="D11.*gaussian_conditional has 1 jumps that are not positive"): model = load(files)
    data = StanhCodec(model).encode(PICTURE, 100.)
    with torch.inference_mode(): expected = to_array(model(to_tensor(PICTURE), quality=100.)["x_hat"])
    np.testing.assert_array_equal(StanhCodec(model).decode(data), expected)


def test_warns_of_levels_with_priors_of_their_own(files, small):
    state = anchor_state(small, 3, (12, 8))
    state["entropy_bottleneck.2._bias1"] = state["entropy_bottleneck.2._bias1"] + 1
    torch.save({"state_dict": state}, files / "anchor.pth.tar")
    with pytest.warns(UserWarning, match=r"differ in their prior \(entropy_bottleneck\.2\._bias1\)"): load(files)


# %% refusals

def refused(call, *parts):
    with pytest.raises(StanhlicError) as refusal: call()
    text = str(refusal.value)
    assert "\n" not in text and len(text) < 600 and [p for p in parts if p not in text] == [], text


def changed(state, **new):
    """The state dict with entries replaced, or left out for None; `__` stands for a dot."""
    new = {k.replace("__", "."): v for k, v in new.items()}
    return {k: v for k, v in (state | new).items() if v is not None}


@pytest.mark.parametrize("new, words", [
    (dict(h_a__2__weight=None), ["1 missing (h_a.2.weight)"]),
    (dict(extra__one=torch.zeros(1), extra__two=torch.zeros(1)), ["2 unexpected (extra.one, extra.two)"]),
    (dict(h_a__2__bias=torch.zeros(5)), ["1 of another shape (h_a.2.bias [5] for [44])"]),
    (dict(g_s__2__beta_reparam__pedestal=torch.ones(1)), ["1 constants of another value (g_s.2.beta_reparam.pedestal)"]),
    (dict(h_a__8__bias=torch.full((32,), torch.nan)), ["1 not finite (h_a.8.bias)"]),
    (dict(g_a__0__weight=None), ["not a zou22 network", "'g_a.0.weight'"]),
    (dict(g_a__0__weight=None, h_a__2__weight=torch.zeros(1)), ["not a zou22 network"]),
    (dict(g_a__7__weight=torch.tensor(1.)), ["not a zou22 network"]),
    ({f"h_a__{i}__{p}": None for i in (0, 2, 4) for p in ("weight", "bias")}, ["6 missing (h_a.0.weight, h_a.0.bias, h_a.2.weight, …)"]),
])
def test_keys_that_do_not_fit_are_named(tmp_path, small, new, words):
    path = tmp_path / "cnn.pth.tar"
    torch.save({"state_dict": changed(small.state_dict(), **new)}, path)
    refused(lambda: import_zou22(path), str(path), *words)


def test_the_anchor_names_its_keys_too(files, small):
    torch.save({"state_dict": changed(anchor_state(small, 2, (12, 8)), **{"entropy_bottleneck__0___matrix2": None, "lost__key": torch.zeros(1)})}, files / "anchor.pth.tar")
    refused(lambda: load(files), "1 missing (entropy_bottleneck._matrix2), 1 unexpected (lost.key)")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x89PNG\r\n\x1a\n" + bytes(100), b"PK\x03\x04" + bytes(40), b"\x80\x02}q\x00."])
def test_foreign_bytes(tmp_path, content):
    (tmp_path / "x.pth.tar").write_bytes(content)
    refused(lambda: import_zou22(tmp_path / "x.pth.tar"), "x.pth.tar")


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.999])
def test_truncated(tmp_path, small, kept):
    torch.save(small.state_dict(), tmp_path / "x.pth.tar")
    data = (tmp_path / "x.pth.tar").read_bytes()
    (tmp_path / "x.pth.tar").write_bytes(data[:int(kept * len(data))])
    refused(lambda: import_zou22(tmp_path / "x.pth.tar"), "not a whole PyTorch checkpoint")


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), {"state_dict": 5}, {"state_dict": {}}, {}, {1: torch.ones(1)}])
def test_other_things_in_a_checkpoint(tmp_path, content):
    torch.save(content, tmp_path / "x.pth.tar")
    refused(lambda: import_zou22(tmp_path / "x.pth.tar"), "x.pth.tar")


def test_paths_that_are_not_there(files):
    refused(lambda: import_zou22(files / "none.pth.tar"), "No such file")
    refused(lambda: import_zou22(files / "stanh"), "Is a directory")
    refused(lambda: import_stanh(files / "anchor.pth.tar", files / "none"), "not a folder")
    (files / "empty").mkdir()
    refused(lambda: import_stanh(files / "anchor.pth.tar", files / "empty"), "no .pth.tar file in it")


def test_the_two_kinds_taken_for_each_other(files, small):
    refused(lambda: import_zou22(files / "anchor.pth.tar"), "import it as stanh")
    torch.save({"state_dict": small.state_dict()}, files / "cnn.pth.tar")
    refused(lambda: import_stanh(files / "cnn.pth.tar", files / "stanh"), "import a plain network as zou22")
    refused(lambda: import_zou22(files / "stanh" / "D01.pth.tar"), "not a zou22 network")


def without(part, key): return lambda p: p["state_dict"][part].pop(key)


@pytest.mark.parametrize("spoil, words", [
    (without("gaussian_conditional", "b"), "no jumps w and thresholds b of gaussian_conditional"),
    (lambda p: p["state_dict"].pop("entropy_bottleneck"), "no jumps w and thresholds b of entropy_bottleneck"),
    (lambda p: p.update(state_dict=3), "no jumps w"),
    (lambda p: p["state_dict"]["gaussian_conditional"].update(w=torch.ones(11)), "must be two vectors of one length"),
    (lambda p: p["state_dict"]["gaussian_conditional"].update(w=torch.full((12,), torch.inf)), "not finite"),
    (lambda p: p["gaussian_configuration"].update(activation="delta"), "'delta'"),
    (lambda p: p["state_dict"].update(gaussian_conditional=quantizer(1., 10, 0)), "[11, 9] levels of y and z where D01.pth.tar has [13, 9]"),
])
def test_spoilt_points(files, spoil, words):
    bad = point(1., 1., 3, (12, 8))
    spoil(bad)
    torch.save(bad, files / "stanh" / "D11.pth.tar")
    refused(lambda: load(files), "D11.pth.tar", words)


def test_names_as_compressai_and_the_authors_have_them():
    from stanhlic.stanh.importers import config_of, tidy_key
    names = {"module.g_a.0.weight": "g_a.0.weight", "entropy_bottleneck._matrices.3": "entropy_bottleneck._matrix3", "entropy_bottleneck.biases.0": "entropy_bottleneck._bias0",
             "entropy_bottleneck.0._factor1": "entropy_bottleneck._factor1", "entropy_bottleneck.1._factor1": None, "entropy_bottleneck.0.sos.w": None,
             "gaussian_conditional.scale_table": None}
    assert {name: tidy_key(name) for name in names} == names
    with pytest.raises(StanhlicError, match="its 1 tensors lack 'g_a.0.weight'"): config_of({"conv1.weight": torch.zeros(1)})


# %% on the command line

@pytest.fixture
def lone(tmp_path, small):
    """The file of a small fixed-rate network."""
    torch.save({"state_dict": stf_state(small)}, tmp_path / "cnn.pth.tar")
    return tmp_path / "cnn.pth.tar"


def test_imported_models_write_files_and_say_where_they_are_from(cli, files, lone, photo, tmp_path):
    for release, given, points in (("zou22", [lone, "--lambdas", "0.0067"], [0.0067]), ("stanh", [files / "anchor.pth.tar", files / "stanh"], [None, None]),
                                   ("stanh", [files / "anchor.pth.tar", files / "stanh/D10.pth.tar", "--name", "mine"], [None])):
        out = tmp_path / f"{release}-{len(points)}.safetensors"
        done = cli("import", release, *given[:2 if release == "stanh" else 1], out, *given[2 if release == "stanh" else 1:])
        assert done.returncode == 0 and done.stdout.startswith(f"{out}: "), done.stderr
        held = inspect_weights(out)
        assert [p["lambda"] for p in held["config"]["points"]] == points and held["name"] == ("mine" if "mine" in given else {"zou22": "zou22", "stanh": "stanh-zou22"}[release])
        assert held["provenance"]["release"] == release and all(len(h) == 64 for h in held["provenance"]["sha256"].values())
        assert cli("compress", photo, tmp_path / "a.slic", "--model", out).returncode == 0
        assert cli("decompress", tmp_path / "a.slic", tmp_path / "a.png", "--model", out).returncode == 0


def test_training_goes_on_from_an_imported_network(cli, lone, tmp_path):
    assert cli("import", "zou22", lone, tmp_path / "base.safetensors", "--lambdas", "0.013").returncode == 0
    done = cli("train", "stanh", "derivation", "--init", tmp_path / "base.safetensors", "--out", tmp_path / "run", "--set", "steps=2", "--set", "lmbdas=[0.0065]", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert [p["lambda"] for p in inspect_weights(tmp_path / "run/model.safetensors")["config"]["points"]] == [0.0065, 0.013]


def test_every_key_that_does_not_fit_is_listed_and_nothing_is_written(cli, small, tmp_path):
    torch.save({"state_dict": changed(small.state_dict(), h_a__2__bias=torch.zeros(5), lost__key=torch.zeros(1), **{f"h_a__{i}__weight": None for i in (0, 4, 6, 8)})}, tmp_path / "cnn.pth.tar")
    done = cli("import", "zou22", tmp_path / "cnn.pth.tar", tmp_path / "out.safetensors")
    assert done.returncode == 1 and not (tmp_path / "out.safetensors").exists()
    *lines, last = done.stderr.strip().splitlines()
    assert sorted(lines) == sorted([*(f"missing: h_a.{i}.weight" for i in (0, 4, 6, 8)), "unexpected: lost.key", "of another shape: h_a.2.bias [5] for [44]"])
    assert "4 missing (h_a.0.weight, h_a.4.weight, h_a.6.weight, …), 1 unexpected (lost.key)" in last


@pytest.mark.parametrize("words, said", [
    (("vtm", "{lone}", "o.safetensors"), "choose zou22, stanh, progressive"), (("stanh", "{lone}", "o.safetensors"), "the anchor's file and the rate points"),
    (("zou22", "{lone}", "{lone}", "o.safetensors"), "takes one file, not 2"), (("zou22", "{lone}", "o.pth"), "let it end in .safetensors"), (("zou22", "{lone}", "{there}"), "exists already"),
    (("zou22", "{lone}", "o.safetensors", "--lambdas", "1,2"), "2 lambdas for 1 rate points"), (("zou22", "{lone}", "o.safetensors", "--rems", "5"), "rems do not belong to zou22"),
    (("zou22", "{lone}", "o.safetensors", "--name", "A B"), "model name"), (("zou22", "none.pth", "o.safetensors"), "No such file"), (("progressive", "{lone}", "o.safetensors"), "imported as zou22"),
])
def test_refusals_are_one_line(cli, lone, tmp_path, words, said):
    (tmp_path / "there.safetensors").write_bytes(b"kept")
    done = cli("import", *(w.format(lone=lone, there=tmp_path / "there.safetensors") for w in words), cwd=tmp_path)
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1 and (tmp_path / "there.safetensors").read_bytes() == b"kept", done.stderr
    assert not (tmp_path / "o.safetensors").exists()


def test_remarks_are_notes(cli, files, tmp_path):
    bad = point(1., 1., 3, (12, 8))
    bad["state_dict"]["gaussian_conditional"]["w"].data[4] = -0.2
    torch.save(bad, files / "stanh" / "D11.pth.tar")
    done = cli("import", "stanh", files / "anchor.pth.tar", files / "stanh", tmp_path / "out.safetensors")
    assert done.returncode == 0 and re.search("^stanhlic: note: stanh: .*1 jumps that are not positive", done.stderr, re.M)


# %% measured at full size

def measured(cli, folder, item, monkeypatch, **settings):
    """An item's run of profile paper on the models in a folder: what was left, and the weights that made it."""
    monkeypatch.setenv("STANHLIC_MODELS", str(folder))
    words = [w for name, value in settings.items() for w in ("--set", f"{name}={value}")]
    done = cli("reproduce", item, "--profile", "paper", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    numbers = json.loads((folder / "runs/figures" / f"{item}.json").read_text(encoding="utf-8"))
    return done.stdout, numbers


@pytest.mark.long
def test_an_imported_model_is_measured_by_its_name(cli, files, monkeypatch):
    pytest.importorskip("papermill")
    assert "needs" in cli("reproduce", "stanh/interpolation", "--profile", "paper", cwd=files).stdout, "without the weights it says so"
    assert cli("import", "stanh", files / "anchor.pth.tar", files / "stanh", files / "full.safetensors").returncode == 0
    said, numbers = measured(cli, files, "stanh/interpolation", monkeypatch, n_images=1, between=1, targets="0.5")
    assert numbers["made_by"]["weights"] == {"stanh-zou22": inspect_weights(files / "full.safetensors")["fingerprint"]} and "runs/figures" in said


@pytest.mark.slow
def test_full_size_from_import_to_numbers(cli, release, photo, tmp_path, monkeypatch):
    pytest.importorskip("papermill")
    assert cli("import", "stanh", release / "anchor.pth.tar", release / "stanh", tmp_path / "full.safetensors").returncode == 0
    assert inspect_weights(tmp_path / "full.safetensors")["parameters"] > 75_235_523
    assert cli("compress", photo, tmp_path / "a.slic", "--model", tmp_path / "full.safetensors").returncode == 0
    assert cli("decompress", tmp_path / "a.slic", tmp_path / "a.png", "--model", tmp_path / "full.safetensors").returncode == 0
    monkeypatch.setenv("STANHLIC_DATA", str(tmp_path))
    _, numbers = measured(cli, tmp_path, "stanh/rd_kodak", monkeypatch, n_images=1, qualities="0,100", classical="jpeg", similarity="false")
    assert numbers["kind"] == "smoke" and len(numbers["table"]) == 2 and all(r["bpp"] > 0 for r in numbers["table"])


def test_kind_follows_from_the_model_and_its_history(tmp_path, monkeypatch):
    """Full size is what a known history made; weights of full size that nobody knows the origin of measure nothing."""
    from stanhlic.lab import items
    monkeypatch.setattr(items, "has_dataset", lambda name: True)
    monkeypatch.setattr(items, "demo_images", lambda n: ([(str(i), PICTURE) for i in range(n)], "Kodak"))
    given = {n: v for n, (_, v) in items.defaults(items.find_item("stanh/rd_kodak")).items()} | {"n_images": 24, "model": str(tmp_path / "m.safetensors")}
    for latent, provenance, kind in ((320, {"release": "stanh"}, "full"), (320, {"stages": [{}]}, "full"), (320, {}, "smoke"), (96, {}, "compact")):
        save_weights(tmp_path / "m.safetensors", {"x": torch.ones(1)}, {"system": "stanh", "name": "m", "config": {"anchors": [{"latent": latent}]}, "provenance": provenance})
        assert items.begin("stanh/rd_kodak", given).kind == kind
    assert [items.size_of({"architecture": "Cheng2020Anchor", "width": w, "latent": w}) for w in (16, 128, 192)] == ["compact", "full", "full"]
