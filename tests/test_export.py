"""Networks as ONNX files: what they hold, that they run at other sizes, and what is refused."""
import gzip
import json
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch

from stanhlic.backbone import Zou22, Zou22Config
from stanhlic.errors import StanhlicError
from stanhlic.lean import LEAN_SMOKE, Lean
from stanhlic.metrics import psnr
from stanhlic.modelfile import save_weights
from stanhlic.stanh.codec import place, tables_at
from stanhlic.stanh.graphs import pack_tables
from stanhlic.stanh.model import PUBLISHED, StanhModel, model_config, rounding_point
from stanhlic.zoo import load_codec
from tests.fuzz import CORPUS, drawing

torch.set_num_threads(1)
HINT = "needs onnx and onnxruntime, one of which is not installed here: pip install -c constraints.txt -e '.[onnx]'"


def lean_model(folder, levels=(4, 1)):
    """A file of a small lean model of random numbers, with a rate point for each step."""
    torch.manual_seed(0)
    net = Lean(LEAN_SMOKE)
    for layer in (m for m in net.g_a if isinstance(m, torch.nn.Conv2d)): layer.weight.data *= 3  # so that there is something to quantize
    for head in (h for s in net.slices for h in (s.black, s.white)): head.bias.data[len(head.bias) // 2:].uniform_(0.2, 5)  # and scales of all sizes
    model = StanhModel([net], [rounding_point(extrema=(60 * step, 20), step=step) for step in levels])
    path = folder / "lean.safetensors"
    save_weights(path, model.state_dict(), {"system": "stanh", "name": "lean", "config": model_config(model), "provenance": {"seed": 0}})
    return path


def published_model(folder):
    """A file of a small model of two anchors, in the published forms, with quantizers of their own sizes."""
    torch.manual_seed(0)
    nets = [Zou22(Zou22Config(width=8, latent=8, slices=2, support=1, context=(8,), heads=2, units=1, outer_gate=False)) for _ in range(2)]
    points = [rounding_point(extrema=(8, 4), free=True), rounding_point(extrema=(12, 4), free=True)]
    points[1].anchor = 1
    model = StanhModel(nets, points, PUBLISHED)
    save_weights(folder / "published.safetensors", model.state_dict(), {"system": "stanh", "name": "published", "config": model_config(model), "provenance": {"seed": 0}})
    return folder / "published.safetensors"


@pytest.fixture(scope="module")
def exported(tmp_path_factory, cli):
    """model.json of a small model of each kind, by name, each beside its files."""
    pytest.importorskip("onnx", reason=HINT); pytest.importorskip("onnxruntime", reason=HINT)
    folder = tmp_path_factory.mktemp("exported")
    from stanhlic.progressive.lean import PROGRESSIVE_LEAN_SMOKE
    from stanhlic.progressive.model import model_config as staged_config, random_model
    staged = random_model(PROGRESSIVE_LEAN_SMOKE)
    save_weights(folder / "staged.safetensors", staged.state_dict(), {"system": "progressive", "name": "staged", "config": staged_config(staged), "provenance": {"seed": 0}})
    from stanhlic.rnn.model import RnnHyper
    from stanhlic.rnn.networks import RNN_SMALL
    torch.manual_seed(0)
    layered = RnnHyper(RNN_SMALL)
    save_weights(folder / "layered.safetensors", layered.state_dict(), {"system": "rnn", "name": "layered", "config": asdict(RNN_SMALL), "provenance": {"seed": 0}})
    files = {"lean": lean_model(folder), "layered": folder / "layered.safetensors", "published": published_model(folder), "staged": folder / "staged.safetensors"} | {kind: CORPUS / f"{kind}.safetensors" for kind in ("stanh", "rnn", "progressive")}
    for name, path in files.items():
        done = cli("export", path, folder / name)
        assert done.returncode == 0, done.stderr
        assert f"{name}/model.json: " in done.stdout and "opset 17" in done.stdout
    return {name: (json.loads((folder / name / "model.json").read_text()), folder / name, load_codec(path, "cpu")) for name, path in files.items()}


@pytest.mark.parametrize("name, some", [
    ("lean", ["analysis", "hyper_analysis", "hyper_synthesis", "slice0_black", "slice0_white", "slice0_whole", "slice1_black", "join", "synthesis"]),
    ("stanh", ["analysis", "hyper_analysis", "hyper_synthesis", "slice0", "slice0_whole", "slice1", "join", "synthesis"]),
    ("staged", ["analysis", "hyper_analysis", "hyper_synthesis", "slice0_black", "slice1_whole", "join", "refinement", "synthesis"]),
    ("published", ["anchor0_analysis", "anchor0_slice0", "anchor0_synthesis", "anchor1_hyper_synthesis", "anchor1_slice1_whole"]),
    ("rnn", ["encoder", "hyper_encoder", "hyper_decoder", "decoder"]),
    ("layered", ["encoder", "hyper_encoder", "hyper_decoder", "known", "decoder"]),
    ("progressive", ["hyper_base", "base0", "base0_whole", "residual0_mean", "residual0_scale", "residual0_whole", "refine0_0", "synthesis_base", "synthesis_top"])])
def test_every_network_is_there_and_agrees(exported, name, some):
    """The exporter itself refuses differences above 1e-5; here, that it compared at all, at a size that it had not seen."""
    import onnx
    told, folder, codec = exported[name]
    assert set(some) <= set(told["networks"]) and (told["opset"], told["fingerprint"]) == (17, codec.fingerprint.hex())
    assert {p.stem for p in folder.glob("*.onnx")} == set(told["networks"])
    for n, row in told["networks"].items():
        assert row["bytes"] == (folder / f"{n}.onnx").stat().st_size and 0 <= row["difference"] <= 1e-5
        graph = onnx.load(folder / f"{n}.onnx")
        assert [o.version for o in graph.opset_import] == [17]
        dims = [d for t in graph.graph.input for d in list(t.type.tensor_type.shape.dim)[2:]]
        assert dims and all(d.dim_param for d in dims) or not dims and n.endswith("join")  # heights and widths are free


@pytest.mark.parametrize("name", ["lean", "stanh", "published", "staged", "rnn", "layered", "progressive"])
def test_the_plan_names_what_is_known_by_then(exported, name):
    told = exported[name][0]
    given, known = {"x", "step", "z_hat", "residual", "mean", "scale", "symbols", "y_hat", *(f"{kind}{i}" for kind in "hc" for i in range(1, 5))}, set()
    for step in told["plan"]:
        if "run" in step:
            assert set(step["inputs"]) <= given | known, step
            known |= set(step["outputs"])
        else: known |= {f"value{step['code']}", *(f"value_top{i}" for i in range(9))}
    assert {s["run"] for s in told["plan"] if "run" in s} == set(told["networks"])


def test_weights_of_half_precision_are_stored_as_such(exported):
    """The same numbers, in half the bytes."""
    told, folder, codec = exported["stanh"]
    import onnx
    from onnx import numpy_helper
    stored = {t.name.removesuffix(".half"): numpy_helper.to_array(t) for t in onnx.load(folder / "synthesis.onnx").graph.initializer}
    weight = codec.model.anchors[0].g_s[1].weight.detach().numpy()
    found = next(t for t in stored.values() if t.shape == weight.shape and np.array_equal(t.astype(np.float32), weight))
    assert found.dtype == np.float16


def unpacked(data, size):
    """The inverse of `pack_tables`."""
    planes = np.frombuffer(gzip.decompress(data), np.uint8).reshape(-1, 4, size).transpose(0, 2, 1)
    folded = np.ascontiguousarray(planes).view("<u4")[..., 0].astype(np.int64)
    t = (folded >> 1) ^ -(folded & 1)
    t[1:] = t[1:].cumsum(0)
    return t.cumsum(0)


@pytest.mark.parametrize("name, blocks", [("lean", [(0, 64), (64, 64), (128, 64), (192, 64), (256, 1)]), ("published", [(0, 64), (64, 64), (128, 64), (192, 64), (256, 1)])])
def test_tables_of_every_position_are_those_of_the_codec(exported, name, blocks):
    told, folder, codec = exported[name]
    assert [(b["first"], b["count"]) for b in told["tables"]] == blocks
    for block in told["tables"]:
        sizes = [np.prod(block[k]) for k in "yz"]
        found = unpacked((folder / block["file"]).read_bytes(), sum(sizes))
        for n in range(block["first"], block["first"] + block["count"], 9):
            want = [t.freq.ravel() for t in tables_at(codec.model, place(n))[3:]]
            assert [len(t) for t in want] == sizes and np.array_equal(found[n - block["first"]], np.concatenate(want))


def test_any_integers_survive_a_block():
    tables = list(np.random.default_rng(0).integers(0, 2 ** 24, (5, 7)))
    assert np.array_equal(unpacked(pack_tables(tables), 7), tables) and np.array_equal(unpacked(pack_tables(tables[:1]), 7), tables[:1])


def test_a_lean_codec_says_what_its_files_will_show(exported):
    """The encoder's own picture and bits, which go through other methods of the network than its files do."""
    codec, picture = exported["lean"][2], drawing(70, 90)
    assert codec.psnr_at(picture, 30) == pytest.approx(psnr(picture, codec.decode(codec.encode(picture, 30))), abs=0.01) and codec.estimate(picture, 30) > 0


# %% what is refused

def test_missing_packages_are_named(monkeypatch, tmp_path, cli):
    monkeypatch.setitem(sys.modules, "onnx", None)
    done = cli("export", CORPUS / "rnn.safetensors", tmp_path / "out")
    assert (done.returncode, done.stderr) == (1, 'stanhlic: error: onnx is not installed; pip install "stanhlic[onnx]"\n') and not (tmp_path / "out").exists()


def test_folders_that_hold_something_are_refused(tmp_path, cli):
    (tmp_path / "a").touch()
    for out, why in ((tmp_path, "holds files already"), (tmp_path / "a", "is a file")):
        done = cli("export", "stanh-compact", out)
        assert done.returncode == 1 and why in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_network_that_computes_something_else_is_refused(exported, monkeypatch, tmp_path):
    import stanhlic.export as module
    monkeypatch.setattr(module, "TOLERANCE", -1.0)
    with pytest.raises(StanhlicError, match="onnxruntime differs from torch by"): module.export(exported["rnn"][2], tmp_path / "out")
    assert not (tmp_path / "out/model.json").exists()


def test_foreign_networks_are_refused(exported):
    codec = exported["stanh"][2]
    from stanhlic.stanh.graphs import walk
    class Other(torch.nn.Module): pass
    own = codec.model.anchors
    try:
        codec.model.anchors = torch.nn.ModuleList([Other()])
        with pytest.raises(StanhlicError, match="networks of another package"): walk(codec, None, None, None)
    finally: codec.model.anchors = own
