"""The authors' checkpoints: every variant is found from its keys, REMs are read, what does not fit is named."""
import argparse
from dataclasses import replace

import pytest
import torch

from stanhlic.errors import StanhlicError
from stanhlic.modelfile import inspect_weights
from stanhlic.progressive.codec import ProgressiveCodec
from stanhlic.progressive.importers import detect, import_progressive, release_keys
from stanhlic.progressive.model import ProgressiveModel, random_model
from stanhlic.progressive.networks import PROGRESSIVE, PROGRESSIVE_SMOKE

IMAGE = torch.rand(1, 3, 64, 128, generator=torch.Generator().manual_seed(0))
VARIANTS = [{}, {"encoders": 1}, {"hypers": 1}, {"decoders": 1}, {"rems": (7.5,)}, {"rems": (7.5, 20.0), "rem_depth": "big"}, {"rems": (7.5,), "rem_mean": False}]


def save(path, model, **args):
    """A file as the authors' training writes it."""
    state = {k.replace("entropy_bottleneck._matrix", "entropy_bottleneck.matrices."): v for k, v in model.state_dict().items()}
    tables = {"gaussian_conditional.scale_table": torch.ones(64), "entropy_bottleneck._quantized_cdf": torch.ones(16, 23)}
    torch.save({"epoch": 7, "state_dict": state | tables, "lr_scheduler": {"best": 1.5}, "args": argparse.Namespace(cuda=True, **args)}, path)
    return path


@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip(variant, tmp_path):
    source = random_model(replace(PROGRESSIVE_SMOKE, **variant))
    model = import_progressive(save(tmp_path / "a.pth.tar", source))
    assert replace(model.config, ranking="global") == source.config
    with torch.no_grad(): assert torch.equal(model(IMAGE, quality=30, ranking="slice")["x_hat"], source(IMAGE, quality=30, ranking="slice")["x_hat"])


def test_imported_model_writes_files(tmp_path):
    model = import_progressive(save(tmp_path / "a.pth.tar", random_model(replace(PROGRESSIVE_SMOKE, rems=(5.0,))), check_levels=[0.5]))
    codec, picture = ProgressiveCodec(model), IMAGE[0].permute(1, 2, 0).mul(255).byte().numpy()
    assert model.config.rems == (5.0,) and codec.decode(codec.encode(picture)).shape == picture.shape


@pytest.mark.parametrize("variant", VARIANTS)
def test_full_size_is_detected(variant):
    with torch.device("meta"): found = detect(ProgressiveModel(replace(PROGRESSIVE, **variant)).state_dict())
    assert replace(found, ranking="global") == replace(PROGRESSIVE, **variant)


def test_what_does_not_fit_is_named(tmp_path):
    model = random_model(PROGRESSIVE_SMOKE)
    state = model.state_dict(); state.pop("g_s.1.1.bias")
    torch.save({"state_dict": state}, tmp_path / "m.pth")
    with pytest.raises(StanhlicError, match="1 missing .g_s.1.1.bias"): import_progressive(tmp_path / "m.pth")
    torch.save({"state_dict": model.g_s.state_dict()}, tmp_path / "g.pth")
    with pytest.raises(StanhlicError, match="not the tensors of a progressive"): import_progressive(tmp_path / "g.pth")
    (tmp_path / "x.pth").write_bytes(b"")
    with pytest.raises(StanhlicError): import_progressive(tmp_path / "x.pth")
    with pytest.raises(StanhlicError, match="No such file"): import_progressive(tmp_path / "none.pth")


def test_no_code_is_run(tmp_path):
    class Evil:
        def __reduce__(self): return (exec, ("raise SystemExit('ran')",))
    torch.save({"state_dict": {"a": torch.ones(1)}, "args": Evil()}, tmp_path / "e.pth")
    with pytest.raises(StanhlicError, match="plain values"): import_progressive(tmp_path / "e.pth")


@pytest.mark.parametrize("prefix", ["", "module.", "base_net.", "module.base_net."])
def test_names_of_any_wrapping(prefix):
    assert release_keys({f"{prefix}g_a.7.bias": 1, f"{prefix}g_a_enh.7.bias": 2}) == {"g_a.0.7.bias": 1, "g_a.1.7.bias": 2}


def test_names_of_older_releases():
    old = {"module.g_s.0.1.weight": 1, "entropy_bottleneck.matrices.2": 2, "gaussian_conditional.scale_table": 3, "entropy_bottleneck._quantized_cdf": 4,
           "post_latent.0.3.enc_enh_entropy_params.0.conv1.bias": 5}
    assert release_keys(old) == {"g_s.0.1.weight": 1, "entropy_bottleneck._matrix2": 2, "post_latent.0.3.enc_progressive_entropy_params.0.conv1.bias": 5}


def test_other_networks_are_sent_to_their_own_importer(tmp_path):
    with pytest.raises(StanhlicError, match="imported as zou22"): detect({"h_a.0.weight": 0})
    with pytest.raises(StanhlicError, match="without --delta_encode"): import_progressive(save(tmp_path / "d.pth.tar", random_model(PROGRESSIVE_SMOKE), delta_encode=False))


def test_import_on_the_command_line(cli, photo, tmp_path):
    save(tmp_path / "a.pth.tar", random_model(replace(PROGRESSIVE_SMOKE, rems=(5.0,))))
    assert cli("import", "progressive", tmp_path / "a.pth.tar", tmp_path / "m.safetensors", "--rems", "5").returncode == 0
    held = inspect_weights(tmp_path / "m.safetensors")
    assert (held["name"], held["system"], held["config"]["rems"]) == ("progressive-zou22", "progressive", [5.0])
    assert cli("compress", photo, tmp_path / "a.slic", "--model", tmp_path / "m.safetensors").returncode == 0
