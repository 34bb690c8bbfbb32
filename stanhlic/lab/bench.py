"""Where the time goes: transforms and entropy coding separately, each beside what it replaces, all within one run."""

import contextlib
import functools
import importlib.metadata
import importlib.util
import json as _json
import os
import statistics
import sys
import tempfile
import time
from functools import cached_property
from pathlib import Path
import numpy as np
from tqdm import tqdm
from ..errors import StanhlicError
from .startup import output

def record(
    value: float,
    unit: str,    # "s", "MB", "x", "bytes" or "pictures/s"
    **more,       # low, high, n, or a note
) -> dict:
    """One measured number, ready for JSON."""
    return {"value": float(f"{value:.4g}"), "unit": unit, **more}

def spread(
    seconds: list,  # of the timed runs
) -> dict:
    """Record of their median, with the fastest and the slowest."""
    return record(statistics.median(seconds), "s", low=round(min(seconds), 5), high=round(max(seconds), 5), n=len(seconds))

def in_turn(
    calls: dict,        # name -> function without arguments
    repeats: int = 5,   # timed runs of each, after one that is not timed
) -> dict:              # name -> record in seconds
    """Time functions against each other, one run of each in turn."""
    for call in calls.values(): call()
    seconds = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {k: spread(s) for k, s in seconds.items()}

def ratio(
    slow: dict,  # record
    fast: dict,  # record
) -> dict:       # how many times the first costs the second
    """Ratio of two medians of one run."""
    return record(slow["value"] / max(fast["value"], 1e-12), "x")

def ratio_spread(
    slow: dict,  # record with low and high
    fast: dict,  # likewise
) -> list:       # lowest, of the medians, highest; empty if a time has no spread
    """What the ratio of two times can be within the runs that were made."""
    if not {"low", "high"} <= slow.keys() & fast.keys(): return []
    return [slow["low"] / fast["high"], slow["value"] / fast["value"], slow["high"] / fast["low"]]

@contextlib.contextmanager
def watch(
    *methods,  # (class, name of a method)
):             # list of one number, the seconds so far
    """Add up the seconds spent inside methods."""
    spent, depth, saved = [0.0], [0], [(c, name, getattr(c, name)) for c, name in methods]
    def watched(method):
        def call(*args, **kwargs):
            depth[0] += 1; start = time.perf_counter()
            try: return method(*args, **kwargs)
            finally:
                depth[0] -= 1
                if not depth[0]: spent[0] += time.perf_counter() - start
        return call
    for c, name, method in saved: setattr(c, name, watched(method))
    try: yield spent
    finally:
        for c, name, method in saved: setattr(c, name, method)

def in_steps(
    begin,              # function that makes what the steps work on
    steps: dict,        # name -> function of it, in order
    repeats: int = 5,   # timed runs through all steps, after one that is not timed
    parts: dict = None, # name -> methods to watch within each step
) -> dict:              # step, and "step: part" -> record in seconds
    """Time the steps of a job that continues where it stopped."""
    seconds = {}
    for run in range(repeats + 1):
        job = begin()
        for name, step in steps.items():
            with contextlib.ExitStack() as stack:
                watches = {f"{name}: {part}": stack.enter_context(watch(*methods)) for part, methods in (parts or {}).items()}
                start = time.perf_counter()
                step(job)
                taken = {name: time.perf_counter() - start} | {k: w[0] for k, w in watches.items()}
            for k, v in (taken if run else {}).items(): seconds.setdefault(k, []).append(v)
    return {k: spread(v) for k, v in seconds.items()}

HEIGHT, WIDTH = 512, 768
SHIPPED = {"stanh": "stanh-compact", "rnn": "rnn-compact", "progressive": "progressive-compact"}

def bench_picture() -> tuple[np.ndarray, str]:  # uint8 (512, 768, 3), what it is
    """Kodak's kodim23 if available, else the sample photograph turned and resized."""
    from PIL import Image
    from stanhlic.datasets import find_dataset, has_dataset, sample_photograph
    from stanhlic.images import read_image
    if has_dataset("kodak"):
        path = next(p for p in find_dataset("kodak") if p.stem == "kodim23")
        return read_image(path), "Kodak kodim23"
    turned = Image.fromarray(np.rot90(sample_photograph()).copy())
    return np.array(turned.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)), "matplotlib's sample photograph, resized; Kodak is not available"

def _random_stanh(size, device):
    from stanhlic.backbone import ZOU22, ZOU22_COMPACT, Zou22
    from stanhlic.stanh.codec import StanhCodec
    from stanhlic.stanh.model import StanhModel, rounding_point
    return StanhCodec(StanhModel([Zou22({"compact": ZOU22_COMPACT, "full": ZOU22}[size])], [rounding_point() for _ in range(3)]), f"random {size}", device=device)

def _random_rnn(size, device):
    from dataclasses import replace
    from stanhlic.rnn.codec import RnnCodec
    from stanhlic.rnn.model import RnnHyper
    from stanhlic.rnn.networks import RNN, RNN_COMPACT
    return RnnCodec(RnnHyper(replace({"compact": RNN_COMPACT, "full": RNN}[size], latent_gain=300.0)), f"random rnn {size}", device=device)

def _random_progressive(size, device):
    from stanhlic.progressive.codec import ProgressiveCodec
    from stanhlic.progressive.model import SIZES, random_model
    return ProgressiveCodec(random_model(SIZES[size]), f"random progressive {size}", device=device)

def random_codec(
    size: str = "compact",   # "compact" or "full"
    system: str = "stanh",   # stanh (three rate points), rnn (four layers) or progressive (no REMs)
    device: str = "cpu",
):                           # its codec
    """A codec with seeded random weights."""
    import torch
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {"stanh": _random_stanh, "rnn": _random_rnn, "progressive": _random_progressive}[system](size, device)

def bench_codec(
    size: str,              # "compact" or "full"
    system: str = "stanh",  # stanh, rnn or progressive
    device: str = "cpu",
) -> tuple:                 # codec, what it is
    """The codec of a size and one line on its weights."""
    from stanhlic.zoo import list_models, load_codec
    shipped = SHIPPED[system]
    if size == "compact" and shipped in [m["name"] for m in list_models()]: return load_codec(shipped, device), shipped
    return random_codec(size, system, device), "random weights, " + ("full size" if size == "full" else f"compact size ({shipped} is not in this installation)")

class Setting:
    """What measurements are given: picture, models, runs, threads."""

    def __init__(self,
        picture: np.ndarray,  # uint8 (H, W, 3)
        repeats: int = 5,     # timed runs
        threads: int = 2,     # of torch
        device: str = "cpu",  # cpu, cuda or cuda:N
    ): self.picture, self.repeats, self.threads, self.device = picture, repeats, threads, device

    def wait(self):
        """Wait for the device, so that a clock read next includes its work."""
        import torch
        if self.device != "cpu": torch.cuda.synchronize(self.device)

    @cached_property
    def _codecs(self): return {}

    def codec(self, size: str, system: str = "stanh"):
        """The codec of a size."""
        return self._get(size, system)[0]

    def _get(self, size, system="stanh"):
        key = size if system == "stanh" else f"{system} {size}"
        if key not in self._codecs: self._codecs[key] = bench_codec(size, system, self.device)
        return self._codecs[key]

    def models(self) -> dict:
        """What is known about the models used so far."""
        count = lambda codec: sum(p.numel() for p in codec.model.parameters())
        return {key: {"weights": what, "fingerprint": codec.fingerprint.hex(), "parameters": count(codec)} for key, (codec, what) in self._codecs.items()}

MEASUREMENTS = {}

class LeftOut(Exception):
    """A measurement that this machine cannot make; the text says why."""

def measurement(function):
    """Add a function `(Setting) -> {item: record}` to `MEASUREMENTS` under its own name."""
    MEASUREMENTS[function.__name__] = function
    return function

def codec_stages(s: Setting, size: str, quality: float = 50.0) -> dict:
    """Encode and decode of a codec, and their stages, in seconds."""
    from stanhlic.images import to_array
    from stanhlic.sync import exact
    from stanhlic.stanh.model import position_of
    codec = s.codec(size)
    data, net = codec.encode(s.picture, quality), codec.model.quantizers(position_of(quality, codec.points))[0]
    def analyze():
        with exact(): done = codec.analyze(s.picture); done.latents(net)
        s.wait()
        return done
    ready = analyze()
    y = ready.latents(net)[0]  # of the shape and layout that synthesis is given
    def synthesize():
        with exact(): to_array(net.g_s(y))
    times = in_turn({"encode": lambda: codec.encode(s.picture, quality), "analysis": analyze, "latents written": lambda: codec.encode(ready, quality),
                     "decode": lambda: codec.decode(data), "synthesis": synthesize}, s.repeats)
    rest = times["decode"]["value"] - times["synthesis"]["value"]
    return times | {"latents read": record(rest, "s", note="decode less synthesis"), "file": record(len(data), "bytes")}

@measurement
def compact(s): return codec_stages(s, "compact")

@measurement
def full(s): return codec_stages(s, "full")

def _variants(network, x, wait):
    "The network in fp32 as it comes, in channels-last, and in bf16, as functions without arguments"
    import copy, torch
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    last, moved = network, x.contiguous(memory_format=torch.channels_last)
    def half():
        with torch.autocast(x.device.type, torch.bfloat16): last(moved)
        wait()
    return {"fp32": lambda: (plain(x), wait()), "fp32 channels-last": lambda: (last(moved), wait()), "bf16 channels-last": half}

def transform_times(s: Setting, size: str, repeats: int) -> dict:
    """Analysis and synthesis of a size in three forms, and ratios to the first."""
    import torch
    from stanhlic.images import pad, to_tensor
    net, x, out = s.codec(size).model.anchors[0], pad(to_tensor(s.picture)).to(s.device), {}
    with torch.inference_mode():
        for name, network, value in (("analysis", net.g_a, x), ("synthesis", net.g_s, net.g_a(x).contiguous())):
            times = in_turn(_variants(network, value, s.wait), repeats)
            out |= {f"{name} {k}": v for k, v in times.items()}
            out |= {f"{name} fp32 / {k}": ratio(times["fp32"], v) for k, v in times.items() if k != "fp32"}
    return out

@measurement
def transforms_compact(s): return transform_times(s, "compact", s.repeats)

@measurement
def transforms_full(s): return transform_times(s, "full", min(s.repeats, 3))

def latent_sample(
    count: int = 491_520,  # elements
    seed: int = 0,
) -> tuple:                # σ float32 [N], residuals float32 [N], quantizer
    """A latent with realistic statistics."""
    import torch
    from stanhlic.stanh.model import rounding_point
    rng = torch.Generator().manual_seed(seed)
    low, high = np.log(0.11), np.log(8.0)
    sigma = torch.exp(low + (high - low) * torch.rand(count, generator=rng))
    return sigma, sigma * torch.randn(count, generator=rng), rounding_point().y.staircase().detach()

def coder_input(count: int = 491_520) -> tuple:  # symbols int32 [N], table rows uint8 [N], pmf [64, 121]
    """Symbols, the table of each, and the probabilities behind the tables."""
    from stanhlic.priors import scale_indexes, scale_table
    from stanhlic.stanh.rate import gaussian_pmf
    sigma, v, q = latent_sample(count)
    return q.index(v).numpy(), scale_indexes(sigma).numpy(), gaussian_pmf(q, scale_table(), closed=True)

def our_coder(symbols, rows, pmf) -> dict:
    """Functions `write`, `read`, and `chain`, which goes from float residuals to bytes as the codec does; the bytes."""
    from stanhlic.entropy import SymbolDecoder, SymbolEncoder, Tables, state_crc
    from stanhlic.priors import scale_indexes
    from stanhlic.stanh.rate import coding_tables, to_symbols
    tables, (sigma, v, q) = Tables(coding_tables(pmf)), latent_sample(len(symbols))
    write = lambda: SymbolEncoder().encode(symbols, rows, tables).bytes()
    def chain():
        index = scale_indexes(sigma).numpy()
        return SymbolEncoder().encode(to_symbols(q.index(v, extend=True).numpy(), q.num_levels)[0], index, tables).bytes(), state_crc(index)
    data = write()
    return {"write": write, "read": lambda: SymbolDecoder(data).decode(rows, tables), "chain": chain, "data": data}

def compressai_coder(symbols, rows, pmf) -> dict:
    """The same for CompressAI's rANS with table indexes; `lists` makes its arguments. Raises `LeftOut` if it is not installed."""
    from stanhlic.stanh.plugin import import_compressai
    try: import_compressai()
    except StanhlicError as e: raise LeftOut(str(e)) from None
    from compressai import ans
    from compressai._CXX import pmf_to_quantized_cdf
    escape = (1 - pmf.sum(1, keepdim=True)).clip(0)
    cdfs = [pmf_to_quantized_cdf(row, 16) for row in np.concatenate([pmf, escape], 1).tolist()]
    rest = cdfs, [len(c) for c in cdfs], [0] * len(cdfs)
    k, index = symbols.tolist(), rows.tolist()
    write = lambda: ans.RansEncoder().encode_with_indexes(k, index, *rest)
    data = write()
    return {"write": write, "read": lambda: ans.RansDecoder().decode_with_indexes(data, index, *rest),
            "lists": lambda: (symbols.tolist(), rows.tolist()), "data": data}

@contextlib.contextmanager
def _no_chatter():
    "Keep a compiler's chatter out of the JSON: what this process and its children print on standard output is dropped"
    sys.stdout.flush()
    saved, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try: yield
    finally:
        os.dup2(saved, 1)
        for f in (saved, nowhere): os.close(f)

def torchac_coder(symbols, rows, pmf) -> dict:
    """The same for torchac with a distribution function for every symbol. Raises `LeftOut` if it is missing or does not compile."""
    import torch
    if importlib.util.find_spec("torchac") is None: raise LeftOut("torchac is not installed; pip install torchac ninja")
    try:
        with _no_chatter(): import torchac
    except Exception as e: raise LeftOut(f"torchac does not compile here ({type(e).__name__}); it needs ninja and a C++ compiler") from None
    from stanhlic.stanh.rate import coding_tables
    cdf = np.pad(coding_tables(pmf)[:, :-1].cumsum(1), ((0, 0), (1, 0)))
    span = 2**16 - cdf.shape[1]
    table = torch.from_numpy((cdf * span // 2**24 + np.arange(cdf.shape[1])).astype(np.uint16).view(np.int16))
    table = torch.cat([table, torch.zeros(len(table), 1, dtype=torch.int16)], 1)  # torchac reads the last entry as 2**16
    floats, k, index = torch.from_numpy(cdf / 2**24).float(), torch.from_numpy(symbols).short(), torch.from_numpy(rows).long()
    floats = torch.cat([floats, torch.ones(len(floats), 1)], 1)
    write = lambda: torchac.encode_int16_normalized_cdf(table[index], k)
    data, loose = write(), torchac.encode_float_cdf(floats[index], k)
    return {"write": write, "read": lambda: torchac.decode_int16_normalized_cdf(table[index], data).numpy(),
            "write, float": lambda: torchac.encode_float_cdf(floats[index], k), "read, float": lambda: torchac.decode_float_cdf(floats[index], loose),
            "data": data, "bytes": table.shape[1] * 2 * len(symbols)}

def entropy_times(s: Setting, count: int) -> dict:
    """Our coder beside the other two, on `count` symbols."""
    problem = coder_input(count)
    coders, out = {"ours": our_coder(*problem)}, {}
    for name, build in (("compressai", compressai_coder), ("torchac", torchac_coder)):
        try: coders[name] = build(*problem)
        except LeftOut as e: out[name] = {"left out": str(e)}
    for name, c in coders.items():
        if not np.array_equal(c["read"](), problem[0]): raise StanhlicError(f"{name} did not return the symbols it was given")
        out[f"{name} stream"] = record(len(c["data"]), "bytes")
    jobs = {f"{name} {job}": c[job] for name, c in coders.items() for job in ("write", "read", "chain", "lists", "write, float", "read, float") if job in c}
    times = in_turn(jobs, s.repeats)
    for item in times:
        name, job = item.split(" ", 1)
        if name != "ours" and job != "lists": out[f"{name} / ours {job}"] = ratio(times[item], times[f"ours {job.split(',')[0]}"])
    if "torchac" in coders: out["torchac tensor"] = record(coders["torchac"]["bytes"] / 1e6, "MB")
    return times | out

@measurement
def entropy(s): return entropy_times(s, 491_520)

def naive_soft_bits(v, sigma, quantizer, beta):
    """Expected bits with the membership of **all** cells, O(N·L): what `bits_soft` approximates by three."""
    import torch
    from stanhlic.priors import gaussian_mass
    from stanhlic.stanh.rate import cell_edges
    edges = cell_edges(quantizer).clamp(-1e9, 1e9)
    p = gaussian_mass(edges[:-1].expand(len(v), -1), edges[1:].expand(len(v), -1), sigma[:, None])
    s = torch.sigmoid(2 * beta * (v[:, None] - edges))
    return ((s[:, :-1] - s[:, 1:]) * -torch.log2(p.clamp(min=1e-9))).sum(1)

def quantizer_times(s: Setting, count: int) -> dict:
    """Soft value, straight-through value, soft bits and hard index, ours and naive, in seconds."""
    from stanhlic.stanh.quantizer import stanh_sum
    from stanhlic.stanh.rate import bits_soft
    from stanhlic.stanh.model import rounding_point
    (sigma, v, _), point = latent_sample(count), rounding_point().y
    v.requires_grad_(True), sigma.requires_grad_(True)
    def learn(value): return lambda: value(point.staircase()).sum().backward()
    hard = lambda q: (v.detach()[:, None] > q.thresholds).sum(1)
    times = in_turn({"soft": learn(lambda q: q.soft(v, 10.)), "soft naive": learn(lambda q: stanh_sum(v, q.jumps, q.thresholds, 10.)),
                     "straight-through": learn(lambda q: q.ste(v, 10.)),
                     "soft bits": learn(lambda q: bits_soft(v, sigma, q, 10.)), "soft bits naive": learn(lambda q: naive_soft_bits(v, sigma, q, 10.)),
                     "index": lambda: point.index(v), "index naive": lambda: hard(point.staircase())}, s.repeats)
    return times | {f"{k} naive / ours": ratio(times[f"{k} naive"], times[k]) for k in ("soft", "soft bits", "index")}

@measurement
def quantizer(s): return quantizer_times(s, 8 * 96 * 8 * 8)

def peak_memory() -> float:  # MB
    """Largest resident size of this process so far."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"): return int(line.split()[1]) / 1e3
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)

def memory_job(size: str, job: str, source: str, threads: int, system: str = "stanh"):
    """What the measuring process runs: load the codec, do one job on the file `source`, print the peak."""
    import torch
    torch.set_num_threads(threads)
    if job != "start":
        codec, content = bench_codec(size, system)[0], Path(source).read_bytes()
        if job == "encode": codec.encode(np.frombuffer(content, np.uint8).reshape(HEIGHT, WIDTH, 3))
        else: codec.decode(content)
    print(peak_memory())

def fresh(code: str, timeout: float = 300) -> str:
    """Standard output of Python code in a new process. Raises `LeftOut` with the last line of its errors if it fails."""
    try: return output(code, timeout=timeout)
    except StanhlicError as e: raise LeftOut(str(e)) from None

def memory_peaks(
    s: Setting,
    size: str,        # "compact" or "full"
    system: str,      # stanh, rnn or progressive
    coded: bytes,     # file of the picture by that codec
) -> dict:
    """Peak memory of encoding and decoding, in processes of their own, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        sources = {"encode": Path(folder, "raw"), "decode": Path(folder, "coded")}
        sources["encode"].write_bytes(s.picture.tobytes()); sources["decode"].write_bytes(coded)
        job = lambda *a: float(fresh(f"from stanhlic.lab.bench import memory_job; memory_job(*{a!r})"))
        return {f"peak of {name}": record(job(size, name, str(path), s.threads, system), "MB") for name, path in sources.items()}

def _on_cpu(s):
    if s.device != "cpu": raise LeftOut("peak memory is that of a process on the CPU")

@measurement
def memory(s):
    """Peak memory of encoding and decoding with each size, in processes of their own."""
    _on_cpu(s)
    out = {"imports alone": record(float(fresh(f"from stanhlic.lab.bench import memory_job; memory_job('compact', 'start', '', {s.threads})")), "MB")}
    for size in ("compact", "full"):
        peaks = memory_peaks(s, size, "stanh", s.codec(size).encode(s.picture))
        out |= {f"{size} {name.removeprefix('peak of ')}": r for name, r in peaks.items()}
    return out

def layered_times(s: Setting, size: str, repeats: int) -> dict:
    """Seconds of each layer of the `rnn` codec, both ways, and the bytes of its file up to each."""
    codec = s.codec(size, "rnn")
    data, layers = codec.encode(s.picture), range(1, codec.layers + 1)
    out = in_steps(lambda: codec.analyze(s.picture), {f"encode layer {k}": lambda a, k=k: (a.layer(k), s.wait()) for k in layers}, repeats)
    out |= in_steps(lambda: codec.decoder().feed(data), {f"decode layer {k}": lambda d, k=k: d.image(k) for k in layers}, repeats)
    return out | {f"file up to layer {k}": record(n, "bytes") for k, n in zip(layers, codec.cuts(data))} | {"data": data}

def _with_memory(s, size, system, out):
    "Its peaks in place of its data"
    times = {k: v for k, v in out.items() if k != "data"}
    return times | memory_peaks(s, size, system, out["data"]) if s.device == "cpu" else times

@measurement
def rnn_compact(s): return _with_memory(s, "compact", "rnn", layered_times(s, "compact", s.repeats))

@measurement
def rnn_full(s): return _with_memory(s, "full", "rnn", layered_times(s, "full", 1))

PORTIONS = 4  # of the residual

def progressive_times(s: Setting, size: str, repeats: int) -> dict:
    """Seconds of the `progressive` codec to encode, to the first picture and per further step, with the parts of each."""
    import torch
    from stanhlic.entropy import PrefixDecoder, SymbolDecoder
    codec = s.codec(size, "progressive")
    a = codec.analyze(s.picture)
    data = a.file(a.elements, crossover=0)
    ends = [0, *np.linspace(codec.cuts(data)[0], len(data), PORTIONS + 1).astype(int)]
    steps = {f"step {i}" if i else "first picture": lambda d, i=i: d.feed(data[ends[i]:ends[i + 1]]).image() for i in range(PORTIONS + 1)}
    parts = {"networks": [(torch.nn.Module, "__call__")], "entropy": [(SymbolDecoder, "decode"), (PrefixDecoder, "decode")]}
    out = in_turn({"analysis": lambda: (codec.analyze(s.picture), s.wait()), "file written": lambda: a.file(a.elements, crossover=0)}, repeats)
    out |= in_steps(codec.decoder, steps, repeats, parts)
    return out | {f"entropy / {name}": ratio(out[f"{name}: entropy"], out[name]) for name in steps} | {"base": record(ends[1], "bytes"), "file": record(len(data), "bytes"), "data": data}

@measurement
def progressive_compact(s): return _with_memory(s, "compact", "progressive", progressive_times(s, "compact", s.repeats))

@measurement
def progressive_full(s): return _with_memory(s, "full", "progressive", progressive_times(s, "full", min(s.repeats, 2)))

PUBLISHED = {"rnn parameters": 62_339_939, "rnn encoder, a layer": 1131.7, "rnn decoder, a layer": 649.8,
             "progressive parameters": 149_997_766, "progressive encoder": 730.9, "progressive first picture": 355.8, "progressive further step": 226.0}

def multiply_adds(
    call,         # function without arguments
    pixels: int,  # of the picture it works on
) -> float:       # thousands a pixel
    """Multiply-adds of the convolutions, linear layers and matrix products that a call runs."""
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counter: call()
    return counter.get_total_flops() / 2000 / pixels

def count_networks(s: Setting, size: str) -> dict:
    """Parameters, and thousands of multiply-adds a pixel, of the `rnn` and `progressive` codecs; published figures beside those of full size."""
    picture, rnn, progressive = s.picture[:128, :128], s.codec(size, "rnn"), s.codec(size, "progressive")
    for codec in (rnn, progressive): codec.model.requires_grad_(False)  # the counter follows gradients, and would look for them here
    work = lambda call: float(f"{multiply_adds(call, picture.shape[0] * picture.shape[1]):.5g}")
    count = lambda codec: sum(p.numel() for p in codec.model.parameters())
    layers, first = rnn.analyze(picture), rnn.decoder().feed(rnn.encode(picture, layers=3))
    layers.layer(2), first.image(2)
    out = {"rnn parameters": count(rnn), "rnn encoder, a layer": work(lambda: layers.layer(3)), "rnn decoder, a layer": work(lambda: first.image(3))}
    a = progressive.analyze(picture)
    data = a.file(a.elements, crossover=0)
    base, d = progressive.cuts(data)[0], progressive.decoder()
    out |= {"progressive parameters": count(progressive), "progressive encoder": work(lambda: progressive.analyze(picture)),
            "progressive first picture": work(lambda: d.feed(data[:base]).image()), "progressive further step": work(lambda: d.feed(data[base:]).image())}
    beside = PUBLISHED if size == "full" else {}
    return {k: {"value": v, "unit": "parameters" if "parameters" in k else "kMAC/px"} | ({"published": beside[k]} if k in beside else {}) for k, v in out.items()}

@measurement
def counts(s): return count_networks(s, "full")

@measurement
def startup(s):
    """Cold starts of the command line: processor seconds, and multiples of `import torch`."""
    from .startup import measure
    rows = measure(min(s.repeats, 3))
    return {r["command"]: record(r["seconds"], "s") for r in rows} | {f"{r['command']} / import torch": record(r["multiple"], "x") for r in rows}

@measurement
def sizes(s):
    """Pictures of 1, 4, 12 and 24 megapixels with the stanh model that ships: processor seconds for a megapixel, and memory beside the model."""
    from .sizes import measure
    _on_cpu(s)
    rows = measure(SHIPPED["stanh"], 50, (1, 4, 12, 24))
    return {f"{r['megapixels']} MP {r['job']}: {what}": record(r[key], unit) for r in rows if "refused" not in r for key, what, unit in (("per_megapixel", "a megapixel", "s"), ("memory", "memory", "MB"))}

def _timed(job):
    "Encode a picture in a process of several: its number, begin and end"
    from stanhlic.images import read_image
    codec, picture = _held_codec(), read_image(job.source)
    start = time.monotonic()
    codec.encode(picture)
    return os.getpid(), start, time.monotonic()

@functools.cache
def _held_codec(): return bench_codec("compact", "stanh", "cpu")[0]

def pace(
    spans: list,  # (process, begin, end) of each job, in the order of the jobs
) -> float:       # jobs a second
    """How fast processes work once each has done its first job."""
    first = {}
    rest = [(begin, end) for process, begin, end in spans if first.setdefault(process, begin) != begin]
    return len(rest) / (max(end for _, end in rest) - min(begin for begin, _ in rest))

@measurement
def many(s):
    """Pictures a second, in one process and in two, one thread each; after the first picture of each."""
    from stanhlic.files import Job, _at_once
    from stanhlic.images import write_image
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "picture.png"))
        write_image(path, s.picture)
        return {f"{n} process{'es' * (n > 1)}": record(pace([span for _, span in _at_once([Job(path, "", False)] * n * (s.repeats + 2), _timed, n, 1)]), "pictures/s") for n in (1, 2)}

TARGETS = [  # measurement, item, "<" or ">", limit
    ("compact", "encode", "<", 0.6), ("compact", "decode", "<", 0.6), ("full", "encode", "<", 3.0), ("full", "decode", "<", 3.0),
    ("entropy", "ours write", "<", 0.08), ("entropy", "ours read", "<", 0.08),
    ("entropy", "torchac / ours write, float", ">", 8), ("entropy", "torchac / ours read, float", ">", 8),
    ("startup", "stanhlic --help", "<", 0.5), ("startup", f"compress, {SHIPPED['stanh']} / import torch", "<", 1.5), ("startup", f"info, {SHIPPED['stanh']} / import torch", "<", 0.5),
    ("progressive_compact", f"entropy / step {PORTIONS}", "<", 0.1), ("progressive_full", f"entropy / step {PORTIONS}", "<", 0.1)]

def check_targets(
    results: dict,  # measurement -> item -> record
) -> list:          # [{measurement, item, value, limit, met}]; met is None if nothing was measured
    """Compare results with the targets."""
    rows = []
    for name, item, sign, limit in TARGETS:
        value = results.get(name, {}).get(item, {}).get("value")
        met = None if value is None else bool(value < limit if sign == "<" else value > limit)
        rows.append({"measurement": name, "item": item, "value": value, "limit": f"{sign} {limit:g}", "met": met})
    return rows

def machine(threads: int, device: str = "cpu") -> dict:
    """Facts about the machine and the libraries that matter for time."""
    from stanhlic.evaluate import environment
    import torch
    version = lambda name: importlib.metadata.version(name) if importlib.util.find_spec(name) else None
    return environment(device) | {"threads": threads, "cores allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None, "instructions": torch.backends.cpu.get_cpu_capability(),
        "libraries": {n: version(n) for n in ("numpy", "constriction", "compressai", "torchac")}}

@contextlib.contextmanager
def using_threads(threads: int):
    """Torch with a number of threads, inside the block alone."""
    import torch
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try: yield
    finally: torch.set_num_threads(before)

def run(
    json: bool = False,   # print JSON instead of a table
    repeats: int = 5,     # timed runs of each thing
    threads: int = 2,     # of torch
    device: str = "cpu",  # auto, cpu, cuda or cuda:N; coders run on the CPU in any case
    only: list = None,    # names of measurements, default all
    quiet: bool = False,  # print nothing
) -> dict:                # the result, as JSON holds it
    """Measure everything on this machine; the progress goes to standard error.

    Raises `StanhlicError` for an unknown measurement, or a missing device."""
    for name in only or []:
        if name not in MEASUREMENTS: raise StanhlicError(f"unknown measurement {name!r}; there are {', '.join(MEASUREMENTS)}")
    from stanhlic.modelfile import resolve_device
    device, (picture, note) = resolve_device(device), bench_picture()
    s, facts, results = Setting(picture, repeats, threads, device), machine(threads, device), {}
    with using_threads(threads):
        for name in (bar := tqdm(only or list(MEASUREMENTS), desc="bench", unit="part", disable=quiet)):
            bar.set_postfix_str(name)
            try: results[name] = MEASUREMENTS[name](s)
            except LeftOut as e: results[name] = {"left out": str(e)}
    result = {"format": 1, "machine": facts, "repeats": repeats, "picture": {"what": note, "height": HEIGHT, "width": WIDTH},
              "models": s.models(), "results": results, "targets": check_targets(results)}
    if not quiet: print(_json.dumps(result, indent=1) if json else table(result))
    return result

def _line(item, r):
    if isinstance(r, str): return f"  {item}: {r}"
    if "left out" in r: return f"  {item:34} left out: {r['left out']}"
    spread = f"   ({r['low']:.4g} to {r['high']:.4g}, {r['n']} runs)" if "low" in r else ""
    number = f"{r['value']:>10,d}" if isinstance(r["value"], int) else f"{r['value']:>10.4g}"
    published = f"   (published {r['published']:,})" if "published" in r else ""
    return f"  {item:34} {number} {r['unit']}{spread}{published}"

def table(
    result: dict,  # of `run`
) -> str:
    """The result as text."""
    m, word = result["machine"], {True: "met", False: "MISSED", None: "not measured"}
    lines = [f"{m['processor']}, {m['threads']} threads on {m['cores allowed']} cores, load {m['load']} before the start; torch {m['torch']}, {m['instructions']}",
             f"picture: {result['picture']['what']}, {WIDTH}x{HEIGHT}; times are medians",
             *(f"{size}: {f['weights']}, {f['parameters']:,} parameters" for size, f in result["models"].items())]
    for name, items in result["results"].items(): lines += ["", name, *(_line(k, v) for k, v in items.items())]
    lines += ["", "targets", *(f"  {t['measurement'] + ', ' + t['item']:44} {t['limit']:>7}   {word[t['met']]}" for t in result["targets"] if t["measurement"] in result["results"])]
    return "\n".join(lines)
