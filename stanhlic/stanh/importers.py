"""Read the checkpoints that the authors of Zou et al. and of STanH released, and get a working codec."""
import re
import warnings
from pathlib import Path

from ..errors import StanhlicError
from ..modelfile import check_keys, read_checkpoint


_COMPUTED = re.compile(r"attn_mask|^gaussian_conditional\.|\.sos\.[wb]$"
                       r"|^entropy_bottleneck\.(_offset|_quantized_cdf|_cdf_length|target|likelihood_lower_bound\.bound)$")


_SPELLING = re.compile(r"^entropy_bottleneck\._?(matri|bias|factor)(?:ces|es|s)\.(\d)$")


def tidy_key(
    key: str,  # name in the authors' file
) -> str:      # our name, or None if the value is not needed
    """Our name for a tensor of a Zou22 or STanH checkpoint (STanH code, `train.py` 132-158)."""
    key = key.removeprefix("module.")
    level = re.match(r"entropy_bottleneck\.(\d+)\.", key)
    if level and level[1] != "0": return None
    if level: key = key.replace(level[0], "entropy_bottleneck.", 1)
    if _COMPUTED.search(key): return None
    return _SPELLING.sub(lambda m: f"entropy_bottleneck._{m[1].replace('matri', 'matrix')}{m[2]}", key)


def _tensors(checkpoint, path):
    """The tensors of a checkpoint by the authors' names."""
    import torch
    state = checkpoint.get("state_dict", checkpoint)
    if not isinstance(state, dict): raise StanhlicError(f"{path}: its state_dict is a {type(state).__name__}; give a checkpoint of a network")
    return {k: v.detach() for k, v in state.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}


def _tidy(state): return {name: v for k, v in state.items() if (name := tidy_key(k)) is not None}


def config_of(
    state: dict,       # tidy name -> tensor
    path="the file",   # for the refusal
):                     # Zou22Config
    """Sizes of a `zou22` network, read off the shapes of its tensors.

    Raises `StanhlicError` if these are not the tensors of such a network."""
    from stanhlic.backbone import Zou22Config
    numbers = lambda pattern: {int(m[1]) for k in state if (m := re.match(pattern, k))}
    try:
        *outer, width, latent = (len(state[f"g_a.{i}.weight"]) for i in (0, 2, 5, 7))
        slices = len(numbers(r"cc_mean_transforms\.(\d+)\."))
        layers = sorted(numbers(r"cc_mean_transforms\.0\.(\d+)\.weight"))
        size = latent // slices
        support = max((state[f"cc_mean_transforms.{i}.0.weight"].shape[1] - latent) // size for i in range(slices))
        return Zou22Config(
            width, latent, slices, support, tuple(len(state[f"cc_mean_transforms.0.{i}.weight"]) for i in layers[:-1]),
            heads=state["g_a.8.conv_b.0.attn.relative_position_bias_table"].shape[1], units=len(numbers(r"g_a\.8\.conv_a\.(\d+)\.")),
            outer=() if outer == [width, width] else tuple(outer), outer_gate=any(k.startswith("g_a.4.") for k in state))
    except (KeyError, IndexError, TypeError, ZeroDivisionError) as error:
        raise StanhlicError(f"{path}: not a zou22 network, its {len(state)} tensors lack {error}; give a cnn_*.pth.tar of STF or an anchor of STanH") from error


def _fill(net, state, path):
    """Copy `state` into `net`; any difference in names, shapes or constants is refused."""
    check_keys(net.state_dict(), state, path, "zou22", dict(net.named_buffers()))
    net.load_state_dict(state)
    return net.eval()


def import_zou22(
    path,  # cnn_*.pth.tar of the STF repository, or any checkpoint with its names
):         # Zou22 in evaluation mode
    """Fixed-rate network of Zou et al. (2022) from its authors' checkpoint; sizes are read off the file.

    Raises `StanhlicError` if keys are missing, unexpected or of another shape, and says which."""
    from stanhlic.backbone import Zou22
    state = _tensors(read_checkpoint(path), path)
    if any(".sos." in k for k in state): raise StanhlicError(f"{path}: an anchor of STanH, not a plain network; import it as stanh")
    state = _tidy(state)
    return _fill(Zou22(config_of(state, path)), state, path)


def _quantizer(part, name, path):
    """Free STanH from one entry of a rate point file."""
    from stanhlic.stanh.quantizer import STanH
    try: q = STanH(part["w"].detach(), part["b"].detach(), form="free")
    except StanhlicError as error: raise StanhlicError(f"{path}: {name}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise StanhlicError(f"{path}: no jumps w and thresholds b of {name}; give a file of the STanH release, such as D01-A040.pth.tar") from error
    if (q.jumps <= 0).any() or (q.levels.diff() <= 0).any():
        warnings.warn(f"{path}: {name} has {int((q.jumps <= 0).sum())} jumps that are not positive, so its levels do not rise and its rates mean nothing there", stacklevel=4)
    return q


def read_point(
    path,  # file of one rate, such as D01-A040.pth.tar
):         # RatePoint with free quantizers; λ is None, the file does not record it
    """One rate point of the STanH release: the anchor's own if the name begins with D10, else a derivation.

    Raises `StanhlicError` if the file is not one; warns if levels do not rise."""
    from stanhlic.stanh.model import RatePoint
    found = read_checkpoint(path)
    for key in ("gaussian_configuration", "factorized_configuration"):
        used = found[key].get("activation", "nonlinearstanh") if isinstance(found.get(key), dict) else "nonlinearstanh"
        if used != "nonlinearstanh": raise StanhlicError(f"{path}: quantizer {used!r} is from the authors' ablations; only 'nonlinearstanh' is STanH")
    state = found.get("state_dict", found)
    part = lambda name: state.get(name) if isinstance(state, dict) else None
    y, z = (_quantizer(part(name), name, path) for name in ("gaussian_conditional", "entropy_bottleneck"))
    return RatePoint(y, z, lmbda=None, kind="anchor" if Path(path).name.startswith("D10") else "derivation")


def _anchor_state(path):
    """Tidy tensors of a STanH anchor, single- or multi-level; the unused quantiles of the prior filled in."""
    import torch
    state = _tensors(read_checkpoint(path), path)
    if not any(".sos." in k for k in state): raise StanhlicError(f"{path}: not an anchor of STanH, it holds no quantizer; import a plain network as zou22")
    for k, v in state.items():
        first = re.sub(r"entropy_bottleneck\.\d+\._", "entropy_bottleneck.0._", k)
        if first != k and re.search(r"_(matrix|bias|factor)\d$", k) and not torch.equal(v, state.get(first, v)):
            warnings.warn(f"{path}: levels differ in their prior ({k}); level 0 is used for all", stacklevel=3)
            break
    state = _tidy(state)
    channels = len(state.get("entropy_bottleneck._bias0", ()))
    return {"entropy_bottleneck.quantiles": torch.tensor([-10., 0., 10.]).repeat(channels, 1, 1)} | state


def _files_of(place):
    """Rate point files of a folder by name, or the one file."""
    if Path(place).is_file(): return [Path(place)]
    if not Path(place).is_dir(): raise StanhlicError(f"{place}: not a folder; give the one with D01-A040.pth.tar and the like, or such files")
    files = sorted(p for p in Path(place).iterdir() if p.name.endswith((".pth.tar", ".pth", ".pt")) and not p.name.startswith("."))
    if not files: raise StanhlicError(f"{place}: no .pth.tar file in it; give the folder with D01-A040.pth.tar and the like")
    return files


def _points_in(places):
    """Rate points of files and folders, in order."""
    files = [p for place in places for p in _files_of(place)]
    points = [read_point(p) for p in files]
    for point, path in zip(points, files):
        sizes, first = [[q.num_levels for q in (p.y, p.z)] for p in (point, points[0])]
        if sizes != first: raise StanhlicError(f"{path}: {sizes} levels of y and z where {files[0].name} has {first}; keep one set in one folder")
    return points


def import_stanh(
    anchor_path,  # checkpoint of the anchor, e.g. anchor/0728_last_.pth.tar
    *points,      # folder of rate point files, or such files, lowest rate first
):                # StanhModel in evaluation mode, forms PUBLISHED
    """Variable-rate model from the STanH authors' release: one network, a rate point for each file; those of a folder in the order of their names.

    Raises `StanhlicError` if a file does not fit, and says how; warns if levels do not rise or priors differ between levels."""
    from stanhlic.backbone import Zou22
    from stanhlic.stanh.model import PUBLISHED, StanhModel
    points, state = _points_in(points), _anchor_state(anchor_path)
    return StanhModel([_fill(Zou22(config_of(state, anchor_path)), state, anchor_path)], points, PUBLISHED).eval()
