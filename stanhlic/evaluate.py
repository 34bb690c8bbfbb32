"""Rate and quality of a model over pictures, from files that exist and from a decoder that saw nothing but them."""

import importlib.util
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
import numpy as np
import stanhlic
from tqdm import tqdm
from .container import unpack
from .datasets import find_dataset, list_datasets
from .errors import NotEnoughMemory, StanhlicError
from .images import atomic_write, image_files, keep_memory, read_bytes, read_image
from .metrics import MS_SSIM_MIN_SIDE, bpp, ms_ssim, psnr
from .zoo import list_models, load_codec, model_path

def load_images(
    source: str | Path | list,  # folder, name of a data set, or [(name, uint8 (H, W, 3)), ...]
) -> list:                      # [(name, uint8 (H, W, 3)), ...]
    """Pictures to measure on; raises `StanhlicError` if there are none or one cannot be read."""
    if not isinstance(source, (str, Path)):
        images = list(source)
        if not images: raise StanhlicError("no images to measure; give at least one (name, array)")
        return images
    files = find_dataset(str(source)) if not Path(source).is_dir() and str(source) in list_datasets() else image_files(source)
    return [(p.name, read_image(p)) for p in files]

def _decode_here(folder, model, device):
    "What the fresh process does: each .slic file of the folder becomes a .npy, one line of JSON each"
    keep_memory()
    try:
        codec, files = load_codec(model, device), sorted(Path(folder).glob("*.slic"))
        codec.decode(files[0].read_bytes())
        for path in files:
            data, start = path.read_bytes(), time.perf_counter()
            picture = codec.decode(data)
            seconds = time.perf_counter() - start
            np.save(path.with_suffix(".npy"), picture)
            print(json.dumps([path.stem, seconds]), flush=True)
    except StanhlicError as e: sys.exit(f"refused: {e}")
    except OSError as e: sys.exit(f"refused: the decoded pictures cannot be saved ({e.strerror or e}); free some space in {tempfile.gettempdir()}, or set TMPDIR")
    except MemoryError: sys.exit("refused: not enough memory to decode; use smaller pictures")

def _fresh(command, report, errors):
    "Run Python code in a new process, hand each line it prints to `report`, return its exit code"
    paths = [str(Path(stanhlic.__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    with subprocess.Popen([sys.executable, "-P", "-c", *command], stdout=subprocess.PIPE, stderr=errors, text=True, env=env) as process:
        try:
            for line in process.stdout: report(line)
        except BaseException: process.kill(); raise
    return process.returncode

def signal_name(number) -> str:
    """`SIGTERM` for 15."""
    try: return signal.Signals(number).name
    except ValueError: return f"signal {number}"

def _check_end(code, said):
    "Raise what the end of a process means, by its exit code and its last words"
    if code == 1 and said.startswith("refused: "): raise StanhlicError(said.removeprefix("refused: ").strip())
    if code == -9: raise NotEnoughMemory("the decoding process was killed (signal 9), usually for lack of memory; use smaller pictures or fewer at a time")
    if code < 0: raise StanhlicError(f"the decoding process was ended by {signal_name(-code)}; start again, and report it if it comes back")
    if code: raise RuntimeError(f"the decoding process ended with {code}:\n{said}")

def decode_folder(
    folder: str | Path,    # holds the .slic files
    model: str | Path,     # name or path
    device: str = "auto",  # auto, cpu, cuda or cuda:N
    report=lambda: None,   # called after each file
) -> dict:                 # stem of the file -> (picture uint8 (H, W, 3) mapped from disk, seconds)
    """Decode the files of a folder in one fresh process, leaving each picture beside its file as .npy.

    Raises `StanhlicError` if there is no file, if the process is killed, or as `load_codec` and `codec.decode` do."""
    folder, seconds = Path(folder), {}
    if not any(folder.glob("*.slic")): raise StanhlicError(f"{folder}: holds no .slic file")
    def heard(line): seconds.update([json.loads(line)]); report()
    with tempfile.TemporaryFile("w+") as errors:
        command = ["import sys; from stanhlic.evaluate import _decode_here; _decode_here(*sys.argv[1:])", str(folder), str(model_path(model).resolve()), str(device)]
        code = _fresh(command, heard, errors)
        errors.seek(0); said = errors.read()
    _check_end(code, said)
    return {stem: (np.load(folder / f"{stem}.npy", mmap_mode="r"), s) for stem, s in seconds.items()}

def _encode_all(codec, images, qualities, folder, tick):
    "Write a file per picture and quality; rows with rate and encoding time"
    rows = []
    codec.encode(images[0][1], qualities[0])
    for i, (name, array) in enumerate(images):
        once = codec.analyze(array)
        for j, q in enumerate(qualities):
            start = time.perf_counter(); data = codec.encode(array, q); seconds = time.perf_counter() - start
            stem, pixels = f"{i:05d}_{j:03d}", array.shape[0] * array.shape[1]
            (folder / f"{stem}.slic").write_bytes(data)
            rows.append({"image": name, "quality": q, "bytes": len(data), "bpp": bpp(len(data), *array.shape[:2]),
                         "bpp-estimated": codec.estimate(once, q) / pixels, "encoding_time": seconds, "stem": stem})
            tick()
    return rows

def measures_similarity() -> bool:
    """Is the library that MS-SSIM needs installed? Without it a result holds none."""
    return importlib.util.find_spec("pytorch_msssim") is not None

def _measure_all(rows, images, decoded, tick):
    "Add distortion and decoding time to the rows"
    for row in rows:
        stem = row.pop("stem")
        array, (out, seconds) = images[int(stem.partition("_")[0])][1], decoded[stem]
        value = psnr(array, np.asarray(out))
        similar = ms_ssim(array, np.asarray(out)) if measures_similarity() and min(array.shape[:2]) >= MS_SSIM_MIN_SIDE else None
        row |= {"psnr-rgb": value if math.isfinite(value) else None, "ms-ssim-rgb": similar, "decoding_time": seconds}
        tick()
    return rows

def environment(
    device: str = "cpu",  # cpu, cuda or cuda:N, or a `torch.device`
) -> dict:                # versions, processor, threads, device
    """What a time was measured with; nothing that names the machine or its user."""
    import torch
    cpu = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    return {"stanhlic": stanhlic.__version__, "python": platform.python_version(), "torch": torch.__version__, "system": f"{platform.system()} {platform.machine()}",
            "processor": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if str(device).startswith("cuda") else "cpu"}

def _lines(path):
    try: return Path(path).read_text().splitlines()
    except OSError: return []

SCHEMA = ("bpp", "psnr-rgb", "ms-ssim-rgb", "encoding_time", "decoding_time")

def _means(rows, qualities, key):
    "Mean over pictures for each quality; None where a picture has no value"
    values = [[r[key] for r in rows if r["quality"] == q] for q in qualities]
    return [None if None in v else float(np.mean(v)) for v in values]

def _result(codec, rows, qualities, names):
    "CompressAI's schema, with extras"
    what = f"{codec.name}: .slic files, decoded in a fresh process; 8-bit RGB, means over {len(names)} images"
    return {"name": codec.name, "description": what, "results": {k: _means(rows, qualities, k) for k in SCHEMA},
            "extras": {"quality": list(qualities), "bpp-estimated": _means(rows, qualities, "bpp-estimated"), "images": names, "per_image": rows,
                       "fingerprint": codec.fingerprint.hex(), "environment": environment(codec.device)}}

QUALITIES = (0, 20, 40, 60, 80, 100)

def _places(codec) -> tuple:
    "Qualities to measure a codec at if none are given"
    layers = codec.layers
    return tuple(100 * k / (layers - 1) for k in range(layers)) if layers > 1 else (100,) if layers else QUALITIES

def evaluate(
    model: str | Path,               # name or path of a model
    images: str | Path | list,       # folder, data set, or [(name, uint8 (H, W, 3)), ...]
    qualities: tuple = None,         # each in [0, 100]; default: `QUALITIES`, or one for each layer
    device: str = "auto",  # auto, cpu, cuda or cuda:N
    progress: bool = True,           # draw a bar
) -> dict:                           # name, description, results, extras
    """Measure a model on pictures, from real files decoded in a fresh process.

    Raises `StanhlicError` for an unknown model, no pictures, or a quality outside 0 to 100."""
    from .codec import check_quality
    for q in qualities or (): check_quality(q)
    if qualities is not None and (not len(qualities) or len(set(qualities)) < len(qualities)): raise StanhlicError("give each quality once, and at least one")
    images, codec = load_images(images), load_codec(model, device)
    qualities = [float(q) for q in (_places(codec) if qualities is None else qualities)]
    with tempfile.TemporaryDirectory() as folder, tqdm(total=3 * len(images) * len(qualities), unit="file", disable=not progress) as bar:
        def stage(name): bar.set_description(f"{codec.name}: {name}"); return bar.update
        rows = _encode_all(codec, images, qualities, Path(folder), stage("encode"))
        decoded = decode_folder(folder, model, device, stage("decode"))
        rows = _measure_all(rows, images, decoded, stage("measure"))
    return _result(codec, rows, qualities, [name for name, _ in images])

def write_results(
    path: str | Path,  # target, .json
    result: dict,      # as `evaluate` returns it
) -> None:
    """Write a result as JSON; raises `StanhlicError` if it cannot be written."""
    atomic_write(path, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())

def read_results(
    path: str | Path,  # .json in CompressAI's schema
) -> dict:             # name, description, results, perhaps extras
    """Read a result file, ours or CompressAI's; raises `StanhlicError` if it is not one."""
    try: result = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as e:
        if isinstance(e, StanhlicError): raise
        raise StanhlicError(f"{path}: not JSON; give a file that stanhlic eval wrote") from e
    if not isinstance(result, dict) or "bpp" not in result.get("results", {}):
        raise StanhlicError(f"{path}: JSON, but not a rate-distortion result; give a file that stanhlic eval wrote")
    return result

def _damage(data, trials=64):
    "How many of some flipped bits and cuts of a file go unnoticed"
    spots = np.linspace(0, len(data) - 1, trials).astype(int)
    bad = [data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1:] for i in spots] + [data[:i] for i in spots]
    def unnoticed(d):
        try: unpack(d)
        except StanhlicError: return False
        return True
    return sum(map(unnoticed, bad))

def self_test(
    device: str = "auto",  # auto, cpu, cuda or cuda:N
    models: list = (),             # names or paths; none: every known one
    report=lambda row: None,       # called with each row as it is ready
) -> list:                         # rows: model, check, ok, detail
    """Try models end to end; raises `StanhlicError` if there are no models."""
    models = models or [m["name"] for m in list_models()]
    if not models: raise StanhlicError("this installation ships no model; install stanhlic with its weights, or set STANHLIC_MODELS")
    rows = []
    for name in models:
        for row in _try_model(name, device): rows.append(row); report(row)
    return rows

def _test_picture():
    "Slopes, an edge and grain, uint8 (200, 256, 3); the same everywhere and without any library"
    y, x = np.mgrid[:200, :256] / 256
    planes = np.stack([x, y, 0.5 + 0.4 * np.sin(9 * x * y)], -1) + 0.3 * (x > y)[..., None]
    return (255 * np.clip(planes * 0.7 + 0.02 * np.random.default_rng(0).standard_normal(planes.shape) + 0.05, 0, 1)).astype(np.uint8)

def _try_model(name, device):
    "Rows of one model; a refusal anywhere is a failed row"
    try:
        codec, image = load_codec(name, device), _test_picture()
        with tempfile.TemporaryDirectory() as folder:
            files = {f"q{q:03d}": codec.encode(image, q) for q in (0, 50, 100)}
            for stem, data in files.items(): (Path(folder) / f"{stem}.slic").write_bytes(data)
            decoded = decode_folder(folder, name, device)
            for stem, data in files.items():
                out = np.asarray(decoded[stem][0])
                far = int(np.abs(out.astype(int) - codec.decode(data)).max())
                yield dict(model=name, check=f"quality {int(stem[1:])}", ok=far <= 1 and out.shape == image.shape,
                           detail=f"{len(data)} bytes, {psnr(image, out):.2f} dB" + (f", off by {far} gray levels" if far > 1 else ""))
        missed = sum(map(_damage, files.values()))
        yield dict(model=name, check="damage", ok=missed == 0, detail=f"{missed} of {128 * len(files)} went unnoticed" if missed else "every flipped bit and every cut noticed")
    except StanhlicError as e: yield dict(model=name, check="load and run", ok=False, detail=str(e))
