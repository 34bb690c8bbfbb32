"""STanH in CompressAI's models: the same codec before, files the same size as CompressAI's, and refusals of one line."""
import copy
import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch

from stanhlic.backbone import rate
from stanhlic.errors import StanhlicError
from stanhlic.images import to_tensor
from stanhlic.stanh.codec import StanhCodec
from stanhlic.stanh.model import StanhModel, rounding_point
from stanhlic.stanh.plugin import PLAIN as KINDS, SERIAL, HostConfig, SerialHost, build_host, host, import_compressai, prior_of

PICTURE = np.random.default_rng(0).integers(0, 256, (128, 192, 3), np.uint8)


@pytest.fixture(scope="module")
def models():
    if importlib.util.find_spec("compressai") is None: pytest.skip("needs stanhlic[compressai]")
    return import_compressai().models


def network(models, kind, seed=0):
    """A CompressAI model with random weights whose latents spread over tens of levels."""
    torch.manual_seed(seed)
    net = getattr(models, kind)(*((12,) if kind.startswith("Cheng") else (12, 20))).eval()
    with torch.no_grad():
        net.g_a[-1 if hasattr(net.g_a[-1], "weight") else -2].weight *= 30
        net.h_a[-1].weight *= 8
        if kind in SERIAL: net.entropy_parameters[-1].bias[:net.M] += 1.5
        else: net.h_s[-1 if kind == KINDS[0] else -2].bias += 1.5
        net.entropy_bottleneck.quantiles[:, 0, 1] = torch.randn(12)
        net.entropy_bottleneck.quantiles[:, 0, 0] -= 15
        net.entropy_bottleneck.quantiles[:, 0, 2] += 15
    return net


def test_import_is_cured_and_repeatable(models):
    probe = "from stanhlic.stanh.plugin import import_compressai as i; assert i() is i(); import compressai.zoo, torchvision"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_module_does_not_import_compressai():
    probe = "import sys, stanhlic.stanh.plugin; print('compressai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout.strip() == "False"


def test_missing_compressai_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "compressai.models", None)
    with pytest.raises(StanhlicError, match=r'pip install "stanhlic\[compressai\]"'): import_compressai()


def test_prior_is_the_same_under_both_layouts_of_names(models):
    net = network(models, KINDS[0])
    new = prior_of(net.entropy_bottleneck)
    class Old(torch.nn.Module):
        channels, filters = 12, (3, 3, 3, 3)
    old = Old()
    for name, value in new.state_dict().items(): setattr(old, name, torch.nn.Parameter(value))
    x = torch.linspace(-9, 9, 21).expand(12, 1, -1)
    assert torch.equal(prior_of(old).logits(x), new.logits(x))
    assert torch.equal(new.medians().flatten(), net.entropy_bottleneck.quantiles[:, 0, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_gives_the_models_own_picture_and_rate(models, kind):
    net, x = network(models, kind), to_tensor(PICTURE)
    plugged = StanhModel([host(net)], [rounding_point(free=True)]).eval()
    with torch.no_grad(): ours, theirs = plugged(x, quality=0), net(x)
    assert torch.allclose(ours["x_hat"], theirs["x_hat"], atol=1e-4)
    for name in ("y", "z"):
        a, b = (rate({name: o["likelihoods"][name]}, 1).item() for o in (ours, theirs))
        assert abs(a - b) < 1e-4 * b and b > 100


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_as_small_as_compressais(models, kind):
    net = network(models, kind)
    net.update()
    picture = np.tile(PICTURE, (2, 3, 1))
    data = StanhCodec(StanhModel([host(net)], [rounding_point()])).encode(picture)
    with torch.no_grad(): strings = net.compress(to_tensor(picture))["strings"]
    size = sum(len(s) for kind in strings for s in kind)
    assert size > 3000 and abs(len(data) - size) < 0.01 * size + 40


@pytest.mark.parametrize("kind", SERIAL)
def test_serial_context_gives_the_picture_that_compressai_decodes(models, kind):
    """Front by front as pixel by pixel: what its own files hold, to the last bits of float arithmetic; files near the estimate."""
    net, x = network(models, kind), to_tensor(PICTURE)
    net.update()
    model = StanhModel([host(net)], [rounding_point()]).eval()
    with torch.no_grad(): ours, theirs = model(x, quality=0), net.decompress(**net.compress(x))
    assert isinstance(model.anchors[0], SerialHost) and torch.allclose(ours["x_hat"].clamp(0, 1), theirs["x_hat"], atol=1e-4)
    codec = StanhCodec(model)
    data, fronts = codec.encode(PICTURE), 3 * 7 + 12
    assert abs(8 * len(data) - codec.estimate(PICTURE, 0)) < 8 * (2 * fronts + 60) + 0.02 * codec.estimate(PICTURE, 0)


def test_a_serial_host_trains(models):
    """The derivation's gradients come through all fronts; nothing else moves."""
    points = [rounding_point(), rounding_point()]
    model = StanhModel([host(network(models, "Cheng2020Anchor")).requires_grad_(False)], points).train()
    out = model(to_tensor(PICTURE[:64, :64]), point=0, beta=(10.0, 10.0))
    (100 * out["x_hat"].square().mean() + rate(out["likelihoods"], 64 * 64)).backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for n, p in points[0].named_parameters() if n.startswith("y.")) and out["likelihoods"]["y"].shape == out["quantized"]["y"].shape == (1, 12, 4, 4)


@pytest.mark.parametrize("kind", [*KINDS, "Cheng2020Anchor"])
def test_a_rebuilt_model_decodes(models, kind):
    picture = PICTURE[:100, :150]  # no multiple of 64
    points = lambda: [rounding_point(step=2.0), rounding_point(step=2.0)]
    model = StanhModel([host(network(models, kind))], points())
    with torch.no_grad(): model.points[1].y.raw_jumps -= 0.5
    model.eval()
    data = StanhCodec(model).encode(picture, 40)
    again = StanhModel([build_host(model.anchors[0].config)], points())
    again.load_state_dict(model.state_dict())
    decoded = StanhCodec(again).decode(data)
    assert decoded.shape == picture.shape and np.array_equal(decoded, StanhCodec(model).decode(data))


def test_the_callers_model_is_left_alone(models):
    net = network(models, KINDS[0])
    before = copy.deepcopy(net.state_dict())
    model = StanhModel([host(net)], [rounding_point()]).double()
    with torch.no_grad():
        for p in model.parameters(): p.zero_()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()) and net.g_a[0].weight.dtype == torch.float32


def test_derivation_trains_jumps_and_thresholds_alone(models):
    points = [rounding_point(), rounding_point()]
    model = StanhModel([host(network(models, KINDS[1])).requires_grad_(False)], points).train()
    out = model(to_tensor(PICTURE), point=0, beta=(10.0, 10.0))
    (100 * out["x_hat"].square().mean() + rate(out["likelihoods"], 128 * 192)).backward()
    with_gradient = {n for n, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {f"points.0.{q}.raw_{p}" for q in "yz" for p in ("jumps", "thresholds")}


def test_refusals(models):
    class Renamed(models.MeanScaleHyperprior): pass
    class Changed(models.MeanScaleHyperprior):
        def forward(self, x): return super().forward(x)
    assert host(Renamed(8, 12)).config == HostConfig(KINDS[0], 8, 12)
    assert host(models.Cheng2020Anchor(8)).config == HostConfig("Cheng2020Anchor", 8, 8)
    for net, why in ((models.FactorizedPrior(8, 12), "is not a mean-scale"), (Changed(8, 12), "is not a mean-scale"), (torch.nn.Identity(), "is not a mean-scale")):
        with pytest.raises(StanhlicError, match=why): host(net)
    with pytest.raises(StanhlicError, match="unknown host"): build_host({"architecture": "FactorizedPrior", "width": 8, "latent": 12})
