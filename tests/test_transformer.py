"""STanH in a transformer: the published sizes and names, the same codec before and after the plug, any picture, pieces, training, and refusals of one line."""
import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch

from stanhlic.backbone import rate
from stanhlic.errors import StanhlicError
from stanhlic.images import to_tensor
from stanhlic.modelfile import inspect_weights, load_weights, save_weights
from stanhlic.stanh.codec import StanhCodec
from stanhlic.stanh.model import StanhModel, model_config, rounding_point
from stanhlic.stanh.plugin import build_host
from stanhlic.stanh.training import run
from stanhlic.stanh.transformer import FULL, NARROW, SIZES, TRANSFORMER, SymmetricalTransFormer, TransformerConfig, linear_start
from stanhlic.strips import reach
from stanhlic.zoo import load_codec

RNG = np.random.default_rng(0)
PICTURE = np.kron(RNG.integers(0, 256, (16, 24, 3), np.uint8), np.ones((8, 8, 1), np.uint8))  # 128 x 192, with areas in it
SMALL = SIZES["smoke"]


def network(config=SMALL, seed=0):
    """A transformer with a linear start on pieces of the picture, whose latents spread over tens of levels."""
    torch.manual_seed(seed)
    x = to_tensor(PICTURE)
    crops = torch.cat([x[..., a:a + 64, b:b + 64] for a in (0, 32, 64) for b in (0, 32, 64, 96, 128)])
    return linear_start(SymmetricalTransFormer(config), crops).eval()


def plugged(net, step=2.0):
    """Two rate points, so that there is something between them."""
    model = StanhModel([net], [rounding_point(0.0065, step=step), rounding_point(0.013, step=step)])
    with torch.no_grad(): model.points[1].y.raw_jumps -= 0.5
    return model.eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A weight file of a small transformer with two rate points."""
    model, path = plugged(network()), tmp_path_factory.mktemp("transformer") / "model.safetensors"
    save_weights(path, model.state_dict(), {"system": "stanh", "name": "transformer", "config": model_config(model), "provenance": {}})
    return path


def test_full_size_is_the_published_one():
    with torch.device("meta"): net = SymmetricalTransFormer()
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    assert sum(counts.values()) == 99_855_639 and counts["entropy_bottleneck"] == 192 * (58 + 3)
    assert (FULL.latent, FULL.width, FULL.depths, FULL.slices, FULL.support) == (384, 192, (2, 2, 6, 2), 12, 6)


def test_names_are_those_of_the_authors_less_the_first_word():
    """A sample of the keys of a released checkpoint: embedding, a shifted block, both ways to the next resolution, the last layers."""
    with torch.device("meta"): state = SymmetricalTransFormer().state_dict()
    theirs = {k.removeprefix("g_a.").removeprefix("g_s."): tuple(v.shape) for k, v in state.items()}
    assert len(theirs) == len(state)
    for key, shape in {"patch_embed.proj.weight": (48, 3, 2, 2), "patch_embed.norm.bias": (48,), "layers.2.blocks.5.attn.qkv.weight": (576, 192), "layers.0.blocks.1.attn.relative_position_bias_table": (49, 3),
                       "layers.3.blocks.0.attn.relative_position_bias_table": (49, 24), "layers.0.blocks.0.attn.relative_position_index": (16, 16), "layers.1.blocks.0.mlp.fc1.weight": (384, 96), "layers.0.downsample.reduction.weight": (96, 192),
                       "layers.2.downsample.norm.weight": (768,), "syn_layers.0.downsample.reduction.weight": (768, 384), "syn_layers.1.blocks.5.norm2.weight": (192,), "end_conv.0.weight": (192, 48, 5, 5), "end_conv.2.weight": (3, 48, 3, 3),
                       "h_a.0.weight": (384, 384, 3, 3), "h_mean_s.2.0.weight": (1152, 240, 3, 3), "h_scale_s.8.bias": (384,), "cc_mean_transforms.11.0.weight": (224, 576, 3, 3), "lrp_transforms.11.0.weight": (224, 608, 3, 3)}.items():
        assert theirs[key] == shape, key
    assert not any(k.startswith(("layers.3.downsample", "syn_layers.3.downsample")) for k in theirs)


def test_does_without_compressai():
    probe = f"import sys; from stanhlic.stanh.plugin import build_host; build_host({asdict(SMALL)!r}); print('compressai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout.strip() == "False"


def test_rounding_gives_the_fixed_rate_codec():
    net, x = network(), to_tensor(PICTURE)
    with torch.no_grad(): ours, alone = StanhModel([net], [rounding_point(free=True)]).eval()(x, quality=0), net(x)
    assert torch.allclose(ours["x_hat"], alone["x_hat"], atol=1e-4)
    for name, within in (("y", 1e-3), ("z", 0.03)):  # a z beyond the outermost level costs its open cell here, and an escape in a file
        a, b = (rate({name: o["likelihoods"][name]}, 1).item() for o in (ours, alone))
        assert abs(a - b) < within * b and b > 100


@pytest.mark.parametrize("size", [(64, 64), (100, 150), (1, 1), (65, 191)])
def test_pictures_of_any_size(file, size):
    codec = load_codec(file, "cpu")
    picture = np.tile(PICTURE, (2, 2, 1))[:size[0], :size[1]]
    sizes = []
    for quality in (0, 37, 100):
        data = codec.encode(picture, quality)
        assert np.array_equal(codec.decode(data), codec.picture(codec.analyze(picture), codec.position_at(quality)))
        sizes.append(len(data))
    assert size == (1, 1) or sizes == sorted(sizes)


def test_decodes_in_a_fresh_process(file, tmp_path):
    codec = load_codec(file, "cpu")
    data = codec.encode(PICTURE, 60)
    (tmp_path / "p.slic").write_bytes(data)
    probe = f"import numpy as np; from stanhlic.zoo import load_codec; np.save('out.npy', load_codec({str(file)!r}, 'cpu').decode(open('p.slic', 'rb').read()))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "out.npy"), codec.decode(data))
    assert abs(8 * len(data) - codec.estimate(PICTURE, 60)) < 8 * 80 + 0.02 * codec.estimate(PICTURE, 60)


def test_a_file_and_a_state_dict_are_enough(file):
    weights = load_weights(file)
    assert weights.header["config"]["anchors"][0] == json.loads(json.dumps(asdict(SMALL)))
    again = StanhModel.from_state_dict(weights.tensors, weights.header["config"])
    assert again.anchors[0].config == SMALL and build_host(SMALL).config == SMALL
    data = StanhCodec(again).encode(PICTURE, 20)
    assert np.array_equal(StanhCodec(again).decode(data), StanhCodec(again.eval()).decode(data))


def test_in_pieces_as_in_one(monkeypatch):
    """Latents and picture are those of the whole, and a piece is a million pixels unless the picture is smaller."""
    codec = StanhCodec(plugged(network(TransformerConfig(width=8, latent=32, depths=(2, 2, 2, 2), head=4, slices=2, support=1, context=(8,)))))
    assert codec.piece >= 2 ** 20 and StanhCodec(plugged(network(NARROW))).piece == 2 ** 20
    picture = np.tile(PICTURE, (7, 1, 1))
    net, whole = codec.model.anchors[0], codec.analyze(picture)
    assert (reach(net.g_a, 3, 64), reach(net.g_s, 32, 4)) == (96, 5)
    one = whole.latents(net)[0], codec.picture(whole, 100)
    monkeypatch.setattr(StanhCodec, "piece", property(lambda self: 192 * 448))
    cut = codec.analyze(picture)
    assert torch.allclose(cut.latents(net)[0], one[0], atol=1e-4 * one[0].abs().max().item())
    assert np.abs(codec.picture(cut, 100).astype(int) - one[1]).max() <= 1


def test_more_effort_is_worth_it(file):
    codec = load_codec(file, "cpu")
    loss = lambda data: len(data) * 8 / PICTURE[..., 0].size + 0.013 * np.square(codec.decode(data).astype(float) - PICTURE).mean()
    assert loss(codec.encode(PICTURE, 100, effort=1)) <= loss(codec.encode(PICTURE, 100))


def test_derivation_trains_jumps_and_thresholds_alone():
    model = StanhModel([network().requires_grad_(False)], [rounding_point(), rounding_point()]).train()
    out = model(to_tensor(PICTURE), point=0, beta=(10.0, 10.0))
    (100 * out["x_hat"].square().mean() + rate(out["likelihoods"], 128 * 192)).backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {f"points.0.{q}.raw_{p}" for q in "yz" for p in ("jumps", "thresholds")}


def test_every_stage_runs(file, tmp_path):
    """Base, with its entropy model restarted, anchor and derivation from a weight file to a weight file."""
    from PIL import Image
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for i in range(3): Image.fromarray(np.roll(PICTURE, 9 * i, 1)).save(photographs / f"{i}.png")
    at = dict(data=str(photographs), device="cpu")
    base = run("base", out=tmp_path / "base", init=str(file), set=["renew=hyper"], **at)
    assert all(torch.equal(v, load_weights(file).tensors[k]) for k, v in load_weights(base).tensors.items() if k.startswith(("anchors.0.g_a.", "anchors.0.g_s.")))
    anchor = run("anchor", out=tmp_path / "anchor", init=base, **at)
    derived = run("derivation", out=tmp_path / "derived", init=anchor, **at)
    old, new = load_weights(anchor).tensors, load_weights(derived).tensors
    assert all(torch.equal(new[k], v) for k, v in old.items() if k.startswith("anchors.")) and not torch.equal(load_weights(base).tensors["anchors.0.g_a.patch_embed.proj.weight"], old["anchors.0.g_a.patch_embed.proj.weight"])
    header = inspect_weights(derived)
    assert [len(header["config"]["points"]), *(s["stage"] for s in header["provenance"]["stages"])] == [3, "base", "anchor", "derivation"]


def test_a_fresh_network_is_nearly_linear():
    """The start is that of a block transform: every block corrects nothing, and twice the contrast gives twice the latent."""
    net, x = network(NARROW), to_tensor(PICTURE)
    with torch.no_grad():
        gray = net.g_a(torch.full_like(x, 0.5))
        whole, half = net.g_a(x) - gray, net.g_a(0.25 + x / 2) - gray
        out = net(x)["x_hat"]
    assert (whole - 2 * half).square().mean() < 0.05 * whole.square().mean()
    assert (out - x).square().mean() < 0.3 * x.var()


def test_refusals():
    for wrong in (dict(depths=(2, 2, 2)), dict(window=8), dict(slices=5), dict(head=7), dict(latent=16), dict(width=-1), dict(window=True)):
        with pytest.raises(StanhlicError, match="make no|cannot be"): TransformerConfig(**wrong)
    with pytest.raises(StanhlicError, match=f"unknown host 'Swin'; there are .*{TRANSFORMER}"): build_host({"architecture": "Swin", "width": 8, "latent": 16})
