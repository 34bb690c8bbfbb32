"""Weights from a stranger: a configuration is judged by its numbers before anything is built from it, and whatever is wrong is one line."""
import copy
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stanhlic.errors import StanhlicError
from stanhlic.modelfile import MAX_SIZE, Weights, check_sizes, fingerprint, find_model, inspect_weights, list_models, load_weights, model_path, read_json, restore, save_weights
from stanhlic.zoo import load_codec


@pytest.fixture(scope="module")
def three(models):
    """A small model of each system: {kind: (build, config, tensors)}."""
    from stanhlic.progressive.codec import ProgressiveCodec
    from stanhlic.progressive.model import model_config, random_model
    from stanhlic.progressive.lean import PROGRESSIVE_LEAN_SMOKE
    from stanhlic.progressive.networks import PROGRESSIVE_SMOKE
    from stanhlic.rnn.codec import RnnCodec
    from stanhlic.rnn.model import RnnHyper
    from stanhlic.rnn.networks import RNN_SMALL, RnnConfig
    from stanhlic.stanh.codec import StanhCodec
    from dataclasses import asdict, replace
    w = load_weights(models / "tiny.safetensors")
    rnn, progressive = RnnHyper(RnnConfig(layers=2, width=0.0625, latent=8, hyper=8)), random_model(replace(PROGRESSIVE_SMOKE, rems=(20.0,)))
    lean, layered = random_model(PROGRESSIVE_LEAN_SMOKE), RnnHyper(RNN_SMALL)
    found = {"stanh": (StanhCodec.build, w.header["config"], w.tensors), "rnn": (RnnCodec.build, asdict(rnn.config), rnn.state_dict()), "rnn lean": (RnnCodec.build, asdict(layered.config), layered.state_dict()),
             "progressive": (ProgressiveCodec.build, model_config(progressive), progressive.state_dict()), "progressive lean": (ProgressiveCodec.build, model_config(lean), lean.state_dict())}
    return {k: (build, json.loads(json.dumps(config)), tensors) for k, (build, config, tensors) in found.items()}


def numbers_in(value, way=()):
    """Paths of all numbers, lists and switches of a configuration."""
    if isinstance(value, dict): entries = value.items()
    elif isinstance(value, list): yield way; entries = enumerate(value)
    else: entries = ()
    if isinstance(value, (int, float)): yield way
    for key, entry in entries: yield from numbers_in(entry, (*way, key))


def changed(config, way, value):
    config = copy.deepcopy(config)
    place = config
    for key in way[:-1]: place = place[key]
    place[way[-1]] = value
    return config


def saved(path, kind, config, tensors):
    """A file whose checksums are right and whose claims are not; the package itself refuses to write some of these."""
    header = dict(format=1, system=kind, name="hostile", config=config, provenance={}, fingerprint=fingerprint(tensors, config).hex())
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, {"stanhlic": json.dumps(header)})
    return path


def refused(path):
    with pytest.raises(StanhlicError) as e: load_codec(path, "cpu")
    assert "\n" not in str(e.value) and len(str(e.value)) < 400
    return str(e.value)


HUGE = [-1, 10 ** 7, 10 ** 400, -2.5, None, "9", [], [8] * 200_000, {"a": 1}]


@pytest.mark.parametrize("kind", ["stanh", "rnn", "rnn lean", "progressive", "progressive lean"])
def test_every_number_of_a_configuration_is_bounded(three, kind, tmp_path):
    """Whatever one entry is replaced by, the model is the same, or is refused before anything of that size exists."""
    build, config, tensors = three[kind]
    loads = []
    for way in [w for w in numbers_in(config) if w[:1] != ("points",) or w[1:2] == (0,)]:
        for value in HUGE:
            try: model = restore(build, Weights(tensors, {"name": "hostile", "config": changed(config, way, value)}, bytes(8)))
            except StanhlicError as e: assert "do not fit" in str(e) and "\n" not in str(e) and len(str(e)) < 300; continue
            loads.append((way[-1], value))
            assert sum(p.numel() for p in model.parameters()) == sum(t.numel() for k, t in tensors.items() if k in dict(model.named_parameters()))
    harmless = {"lambda", "support", "forget_bias", "init_scale", "latent_gain", "rems", "rem_mean", "closed_loop", "interpolate_z", "outer", "outer_gate", "hyperprior", "mean_scale", 0, "anchor"}
    assert {k for k, _ in loads} <= harmless, loads


@pytest.mark.parametrize("kind, way, value", [
    ("progressive", ("level", "slices"), 10 ** 7), ("progressive", ("rems",), [i / 101 for i in range(1, 10_001)]), ("progressive", ("level", "context"), [16] * 200_000), ("stanh", ("anchors", 0, "width"), -64),
    ("stanh", ("anchors", 0, "context"), [16] * 200_000), ("stanh", ("anchors", 0, "latent"), -4_000_000), ("rnn", ("layers",), 10 ** 9), ("rnn", ("width",), 1e8)])
def test_what_used_to_hang_or_fill_memory(three, tmp_path, kind, way, value):
    _, config, tensors = three[kind]
    refused(saved(tmp_path / "m.safetensors", kind, changed(config, way, value), tensors))


@pytest.mark.parametrize("field", ["anchors", "points"])
def test_a_thousand_anchors_or_points(three, tmp_path, field):
    _, config, tensors = three["stanh"]
    refused(saved(tmp_path / "m.safetensors", "stanh", config | {field: config[field] * 1000}, tensors))
    refused(saved(tmp_path / "m.safetensors", "stanh", config | {field: []}, tensors))


def test_a_large_network_of_a_small_file_is_not_built(three, monkeypatch):
    """All sizes in bounds: building stops as soon as it asks for more than the file holds."""
    build, config, tensors = three["stanh"]
    made, real = [], torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: made.append(1) or real(*a, **k))
    big = changed(changed(config, ("anchors", 0, "width"), MAX_SIZE), ("anchors", 0, "latent"), MAX_SIZE)
    with pytest.raises(StanhlicError, match="asks for more than the file holds"): restore(build, Weights(tensors, {"name": "big", "config": big}, bytes(8)))
    assert len(made) < 20
    many = {f"x{i}": torch.zeros(0) for i in range(5000)} | tensors
    with pytest.raises(StanhlicError, match="do not fit"): restore(build, Weights(many, {"name": "big", "config": config}, bytes(8)))


def test_sizes():
    from stanhlic.backbone import Zou22Config
    check_sizes(Zou22Config())
    for wrong in ({"width": 8.0}, {"width": True}, {"context": [16]}, {"context": (16,) * 17}, {"outer_gate": 1}, {"heads": 0}, {"units": -1}, {"latent": MAX_SIZE + 1}):
        with pytest.raises(StanhlicError, match="cannot be"): Zou22Config(**wrong)
    assert Zou22Config(width=np.int64(192)) == Zou22Config()


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', '{"a": 1, "a": 2}', "[" * 100_000, '{"a":' * 100_000, "1" * 5000, "{", '"\ud800', "", "nul", b"\xff\xfe"])
def test_json_of_every_wrong_kind(text):
    with pytest.raises(ValueError): read_json(text)


@pytest.mark.parametrize("text", ['{"format": 1, "format": 1}', "NaN", '{"format": NaN}', "1" * 5000, '{"a":' * 5000, "[]", "null", '{"format": 1e999}'])
def test_a_header_of_every_wrong_kind(tmp_path, text):
    save_file({"x": torch.zeros(1)}, tmp_path / "m.safetensors", {"stanhlic": text})
    refused(tmp_path / "m.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(three, tmp_path, value):
    _, config, tensors = three["rnn"]
    name = "enc.out.weight"
    bad = tensors | {name: tensors[name].clone().index_fill_(0, torch.tensor([1]), value)}
    assert name in refused(saved(tmp_path / "m.safetensors", "rnn", config, bad))
    with pytest.raises(StanhlicError, match="not finite"): save_weights(tmp_path / "n.safetensors", bad, dict(system="rnn", name="n", config=config, provenance={}))
    with pytest.raises(StanhlicError, match="not finite"): save_weights(tmp_path / "n.safetensors", tensors, dict(system="rnn", name="n", config=config, provenance={"best": value}))
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_whole_numbers_are_part_of_the_form(three, tmp_path):
    """An index table that points outside would be an exception at the first picture."""
    _, config, tensors = three["stanh"]
    name = next(k for k in tensors if k.endswith("relative_position_index"))
    for bad in (tensors[name] + 10 ** 6, tensors[name].float()):
        assert name in refused(saved(tmp_path / "m.safetensors", "stanh", config, tensors | {name: bad}))


def test_loading_draws_no_random_numbers(models):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    load_codec("tiny", "cpu")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_does_not_share_memory_with_what_it_came_from(three):
    for build, config, tensors in three.values():
        model = restore(build, Weights(tensors, {"name": "m", "config": config}, bytes(8)))
        for p in model.parameters(): p.data.zero_()
        again = restore(build, Weights(tensors, {"name": "m", "config": config}, bytes(8)))
        assert all(torch.equal(v, tensors[k]) and v.requires_grad == dict(model.named_parameters())[k].requires_grad for k, v in again.named_parameters())


# %% the folders of STANHLIC_MODELS

@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_only_regular_files_and_no_bad_one_hides_another(models, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").mkdir()
    os.symlink("/dev/zero", tmp_path / "c.safetensors")
    os.symlink("nowhere", tmp_path / "d.safetensors")
    (tmp_path / "e.safetensors").write_bytes((16).to_bytes(8, "little") + b'{"a":' * 3 + b" ")
    deep = json.dumps({"__metadata__": {"stanhlic": "[" * 100_000}}).encode()
    (tmp_path / "f.safetensors").write_bytes(len(deep).to_bytes(8, "little") + deep)
    own = (models / "tiny.safetensors").read_bytes()
    wide = json.dumps(json.loads(own[8:8 + int.from_bytes(own[:8], "little")]) | {"x": {"dtype": "F32", "shape": [2 ** 31] * 100_000, "data_offsets": [0, 4]}}).encode()
    (tmp_path / "g.safetensors").write_bytes(len(wide).to_bytes(8, "little") + wide)
    monkeypatch.setenv("STANHLIC_MODELS", os.pathsep.join([str(tmp_path), str(models)]))
    assert [m["name"] for m in list_models()][-2:] == ["other", "tiny"]
    for name, words in (("a", "no regular file"), ("b", "a folder"), ("c", "no regular file"), ("d", "no such")):
        with pytest.raises(StanhlicError, match=words): inspect_weights(tmp_path / f"{name}.safetensors")


def test_other_weights_under_a_taken_name_are_listed_as_such(models, tmp_path, monkeypatch, cli):
    shipped = [m for m in list_models() if m["name"] == "rnn-compact"][0]
    w = load_weights(shipped["path"])
    header = {k: v for k, v in w.header.items() if k not in ("format", "fingerprint")}
    other = {"hdec.out.bias": w.tensors["hdec.out.bias"] + 0.01}
    old = save_weights(tmp_path / "old.safetensors", w.tensors | other, header)
    save_weights(tmp_path / "copy.safetensors", w.tensors, header)  # the same weights again are one model
    monkeypatch.setenv("STANHLIC_MODELS", str(tmp_path))
    name = f"rnn-compact@{old.fingerprint.hex()[:8]}"
    assert [(m["name"], m["fingerprint"]) for m in list_models() if m["name"].partition("@")[0] == "rnn-compact"] == [("rnn-compact", shipped["fingerprint"]), (name, old.fingerprint.hex())]
    assert find_model(old.fingerprint)["name"] == name and model_path(name) == tmp_path / "old.safetensors" and model_path("rnn-compact") != model_path(name)
    assert f"{name} " in cli("models").stdout and "other weights under the name rnn-compact" in cli("models").stdout


# %% what loading imports

@pytest.mark.parametrize("name", ["stanh-compact", "rnn-compact", "progressive-compact", "tiny"])
def test_no_compiler_is_imported(models, name):
    """torch._dynamo and sympy double the time to the first picture; nothing here needs them."""
    probe = f"""
import sys, numpy as np, stanhlic
codec = stanhlic.load({name!r}, "cpu")
codec.decode(codec.encode(np.zeros((64, 64, 3), np.uint8)))
print([m for m in ("torch._dynamo", "torch._inductor", "sympy") if m in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stdout + done.stderr
