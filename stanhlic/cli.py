"""`stanhlic` on the command line: help that teaches, errors that fit on one line."""

import contextlib
import functools
import importlib
import itertools
import json
import os
import re
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Annotated
import typer
from . import DEFAULT_MODEL
from .errors import StanhlicError, printable

def _say(text, err=False):
    "One way to the terminal, on which no name from a file gives orders"
    typer.echo(printable(text), err=err)

app = typer.Typer(name="stanhlic", add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

def main():
    """Entry point of the command `stanhlic`; never returns."""
    if not sys.warnoptions: warnings.simplefilter("ignore")
    try: app(prog_name="stanhlic")
    except StanhlicError as e: said = str(e)
    except OSError as e: said = f"{e.filename}: {e.strerror}" if e.filename and e.strerror else str(e)
    except (MemoryError, RuntimeError) as e:  # torch reports lack of memory as a RuntimeError
        if isinstance(e, RuntimeError) and not re.search("out of memory|allocate memory", str(e)): raise
        said = "not enough memory for this picture or batch; split it into smaller ones, or use --device cpu on a machine with more"
    _say("stanhlic: error: " + " ".join(said.split()), err=True)
    sys.exit(1)

def _version(wanted: bool):
    if not wanted: return
    import stanhlic
    _say(stanhlic.__version__)
    raise typer.Exit()

@app.callback()
def _about(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False):
    """Learned image compression: one network, every rate, real files.

    \b
    Start here:
      stanhlic compress photo.png photo.slic --target-bpp 0.3
      stanhlic info photo.slic
      stanhlic decompress photo.slic back.png
      stanhlic view photo.png

    \b
    Files that may be cut:
      stanhlic compress photo.png photo.slic --model progressive-compact
      stanhlic truncate photo.slic small.slic --bytes 20000
      stanhlic view photo.slic

    Every command explains itself: stanhlic compress --help
    """

def _table(rows, columns):
    "Rows of values under headings, aligned; numbers to the right"
    cells = [list(columns)] + [[("" if v is None else str(v)) for v in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    right = [bool(rows) and all(isinstance(row[i], (int, float)) or str(row[i])[:1].isdigit() for row in rows) for i in range(len(columns))]
    return "\n".join("  ".join(v.rjust(w) if r else v.ljust(w) for v, w, r in zip(row, widths, right)).rstrip() for row in cells)

@contextlib.contextmanager
def _busy(text):
    "A spinner with the seconds, on a terminal, while the block runs"
    if not sys.stderr.isatty(): yield; return
    done, start = threading.Event(), time.monotonic()
    def spin():
        if done.wait(0.5): return
        for mark in itertools.cycle("|/-\\"):
            sys.stderr.write(f"\r{mark} {text} {time.monotonic() - start:.0f} s "); sys.stderr.flush()
            if done.wait(0.2): break
        sys.stderr.write("\r\033[K"); sys.stderr.flush()
    thread = threading.Thread(target=spin, daemon=True); thread.start()
    try: yield
    finally: done.set(); thread.join()

Device = Annotated[str, typer.Option("--device", metavar="D", help="auto, cpu or cuda; auto uses CUDA if available.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]

def _emit(value, text, as_json): _say(json.dumps(value) if as_json else text)

def _size(n): return f"{n / 1e6:.1f} MB" if n >= 1e5 else f"{n / 1e3:.1f} kB"

def _zoo():
    "The zoo, in a process that keeps freed memory for the next tensor"
    from stanhlic import zoo
    from stanhlic.images import keep_memory
    keep_memory()
    return zoo

def _no_pipe(*paths):
    "Refuse `-`, which elsewhere means a pipe"
    if "-" in paths: raise StanhlicError("-: is not a file; stanhlic reads and writes files, not pipes")

def _check_target(source, target):
    "Refuse an output that cannot be written before any work is done"
    target = Path(target)
    if target.is_dir(): raise StanhlicError(f"{target}: is a folder; name a file in it")
    if not target.parent.is_dir(): raise StanhlicError(f"{target}: there is no folder {target.parent}; create it first")
    if not os.access(target if target.exists() else target.parent, os.W_OK): raise StanhlicError(f"{target}: cannot be written; choose another place")
    if target.exists() and Path(source).exists() and target.samefile(source): raise StanhlicError(f"{target}: is the input itself; choose another output")

@app.command("models")
def _models(as_json: Json = False):
    """List the models known by name.

    Shipped ones come first, then those in the folders that STANHLIC_MODELS names.

    \b
    Examples:
      stanhlic models
      stanhlic models --json
    """
    from stanhlic.zoo import list_models
    found = list_models()
    rows = [(m["name"], m["system"], f"{m['parameters']:,}", _size(m["bytes"]), m["description"]) for m in found]
    _emit(found, _table(rows, ("name", "system", "parameters", "size", "description")) if found else "no models; this installation ships none", as_json)

def _one_rate(**given):
    "The rate options that were given, at most one; checked as far as no model is needed"
    given = {k: v for k, v in given.items() if v is not None}
    if len(given) > 1: raise typer.BadParameter(" and ".join("--" + k.replace("_", "-") for k in given) + " exclude each other; give one of them")
    for name, value in given.items():
        if name == "quality" and not 0 <= value <= 100: raise StanhlicError(f"quality {value:g} is outside 0 to 100; choose one in between")
        if name != "quality" and not 0 < value < float("inf"): raise StanhlicError(f"{name.replace('_', ' ')} {value:g} is not a positive number; choose one")
    return given

def _needs_layers(codec):
    "Refuse --layers for a codec without layers"
    if not codec.layers: raise StanhlicError(f"--layers is for layered models (rnn); {codec.name} is a {codec.kind} model")

def _compressed(image, codec, given):
    "Bytes and quality; the picture is analyzed once, however many qualities are tried"
    from stanhlic.container import read_header
    if "layers" in given: _needs_layers(codec)
    image = codec.analyze(image)
    if any(name.startswith("target") for name in given): given = {"quality": codec.quality_for(image, **given)}
    data = codec.encode(image, **given)
    return data, given.get("quality", codec.describe(read_header(data))["quality"])

def _jobs(source, target, listed, suffix):
    "Pairs of input and output; of a folder, all files that `listed` finds there"
    if not Path(source).is_dir(): return [(source, target)]
    if Path(target).exists() and not Path(target).is_dir(): raise StanhlicError(f"{target}: is a file; {source} is a folder, so name a folder")
    pairs = [(str(p), str(Path(target) / f"{p.stem}{suffix}")) for p in listed(source)]
    twice = [t for _, t in pairs if sum(t == other for _, other in pairs) > 1]
    if twice: raise StanhlicError(f"{source}: several files would become {twice[0]}; rename all but one")
    Path(target).mkdir(parents=True, exist_ok=True)
    return pairs

def _in_turn(source, jobs, work):
    "What `work(input, output)` returns for each job; in a folder, a refusal is reported and does not stop the others"
    done, refused = [], 0
    for job in jobs:
        try: done.append(work(*job))
        except StanhlicError as e:
            if not Path(source).is_dir(): raise
            refused += 1
            _say("stanhlic: refused: " + " ".join(str(e).split()), err=True)
    return done, refused

def _all_done(refused, jobs):
    "The end of a folder, or one line"
    if refused: raise StanhlicError(f"{refused} of {len(jobs)} files were refused; the others are done")

def _remark(path, note):
    "One line on standard error, if there is something to say"
    if note: _say(f"stanhlic: note: {path}: {note}", err=True)

def _one_picture(source, data, target, codec, given):
    "Compress a picture that was read; `codec` gives the codec, once the picture is known to be one. Returns what `--json` prints"
    from stanhlic.images import atomic_write, color_profile, decode_image
    image = decode_image(data, source)
    _check_target(source, target)
    start = time.perf_counter()
    with _busy("compressing"): coder = codec(); out, quality = _compressed(image, coder, given)
    atomic_write(target, out)
    if profile := color_profile(data): _remark(source, f"its color profile ({profile}) is not kept; convert the picture to sRGB first if its colors matter")
    height, width = image.shape[:2]
    return dict(input=source, output=target, model=coder.name, quality=quality, bytes=len(out), bpp=8 * len(out) / (height * width),
                height=height, width=width, seconds=time.perf_counter() - start)

@app.command("compress")
def _compress(
    source: Annotated[str, typer.Argument(metavar="IN", help="Picture: PNG, JPEG, WebP, TIFF, BMP, PPM, ...; or a folder of them.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help="File to write, usually .slic; a folder if IN is one.")],
    model: Annotated[str, typer.Option(metavar="NAME|PATH", help="A model's name or file.")] = DEFAULT_MODEL,
    quality: Annotated[float | None, typer.Option(metavar="Q", help="0 (smallest) to 100 (best), any real number; without any target, 50 for stanh models, 100 for rnn and progressive.")] = None,
    target_bpp: Annotated[float | None, typer.Option(metavar="B", help="Best quality within B bits per pixel.")] = None,
    target_bytes: Annotated[int | None, typer.Option(metavar="N", help="Best quality within N bytes.")] = None,
    target_psnr: Annotated[float | None, typer.Option(metavar="P", help="Smallest file that reaches a PSNR of P dB.")] = None,
    layers: Annotated[int | None, typer.Option(metavar="K", help="Number of layers; for rnn models only.")] = None,
    device: Device = "auto", as_json: Json = False,
):
    """Compress a picture, or a folder of them.

    A .slic file names the model that wrote it and holds everything else a decoder needs: its size is the rate. With a target, the encoder searches for the quality that meets it.

    \b
    Examples:
      stanhlic compress photo.png photo.slic
      stanhlic compress photo.png photo.slic --quality 72.5
      stanhlic compress photo.png photo.slic --target-bpp 0.3
      stanhlic compress photo.png photo.slic --target-bytes 20000 --json
      stanhlic compress photo.png photo.slic --model rnn-compact --layers 2
      stanhlic compress photos/ small/ --target-bpp 0.5
    """
    _no_pipe(source, target)
    given = _one_rate(quality=quality, target_bpp=target_bpp, target_bytes=target_bytes, target_psnr=target_psnr, layers=layers)
    from stanhlic.images import image_files, read_bytes
    jobs, zoo = _jobs(source, target, image_files, ".slic"), _zoo()
    codec = functools.cache(lambda: zoo.load_codec(model, device))
    def work(source, target):
        done = _one_picture(source, read_bytes(source), target, codec, given)
        if not as_json: _say(f"{target}: {done['bytes']} bytes, {done['bpp']:.4f} bpp, quality {done['quality']:.4g}, {done['model']}")
        return done
    done, refused = _in_turn(source, jobs, work)
    if as_json: _say(json.dumps(done if Path(source).is_dir() else done[0]))
    _all_done(refused, jobs)

def _picture(codec, data, layers):
    "Picture, and a note or None"
    if layers is not None:
        _needs_layers(codec)
        return codec.decode(data, layers=layers), None
    decoder = codec.decoder().feed(data)
    return decoder.image(), decoder.note

def _slic_files(folder):
    "Files of a folder that end in .slic, sorted by name"
    files = sorted(p for p in Path(folder).iterdir() if p.suffix == ".slic" and p.is_file())
    if not files: raise StanhlicError(f"{folder}: holds no .slic file")
    return files

def _one_file(source, target, codec, layers):
    "Decompress a file; `codec(kind, fingerprint)` gives the codec that can"
    from stanhlic.images import check_writable_suffix, read_bytes, write_image
    data = read_bytes(source)
    with _about_file(source): header = _zoo().sound_header(data)
    check_writable_suffix(target)
    _check_target(source, target)
    with _busy("decompressing"), _about_file(source): picture, note = _picture(codec(header.kind, header.fingerprint), data, layers)
    write_image(target, picture)
    _remark(source, note)
    _say(f"{target}: {header.width}x{header.height}")

@app.command("decompress")
def _decompress(
    source: Annotated[str, typer.Argument(metavar="IN", help="A .slic file, or a folder of them.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help="Picture to write, lossless: .png .ppm .bmp .tif .webp; or a folder, for .png files, if IN is one.")],
    model: Annotated[str | None, typer.Option(metavar="NAME|PATH", help="Model that wrote the file, if it is not one of `stanhlic models`.")] = None,
    layers: Annotated[int | None, typer.Option(metavar="K", help="Decode only the first K layers; for rnn files.")] = None,
    device: Device = "auto",
):
    """Decompress a .slic file, or a folder of them.

    A file of an rnn or progressive model may be cut or damaged: whatever is sound before that point is decoded, and a note reports damage or missing layers.
    Without a sound header and a sound base or first layer there is no picture: the file is refused with one line, and nothing is written. So is a stanh file that is not whole, a foreign file, and one with bytes after its end.

    \b
    Examples:
      stanhlic decompress photo.slic back.png
      stanhlic decompress photo.slic back.png --model my-model.safetensors
      stanhlic decompress photo.slic rough.png --layers 1
      stanhlic decompress small/ pictures/
    """
    _no_pipe(source, target)
    from stanhlic.container import Header
    jobs = _jobs(source, target, _slic_files, ".png")
    codec = functools.cache(lambda kind, fingerprint: _zoo().codec_for(Header(kind, fingerprint, 1, 1), model, device))
    _all_done(_in_turn(source, jobs, lambda a, b: _one_file(a, b, codec, layers))[1], jobs)

@contextlib.contextmanager
def _about_file(path):
    "Put the file's name before a refusal that does not know it"
    try: yield
    except StanhlicError as e: raise type(e)(f"{path}: {e}") from e

@app.command("info")
def _info(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .slic file.")],
    as_json: Json = False,
):
    """Show what a .slic file holds.

    Size, rate, codec, model and the codec's own parameters.

    \b
    Examples:
      stanhlic info photo.slic
      stanhlic info photo.slic --json
    """
    from stanhlic.images import read_bytes
    data = read_bytes(file)
    with _busy("reading"), _about_file(file): found = _zoo().describe_file(data)
    whole = {"count", "partial", "declared", "damaged", "note"} if found["complete"] else set()
    shown = {k: v for k, v in found.items() if k not in whole} | {"bpp": f"{found['bpp']:.4f}", "model": found["model"] or "unknown here; decompress needs --model PATH"}
    _emit(found, "\n".join(f"{k:<12} {v}" for k, v in shown.items()), as_json)

def _cuttable(header):
    "The codec class of a file that may be cut, or one line"
    from stanhlic.codec import codec_class
    if not codec_class(header.kind).truncatable:
        raise StanhlicError(f"a {header.kind} file is all or nothing and cannot be cut; compress the picture again at another quality, or with an rnn or progressive model")
    return codec_class(header.kind)

def _one_cut(**given):
    "The size that was asked for, exactly one"
    given = {k: v for k, v in given.items() if v is not None}
    if len(given) != 1: raise typer.BadParameter("give exactly one of --bytes, --bpp and --layers")
    for name, value in given.items():
        if not 0 < value < float("inf"): raise StanhlicError(f"{name} {value:g} is not a positive number; choose one")
    return given

@app.command("truncate")
def _truncate(
    source: Annotated[str, typer.Argument(metavar="IN", help="A .slic file of an rnn or progressive model.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help="File to write, usually .slic.")],
    num_bytes: Annotated[int | None, typer.Option("--bytes", metavar="N", help="At most N bytes.")] = None,
    bpp: Annotated[float | None, typer.Option(metavar="B", help="At most B bits per pixel.")] = None,
    layers: Annotated[int | None, typer.Option(metavar="K", help="The first K layers; for rnn files only.")] = None,
    as_json: Json = False,
):
    """Cut a .slic file down to a smaller one, without its model.

    A progressive file is cut at any byte, an rnn file after the last layer that fits.

    \b
    Examples:
      stanhlic truncate photo.slic small.slic --bytes 20000
      stanhlic truncate photo.slic small.slic --bpp 0.25
      stanhlic truncate photo.slic base.slic --layers 1
    """
    _no_pipe(source, target)
    given = _one_cut(bytes=num_bytes, bpp=bpp, layers=layers)
    from stanhlic.container import read_header
    from stanhlic.images import atomic_write, read_bytes
    from stanhlic.metrics import bytes_within
    data = read_bytes(source)
    with _about_file(source):
        header = read_header(data)
        pixels, kind = header.height * header.width, _cuttable(header)
        _check_target(source, target)
        cut = kind.truncate(data, layers=layers) if layers else kind.truncate(data, given.get("bytes") or bytes_within(bpp, header.height, header.width))
    atomic_write(target, cut)
    done = dict(input=source, output=target, bytes=len(cut), bpp=8 * len(cut) / pixels, height=header.height, width=header.width)
    _emit(done, f"{target}: {len(cut)} of {len(data)} bytes, {done['bpp']:.4f} bpp", as_json)

def _stop(k, n):
    "One line for each stop of a page; on a terminal the last one only"
    _say(f"stop {k} of {n}", err=True) if not sys.stderr.isatty() else print(f"\r\033[Kstop {k} of {n}", end="\n" * (k == n), file=sys.stderr, flush=True)

@app.command("view")
def _view(
    source: Annotated[str, typer.Argument(metavar="FILE", help="A picture, or a .slic file.")],
    target: Annotated[str | None, typer.Option("-o", "--out", metavar="OUT.html", help="Page to write; by default FILE with .html for its suffix.")] = None,
    original: Annotated[str | None, typer.Option(metavar="IMAGE", help="The picture a .slic file was made from, to compare with.")] = None,
    stops: Annotated[int | None, typer.Option(metavar="N", min=2, max=200, help="How many stops the slider has, about; by default as many as can be told apart, at most 24, or 12 for a large picture.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME|PATH", help=f"Model for a picture, by default {DEFAULT_MODEL}; or that of the file, if it is not one of `stanhlic models`.")] = None,
    device: Device = "auto",
):
    """Make a web page that shows what a codec does to a picture.

    One HTML file that needs nothing else. Its slider goes over the bytes: of a file that may be cut, over its layers, or along the dial of a
    stanh model, each position with its real file. With the original: a split, errors, and JPEG, WebP and AVIF of the same size.

    \b
    Examples:
      stanhlic view photo.png
      stanhlic view photo.png --model progressive-compact
      stanhlic view photo.slic
      stanhlic view photo.slic --original photo.png -o page.html
    """
    _no_pipe(source, target, original)
    from stanhlic.container import MAGIC
    from stanhlic.images import atomic_write, decode_image, read_bytes, read_image
    from stanhlic.view import make_page
    start, data, target = time.monotonic(), read_bytes(source), target or str(Path(source).with_suffix(".html"))
    coded = data[:4] == MAGIC or Path(source).suffix == ".slic"
    if original is not None and not coded: raise StanhlicError(f"{source}: is a picture, and so the original itself; leave --original out")
    with _about_file(source): header = _zoo().sound_header(data) if coded else None
    picture = None if coded and original is None else read_image(original) if coded else decode_image(data, source)
    _check_target(source, target)
    codec = _zoo().codec_for(header, model, device) if coded else _zoo().load_codec(model or DEFAULT_MODEL, device)
    with _about_file(source): page = make_page(codec, Path(source).name, data if coded else None, picture, stops, _stop)
    atomic_write(target, page.text.encode())
    _remark(source, page.note)
    _say(f"{target}: {_size(len(page.text))}, {page.stops} stop{'s' * (page.stops > 1)}, {time.monotonic() - start:.0f} s; open it in a browser")

def _qualities(words):
    "Numbers from words like `0,25,50`"
    try: return [float(w) for word in words for w in word.replace(",", " ").split()]
    except ValueError: raise typer.BadParameter(f"--qualities takes numbers with commas between them, not '{' '.join(words)}'") from None

def _without_similarity(rows):
    "A note that names the pictures without MS-SSIM, or None"
    from stanhlic.evaluate import measures_similarity
    from stanhlic.metrics import MS_SSIM_MIN_SIDE
    if not measures_similarity(): return 'no MS-SSIM, since pytorch-msssim is not installed; pip install "stanhlic[figures]"'
    names = list(dict.fromkeys(r["image"] for r in rows if r["ms-ssim-rgb"] is None))
    if not names: return None
    who = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"no MS-SSIM, since {who} {'has' if len(names) == 1 else 'have'} a side under {MS_SSIM_MIN_SIDE} pixels"

@app.command("eval")
def _eval(
    model: Annotated[str, typer.Option(metavar="NAME|PATH", help="Name of a model, or its file.")],
    images: Annotated[str, typer.Option(metavar="DIR", help="Folder of pictures, or the name of a data set (kodak).")],
    out: Annotated[str, typer.Option(metavar="FILE.json", help="Result file to write.")],
    qualities: Annotated[list[str] | None, typer.Option(metavar="Q,Q,...", help="Qualities to measure; by default 0,20,40,60,80,100, or each layer of an rnn model.")] = None,
    device: Device = "auto",
):
    """Measure a model on a folder of pictures.

    Each picture is written to a real file at each quality; all files are decoded in a fresh process. The result file has CompressAI's schema, with extras of our own.

    \b
    Examples:
      stanhlic eval --model stanh-zou22-compact --images kodak --out kodak.json
      stanhlic eval --model my.safetensors --images photos/ --qualities 0,50,100 --out my.json
    """
    chosen = _qualities(qualities or [])
    from stanhlic.evaluate import evaluate, write_results
    _zoo()
    _check_target(images, out)
    result = evaluate(model, images, chosen or None, device)
    write_results(out, result)
    r, x = result["results"], result["extras"]
    show = lambda v, digits: None if v is None else f"{v:.{digits}f}"
    rows = [(f"{q:g}", *(show(v, 4) for v in (a, b)), show(p, 2), show(s, 4), show(e, 3), show(d, 3)) for q, a, b, p, s, e, d in
            zip(x["quality"], r["bpp"], x["bpp-estimated"], r["psnr-rgb"], r["ms-ssim-rgb"], r["encoding_time"], r["decoding_time"])]
    _say(_table(rows, ("quality", "bpp", "estimated", "PSNR dB", "MS-SSIM", "encode s", "decode s")))
    _remark(images, _without_similarity(x["per_image"]))

@app.command("fetch")
def _fetch(name: Annotated[str | None, typer.Argument(metavar="NAME", help="Data set; without it, all are listed.")] = None):
    """Download a data set, or list the known ones.

    Files come from their origin into the cache in your home folder and are checked by SHA-256; those already there are not downloaded again. A data set is looked for under STANHLIC_DATA, then in ./data, then in the cache.

    \b
    Examples:
      stanhlic fetch
      stanhlic fetch kodak
    """
    from stanhlic.datasets import find_dataset, has_dataset, list_datasets, load_manifest
    if name is not None:
        files = find_dataset(name, download=True)
        _say(f"{name}: {len(files)} files, the first is {files[0]}")
        return
    rows = [(n, "here" if has_dataset(n) else "not here", len(m["files"]), _size(sum(e["size"] for e in m["files"])), m["title"]) for n in list_datasets() for m in [load_manifest(n)]]
    _say(_table(rows, ("name", "state", "files", "size", "title")))

@app.command("bench")
def _bench(as_json: Json = False, device: Device = "cpu"):
    """Time the codecs on this machine.

    Transforms, entropy coding and memory are measured separately. Ratios within one run are meaningful; seconds from two machines are not comparable.

    \b
    Examples:
      stanhlic bench
      stanhlic bench --json > bench.json
    """
    _zoo()
    importlib.import_module("stanhlic.lab.bench").run(as_json, device=device)

def _system(name):
    "The training module of a system"
    from stanhlic.container import KINDS
    there = [k for k in KINDS.values() if importlib.util.find_spec(f"stanhlic.{k}") and importlib.util.find_spec(f"stanhlic.{k}.training")]
    if name not in there: raise StanhlicError(f"unknown system '{name}'; this stanhlic trains {', '.join(there) or 'none'}")
    return importlib.import_module(f"stanhlic.{name}.training")

def _earlier(out, stage):
    "Runs of a stage in a folder, in words, or None; a rate point of a stanh model has a folder of its own in it"
    from stanhlic.training import read_log
    out = Path(out)
    last = [p for p in (out / "last.pt", *sorted(out.glob("*/last.pt"))) if p.exists() and (p.parent == out or p.parent.name.startswith(f"{stage}-"))]
    if not last: return None
    steps, made = [max([0, *(line["step"] for line in read_log(p.parent / "log.jsonl"))]) for p in last], out / "model.safetensors"
    finished = made.exists() and made.stat().st_mtime >= max(p.stat().st_mtime for p in last)
    return f"{'a run' if len(last) == 1 else f'{len(last)} runs'} of {', '.join(map(str, steps))} steps ({'' if finished else 'not '}finished)"

@app.command("train")
def _train(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="stanh, rnn or progressive.")],
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="Stage of its training: base, anchor, derivation, joint or release (stanh); train (rnn); first, decoder or rem (progressive).")],
    profile: Annotated[str, typer.Option(metavar="P", help="smoke (seconds), compact (what ships) or paper (the published recipe).")] = "smoke",
    data: Annotated[str | None, typer.Option(metavar="DIR", help="Folder of training pictures, or the name of a data set; by default `train`.")] = None,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Folder for checkpoints, log and model; by default training/SYSTEM-STAGE-PROFILE.")] = None,
    init: Annotated[str | None, typer.Option(metavar="NAME|PATH", help="Model to start from.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint in --out.")] = False,
    device: Device = "auto",
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of the profile; may be repeated.")] = None,
):
    """Train one stage of a system.

    On several GPUs or machines: `accelerate launch -m stanhlic.cli train ...`. An --out that holds a run is refused, unless --resume continues it.

    \b
    Examples:
      stanhlic train stanh anchor --profile smoke
      stanhlic train stanh derivation --profile compact --init anchor.safetensors
      stanhlic train stanh anchor --profile compact --set steps=2000 --resume
    """
    if wrong := [o for o in overrides or [] if "=" not in o]: raise typer.BadParameter(f"--set takes KEY=VALUE, not '{wrong[0]}'")
    out = out or f"training/{system}-{stage}-{profile}"
    room, earlier, first = _system(system), _earlier(out, stage), os.environ.get("RANK", "0") == "0"  # of several processes one speaks
    if earlier and not resume: raise StanhlicError(f"{out}: holds {earlier}; add --resume, or choose another --out")
    if resume and not earlier and first: _remark(out, "holds no run to resume; a new one starts")
    path = room.run(stage, profile=profile, data=data, out=out, init=init, resume=resume, device=device, set=list(overrides or []))
    if first: _say(f"{path}: {_size(path.stat().st_size)}")

def _measured(row, entry, alone):
    "What one run of an item left, as text; of a smoke run also the first rows that it measured"
    from stanhlic.lab.curves import figure_numbers
    from stanhlic.lab.reproduce import as_text, first_table, verdicts
    from stanhlic.lab.tables import lines
    numbers = next((figure_numbers(p) for p in row["outputs"] if p.endswith(".json")), None) or {}
    told = [as_text(v) for v in verdicts(entry, numbers)] if numbers else []
    rows = first_table(numbers)[:12] if row["outcome"] == "smoke" and alone else []
    parts = [f"{entry['id']}, {'smoke run: it shows that the code runs, and decides nothing' if row['outcome'] == 'smoke' else numbers.get('kind')}"]
    for part in (rows, told):
        if part: head, *body = lines(part); parts.append(_table(body, head))
    return "\n".join(parts) if rows or told else None

@app.command("reproduce")
def _reproduce(
    item: Annotated[str | None, typer.Argument(metavar="ITEM", help="Item, as --list names it; without it, all run.")] = None,
    profile: Annotated[str, typer.Option(metavar="P", help="smoke (seconds), compact (shipped models) or paper (full size).")] = "smoke",
    show: Annotated[bool, typer.Option("--list", help="List the items and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Run even what is up to date.")] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change one parameter of the item's notebook; may be repeated.")] = None,
):
    """Run the notebook behind a table or figure of the papers.

    The executed notebook is kept in ./runs, the picture and its numbers in ./figures; a smoke run and one with --set leave theirs in
    ./runs/figures. An item is not run again while its weights, parameters, notebook and inputs are those that made its numbers; --list
    shows what has changed, and ends with the number of claims that hold.

    \b
    Examples:
      stanhlic reproduce --list
      stanhlic reproduce stanh/rd_kodak --profile compact
      stanhlic reproduce stanh/rd_kodak --set n_images=4 --set qualities=0,100
    """
    from stanhlic.lab.reproduce import find_item, list_items, outdated, reproduce, tally
    if show:
        items = [find_item(item)] if item else list_items()
        minutes = lambda e: ", ".join(f"{k} {v:g}" for k, v in (e["minutes"] or {}).items())
        changed = lambda e: ", ".join(outdated(e, "compact")) if "compact" in e["parameters"] else ""
        _say(_table([(e["id"], e["status"], minutes(e), changed(e), e["title"]) for e in items], ("item", "status", "minutes", "changed since", "title")))
        for e in items: _say(f"\n{e['id']}: {e['paper']}, {e['item']}\n  claim  {e['claim']}\n  needs  {e['needs']}")
        counts = tally()
        _say("\nclaims that held here, by the rules of the registry; checks of arithmetic are counted separately, as held of all\n" + _table([tuple(str(v) for v in r.values()) for r in counts], tuple(counts[0])))
        return
    rows = reproduce(item, profile, force=force, settings=settings or [])
    see = lambda r: r["detail"] if r["outcome"] in ("needs", "left out", "failed", "up to date") else " ".join(r["outputs"]) or r["detail"]
    _say(_table([(r["id"], r["outcome"], f"{r['seconds']:.0f} s", see(r)) for r in rows], ("item", "outcome", "time", "see")))
    for r in rows:
        if r["outcome"] in ("done", "smoke", "up to date") and (text := _measured(r, find_item(r["id"]), bool(item))): _say(f"\n{text}")
    failed = [r for r in rows if r["outcome"] == "failed"]
    if failed: raise StanhlicError(failed[0]["detail"] if len(failed) == 1 else f"{len(failed)} of {len(rows)} items failed: {', '.join(r['id'] for r in failed)}; see runs/")

@app.command("selftest")
def _selftest(models: Annotated[list[str] | None, typer.Argument(metavar="MODEL...", help="Names or files of models; without any, all known ones.")] = None, device: Device = "auto"):
    """Check that this installation works.

    Each model encodes a picture at three qualities; a fresh process decodes the files; damage must be noticed.

    \b
    Examples:
      stanhlic selftest
      stanhlic selftest stanh-zou22-wide
    """
    from stanhlic.evaluate import self_test
    _zoo()
    with _busy("testing"): rows = self_test(device, models or ())
    _say(_table([(r["model"], r["check"], "ok" if r["ok"] else "FAILED", r["detail"]) for r in rows], ("model", "check", "result", "detail")))
    if bad := [r for r in rows if not r["ok"]]: raise StanhlicError(f"{len(bad)} of {len(rows)} checks failed; the first: {bad[0]['check']}, {bad[0]['detail']}")

if __name__ == "__main__" and "__file__" in globals(): main()
