"""The networks of a model as ONNX files, each checked against torch, and beside them what else a decoder needs."""
import importlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from .codec import Codec
from .errors import StanhlicError, needs
from .images import atomic_write
from .sync import exact

OPSET = 17         # of the ONNX files
TOLERANCE = 1e-5   # of onnxruntime's outputs against torch's, in units of the largest value or of one
TRACED, TRIED = (64, 128), (192, 128)  # pictures that the networks see when they are written, and when they are checked


class Case(NamedTuple):
    """A network with tensors that went through it."""
    network: torch.nn.Module
    inputs: dict   # name -> tensor
    outputs: dict


def record(
    codec: Codec,
    height: int,   # of a random picture, multiples of 64
    width: int,
) -> tuple:        # {name: [Case, ...]}; the plan, a list of {"run": name, "inputs": names, "outputs": names} and {"code": number}
    """Every network of a codec at work on a picture, in the order in which encoder and decoder run them."""
    cases, plan = {}, []
    def run(name, network, inputs, names):
        found = network(*inputs.values())
        found = found if isinstance(found, tuple) else (found,)
        cases.setdefault(name, []).append(Case(network, dict(inputs), dict(zip(names, found))))
        plan.append({"run": name, "inputs": list(inputs), "outputs": list(names)})
        return found
    def code(number, mean, scale, value):
        plan.append({"code": number})
        return value
    coarse = torch.rand(1, 3, height // 16, width // 16, generator=torch.Generator().manual_seed(0))
    with exact(): _graphs(codec).walk(codec, F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1), run, code)
    return cases, plan


def _graphs(codec): return importlib.import_module(f"stanhlic.{codec.kind}.graphs")


def _convert(case, path):
    "Write a network, of any height and width"
    maps = {n: {2: f"{n}_height", 3: f"{n}_width"} for n, t in (case.inputs | case.outputs).items() if t.ndim == 4}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(case.network, tuple(t.clone() for t in case.inputs.values()), path, dynamo=False, opset_version=OPSET,  # the tracer: a tenth of the time of its successor
                          input_names=list(case.inputs), output_names=list(case.outputs), dynamic_axes=maps)


def _halve(path):
    "Store in half precision what it holds exactly, as the weights that ship: the same numbers in half the bytes"
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    model, casts = onnx.load(path), []
    for t in model.graph.initializer:
        with np.errstate(over="ignore"): half = (full := numpy_helper.to_array(t)).astype(np.float16)
        if t.data_type != TensorProto.FLOAT or full.size < 64 or not np.array_equal(half, full): continue
        casts.append(helper.make_node("Cast", [f"{t.name}.half"], [t.name], to=TensorProto.FLOAT))
        t.CopyFrom(numpy_helper.from_array(half, f"{t.name}.half"))
    for k, node in enumerate(casts): model.graph.node.insert(k, node)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def difference(
    path: Path,   # ONNX file
    cases: list,  # of its network
) -> float:       # in units of the largest value or of one
    """Largest difference between onnxruntime's outputs and torch's."""
    import onnxruntime
    session, found = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]), []
    for case in cases:
        for got, want in zip(session.run(None, {n: t.numpy() for n, t in case.inputs.items()}), case.outputs.values()):
            found.append(float((torch.from_numpy(got) - want).abs().max() / want.abs().max().clamp(min=1)) if got.shape == want.shape else float("inf"))
    return max(found)


def export(
    codec: Codec,           # on the CPU, in fp32
    out: str | Path,        # folder, made if it is not there
    say: Callable = None,   # called with name, bytes and difference of each network
) -> Path:                  # model.json, which describes the other files
    """Write the networks of a codec, the order in which they run, and for stanh models what it takes to decode: levels, tables of integers.

    Raises `StanhlicError` if onnx or onnxruntime are missing, or if what onnxruntime computes is not what torch does."""
    with needs("onnx"): import onnx, onnxruntime  # noqa: E401, F401
    out, networks = Path(out), {}
    (cases, plan), (tried, _) = (record(codec, *sides) for sides in (TRACED, TRIED))
    out.mkdir(parents=True, exist_ok=True)
    for name, found in cases.items():
        path = out / f"{name}.onnx"
        with exact(): _convert(found[0], path)
        _halve(path)
        if not (far := difference(path, found + tried[name])) <= TOLERANCE: raise StanhlicError(f"{path}: onnxruntime differs from torch by {far:.1g}, more than {TOLERANCE:g}; try another version of onnxruntime")
        networks[name] = {"bytes": path.stat().st_size, "difference": far}
        if say: say(name, *networks[name].values())
    told = {"name": codec.name, "system": codec.kind, "fingerprint": codec.fingerprint.hex(), "opset": OPSET, "networks": networks, "plan": plan}
    with exact(): told |= _graphs(codec).beside(codec, lambda name, data: atomic_write(out / name, data, True))
    atomic_write(out / "model.json", json.dumps(told).encode(), True)
    return out / "model.json"
