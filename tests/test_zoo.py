"""Model files: what the fingerprint covers, hostile headers, names and folders."""
import json
import os

import pytest
import torch

from stanhlic.errors import StanhlicError
from stanhlic.modelfile import fingerprint, inspect_weights, load_weights, save_weights
from stanhlic.zoo import codec_for, find_model, list_models, load_codec, model_path
from stanhlic.container import Header

HEADER = {"system": "stanh", "name": "some", "config": {"a": [1, 2]}, "provenance": {"seed": 1}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool])
def test_any_type_comes_back(tmp_path, dtype):
    tensors = {"x": torch.arange(6).reshape(2, 3).to(dtype), "scalar": torch.tensor(1).to(dtype), "none": torch.zeros(0, 4, dtype=dtype)}
    saved = save_weights(tmp_path / "m.safetensors", tensors, HEADER)
    back = load_weights(tmp_path / "m.safetensors")
    assert back.fingerprint == saved.fingerprint and back.header == saved.header
    assert all(torch.equal(back.tensors[k], v) and back.tensors[k].dtype == dtype for k, v in tensors.items())


def test_parameters_and_views_and_shared_memory_can_be_saved(tmp_path):
    base = torch.arange(12.).reshape(3, 4)
    tensors = {"parameter": torch.nn.Parameter(base), "view": base.t(), "same": base, "last": base.to(memory_format=torch.contiguous_format)[:, 1:]}
    save_weights(tmp_path / "m.safetensors", tensors, HEADER)
    back = load_weights(tmp_path / "m.safetensors").tensors
    assert all(torch.equal(back[k], v.detach()) for k, v in tensors.items())


def test_the_fingerprint_is_a_promise():
    tensors = {"b": torch.tensor([1.5, -2.0]), "a": torch.tensor(3)}
    assert fingerprint(tensors, {"k": [1, "x"]}).hex() == "8f77d85e7e39e746"


def test_provenance_is_not_covered_and_config_is(tmp_path):
    path, tensors = tmp_path / "m.safetensors", {"x": torch.ones(3)}
    first = save_weights(path, tensors, HEADER).fingerprint
    assert save_weights(path, tensors, HEADER | {"provenance": {"seed": 2}, "description": "new words"}).fingerprint == first
    assert save_weights(path, tensors, HEADER | {"config": {"a": [1, 3]}}).fingerprint != first


def test_every_flipped_bit_is_found(tmp_path):
    path = tmp_path / "m.safetensors"
    save_weights(path, {"x": torch.arange(5.)}, HEADER)
    whole, missed = path.read_bytes(), []
    kept = load_weights(path)
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1:])
        try: found = load_weights(path)
        except StanhlicError as e: assert "\n" not in str(e); continue
        # what is not covered on purpose: words of the header that no file depends on
        if found.fingerprint != kept.fingerprint or found.header["config"] != kept.header["config"]: missed.append(i)
    assert missed == []


def foreign(head, tail=b""):
    head = head if isinstance(head, bytes) else json.dumps(head).encode()
    return len(head).to_bytes(8, "little") + head + tail


def ours(**changes):
    model = {"format": 1, "fingerprint": "00" * 8} | HEADER | changes
    return foreign({"__metadata__": {"stanhlic": json.dumps({k: v for k, v in model.items() if v is not None})}})


@pytest.mark.parametrize("data", [
    b"", b"\x00" * 7, b"\x00" * 8, (2**63).to_bytes(8, "little"), foreign(b"[]"), foreign(b"{"), foreign(b"[" * 5000 + b"]" * 5000), foreign(b"\xff\xfe"), foreign({}),
    foreign({"__metadata__": []}), foreign({"__metadata__": {"stanhlic": "{"}}), foreign({"__metadata__": {"stanhlic": "[]"}}),
    foreign({"__metadata__": {"stanhlic": "[" * 5000}}), ours(), ours(format=2), ours(format="1"), ours(system="os"), ours(system=["stanh"]),
    ours(name="../x"), ours(name=None), ours(config=None), ours(provenance=[]),
    foreign(json.loads(ours()[8:]) | {"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
    foreign(json.loads(ours()[8:]) | {"x": {"dtype": "F32", "shape": ["a"], "data_offsets": [0, 4]}}, b"abcd"), foreign(json.loads(ours()[8:]) | {"x": 1}),
], ids=range(25))
def test_hostile_files_are_one_line(tmp_path, data):
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(StanhlicError) as e: load_weights(path)
    assert "\n" not in str(e.value) and "m.safetensors" in str(e.value) and len(str(e.value)) < 400


def test_list_find_load(models):
    listed = [m["name"] for m in list_models()]
    assert listed[-2:] == ["other", "tiny"]
    for name in ("tiny", "other"):
        mark = bytes.fromhex(inspect_weights(models / f"{name}.safetensors")["fingerprint"])
        assert find_model(mark)["name"] == name and load_codec(name, "cpu").fingerprint == mark == codec_for(Header("stanh", mark, 8, 8), device="cpu").fingerprint
    assert model_path("tiny") == models / "tiny.safetensors"


def test_files_of_earlier_weights_still_find_their_model(models, tmp_path, monkeypatch):
    """Weights under a name that others have are listed under a longer one, and what they wrote is decoded with them."""
    weights = load_weights(models / "tiny.safetensors")
    changed = save_weights(tmp_path / "earlier.safetensors", {k: v * 1.01 if k.startswith("anchors.0.g_a") and v.is_floating_point() else v for k, v in weights.tensors.items()}, {k: v for k, v in weights.header.items() if k not in ("format", "fingerprint")})
    monkeypatch.setenv("STANHLIC_MODELS", os.pathsep.join([str(models), str(tmp_path)]))
    assert [m["fingerprint"] for m in list_models() if m["name"] == "tiny"] == [weights.fingerprint.hex()]
    assert codec_for(Header("stanh", changed.fingerprint, 8, 8), device="cpu").fingerprint == changed.fingerprint


def test_a_file_that_names_a_model_of_another_system(models):
    mark = load_weights(models / "tiny.safetensors").fingerprint
    with pytest.raises(StanhlicError, match="belongs to system stanh"): codec_for(Header("rnn", mark, 8, 8), device="cpu")


def test_a_damaged_file_in_a_model_folder_hides_nothing(models, tmp_path, monkeypatch):
    (tmp_path / "a.safetensors").write_bytes(b"no model")
    monkeypatch.setenv("STANHLIC_MODELS", os.pathsep.join(["", str(tmp_path), str(tmp_path / "missing"), str(models)]))
    assert {"tiny", "other"} <= {m["name"] for m in list_models()}


def test_looking_at_models_does_not_import_torch(models):
    import subprocess
    import sys
    probe = "import sys, stanhlic.zoo as z; z.list_models(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout.strip() == "False"
