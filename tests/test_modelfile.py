"""Weights on disk: what a fingerprint is made of, what a name may be, what is refused and in which words."""
import pytest
import torch

from stanhlic.errors import StanhlicError
from stanhlic.modelfile import FORMAT, MAX_HEADER, Weights, check_name, fingerprint, halved, inspect_weights, load_weights, resolve_device, restore, save_weights, storage

CONFIG = {"width": 4}
HEADER = dict(system="rnn", name="toy", description="the mean color, nothing else", config=CONFIG, provenance={"trained": "not at all"})


def tensors(): return {"g_a.weight": torch.arange(12.0).reshape(3, 4), "scale": torch.tensor(2.0), "steps": torch.tensor([7])}


@pytest.fixture
def toy(tmp_path):
    path = tmp_path / "toy.safetensors"
    save_weights(path, tensors(), HEADER)
    return path


def test_a_fingerprint_knows_values_types_and_shapes_but_no_order_and_no_memory_layout():
    mine = fingerprint(tensors(), CONFIG)
    assert len(mine) == 8 and fingerprint(dict(reversed(tensors().items())), CONFIG) == mine
    turned = tensors()["g_a.weight"].t().contiguous().t()
    assert not turned.is_contiguous() and fingerprint(tensors() | {"g_a.weight": turned}, CONFIG) == mine
    for other in ({"scale": torch.tensor(2.5)}, {"steps": torch.tensor([7], dtype=torch.int32)}, {"g_a.weight": torch.arange(12.0).reshape(4, 3)}):
        assert fingerprint(tensors() | other, CONFIG) != mine
    assert fingerprint(tensors(), {"width": 5}) != mine


def test_what_is_saved_is_what_is_loaded_and_inspected(toy):
    saved = save_weights(toy, tensors(), HEADER)
    back, seen = load_weights(toy), inspect_weights(toy)
    assert back.fingerprint == saved.fingerprint == fingerprint(tensors(), CONFIG) and back.header == saved.header and back.header["format"] == FORMAT
    assert {k: v.tolist() for k, v in back.tensors.items()} == {k: v.tolist() for k, v in tensors().items()}
    assert (seen["name"], seen["system"], seen["parameters"], seen["bytes"], seen["fingerprint"]) == ("toy", "rnn", 13, toy.stat().st_size, saved.fingerprint.hex())


@pytest.mark.parametrize("name", ["own-photographs-2", "a", "x" * 64, "v1.2_b"])
def test_names(name): check_name(name)


@pytest.mark.parametrize("name", ["My Model", "", "-a", "x" * 65, "../a", None, 7])
def test_no_names(name):
    with pytest.raises(StanhlicError, match="a-z 0-9"): check_name(name)


@pytest.mark.parametrize("changes, words", [({"system": "jpeg"}, "'jpeg'"), ({"name": "My Model"}, "a-z 0-9")])
def test_what_could_not_be_loaded_is_not_saved(toy, changes, words):
    before = toy.read_bytes()
    with pytest.raises(StanhlicError, match=words): save_weights(toy, tensors(), HEADER | changes)
    assert toy.read_bytes() == before and [p.name for p in toy.parent.iterdir()] == [toy.name]


def test_half_precision_is_for_networks_not_for_quantizers():
    state = {"network": torch.ones(32, 32), "levels": torch.ones(20), "counts": torch.ones(2000, dtype=torch.int64)}
    assert [v.dtype for v in halved(state).values()] == [torch.float16, torch.float32, torch.int64]
    assert storage("fp16")(state)["network"].dtype == torch.float16 and storage()(state) == state
    with pytest.raises(StanhlicError, match="store=fp16"): storage("int8")


@pytest.mark.parametrize("change, words", [
    (lambda d: d[:-1] + bytes([d[-1] ^ 1]), "fingerprint"), (lambda d: d[:-1], "damaged"), (lambda d: b"\x89PNG" + bytes(100), "not a safetensors file"),
    (lambda d: d.replace(b'\\"format\\": 1', b'\\"format\\": 9'), "upgrade"), (lambda d: (MAX_HEADER + 1).to_bytes(8, "little") + bytes(100), "not a safetensors file"),
], ids=["flipped", "cut", "png", "future", "endless header"])
def test_refusals_say_what_is_wrong(toy, change, words):
    toy.write_bytes(change(toy.read_bytes()))
    with pytest.raises(StanhlicError, match=words): load_weights(toy)


def test_a_model_that_does_not_fit_its_configuration():
    odd = Weights({}, {"name": "odd", "config": {"width": 8}}, bytes(8))
    with pytest.raises(StanhlicError, match=r"odd: configuration and tensors do not fit \(KeyError\)"): restore(lambda config: config["depth"], odd)
    with pytest.raises(StanhlicError, match="first at bias"): restore(lambda config: torch.nn.Linear(config["width"], 1), odd)


def test_devices():
    assert resolve_device("cpu") == "cpu" == resolve_device(torch.device("cpu"))
    with pytest.raises(StanhlicError, match="unknown device"): resolve_device("tpu")
    with pytest.raises(StanhlicError, match="choose cpu"): resolve_device("cuda:99")


def test_no_name_gives_orders_to_a_terminal(tmp_path, monkeypatch, cli):
    said = str(StanhlicError("a\x1b[31mb\x9bc\u202ed\udc80é\n"))
    assert said == "a\\x1b[31mb\\x9bc\\u202ed\\udc80é\n"
    save_weights(tmp_path / "a.safetensors", tensors(), HEADER | {"description": "red \x1b[31m\r"})
    monkeypatch.setenv("STANHLIC_MODELS", str(tmp_path))
    for done in (cli("models"), cli("info", tmp_path / "\x1b]0;title\x07.slic"), cli("compress", tmp_path / "\x1b[2J.png", tmp_path / "b.slic")):
        assert "\\x1b" in done.stdout + done.stderr and not set("\x1b\x07\r") & set(done.stdout + done.stderr)
