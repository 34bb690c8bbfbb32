"""`stanhlic` on the command line: help that teaches, errors that fit on one line."""

import contextlib
import functools
import importlib
import itertools
import json
import multiprocessing
import os
import re
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Annotated
import typer
from . import DEFAULT_MODEL, files
from .errors import KeysDoNotFit, StanhlicError, printable

def _say(text, err=False):
    "One way to the terminal, on which no name from a file gives orders"
    typer.echo(printable(text), err=err)

app = typer.Typer(name="stanhlic", no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]}, pretty_exceptions_enable=False, rich_markup_mode=None)

def main():
    """Entry point of the command `stanhlic`; never returns."""
    if not sys.warnoptions: warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError): stream.reconfigure(errors="backslashreplace")  # a name that it cannot spell must not stop the work
    for loaded in (_codec, _codec_of): loaded.cache_clear()
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
    "A spinner with the seconds, on a terminal, while the block runs; yields a function to tell the share of the work that is done"
    left, first = [""], []
    def tell(share):
        now = time.monotonic(); first[:] = first or [now, share]
        if share > first[1]: left[0] = f"{share:.0%}, about {(now - first[0]) * (1 - share) / (share - first[1]):.0f} s left, "
    if not sys.stderr.isatty() or multiprocessing.parent_process(): yield tell; return
    done, start = threading.Event(), time.monotonic()
    def spin():
        if done.wait(0.5): return
        for mark in itertools.cycle("|/-\\"):
            sys.stderr.write(f"\r\033[K{mark} {text} {left[0]}{time.monotonic() - start:.0f} s "); sys.stderr.flush()
            if done.wait(0.2): break
        sys.stderr.write("\r\033[K"); sys.stderr.flush()
    thread = threading.Thread(target=spin, daemon=True); thread.start()
    try: yield tell
    finally: done.set(); thread.join()

Device = Annotated[str, typer.Option("--device", metavar="D", help="auto, cpu or cuda; auto uses CUDA if available.")]
def _use_threads(count: int | None):
    if count is not None:
        os.environ["OMP_NUM_THREADS"] = str(count)  # for what is started, and for torch if it is not loaded yet
        if "torch" in sys.modules: sys.modules["torch"].set_num_threads(count)
    return count

Threads = Annotated[int | None, typer.Option("--threads", metavar="N", min=1, callback=_use_threads, help="Threads of a process; by default as many as there are cores.")]
Fast = Annotated[bool, typer.Option("--fast", help="Transforms in bfloat16 where the processor has instructions for it; costs a little quality.")]
Pixels = Annotated[int | None, typer.Option("--max-pixels", metavar="N", min=1, help="Refuse pictures of more pixels.")]
Memory = Annotated[float | None, typer.Option("--max-memory", metavar="GB", help="Refuse pictures that take more gigabytes, even where more are free.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]

def _limits(pixels, gigabytes): return pixels, gigabytes and gigabytes * 1e9

def _emit(value, text, as_json, err=False): _say(json.dumps(value) if as_json else text, err)

def _size(n): return f"{n / 1e6:.1f} MB" if n >= 1e5 else f"{n / 1e3:.1f} kB"

def _zoo():
    "The zoo, in a process that keeps freed memory for the next tensor"
    from stanhlic import zoo
    from stanhlic.images import keep_memory
    keep_memory()
    return zoo

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

def _compressed(image, codec, given, effort, progress):
    "Bytes and quality; the picture is analyzed once, however many qualities are tried"
    from stanhlic.container import read_header
    if "layers" in given: _needs_layers(codec)
    image = codec.analyze(image)
    if not effort and any(name.startswith("target") for name in given): given = {"quality": codec.quality_for(image, **given)}
    data = codec.encode(image, **given, effort=effort, progress=progress)
    return data, given.get("quality", codec.describe(read_header(data))["quality"])

def _remark(path, note):
    "One line on standard error, if there is something to say"
    if note: _say(f"stanhlic: note: {path}: {note}", err=True)

def _each(plan, work, show, count, threads, as_json):
    "Do the jobs of a plan, in order; of several, a refusal is reported and does not stop the others"
    done, refused, start, n = [], [], time.perf_counter(), len(plan.jobs)
    try:
        with contextlib.closing(files.run(plan.jobs, work, count, threads or 1)) as results:
            for i, (job, row) in enumerate(results, 1):
                if isinstance(row, StanhlicError):
                    if not plan.several: raise row
                    refused.append(dict(input=job.source, output=job.target, refused=str(row)))
                    _say("stanhlic: refused: " + " ".join(str(row).split()), err=True)
                    continue
                for note in row["notes"]: _remark(job.source, note)
                done.append(row)
                if not as_json: _say((f"{i} of {n}: " if plan.several else "") + f"{job.target}: {show(row)}", err=plan.pipe)
    except KeyboardInterrupt:
        _say(f"stanhlic: stopped; {len(done)} of {n} are done" + (", and no file is half-written; the same command with --skip-existing goes on" if plan.several else ""), err=True)
        sys.exit(130)
    if plan.others: _remark("folders", f"{plan.others} file{'s' * (plan.others > 1)} left out, by the name no picture and no .slic file")
    skipped = [dict(input=j.source, output=j.target, bytes=os.path.getsize(j.target), skipped=True) for j in plan.skipped]
    if as_json: _say(json.dumps(skipped + done + refused if plan.several else (done or skipped)[0]), err=plan.pipe)
    elif plan.several or skipped: _say(_total(done, skipped, time.perf_counter() - start))
    if refused: raise StanhlicError(f"{len(refused)} of {n} files were refused; the others are done")

def _total(done, skipped, seconds):
    "The last line of many files"
    size, pixels = sum(r["bytes"] for r in done), sum(r["height"] * r["width"] for r in done)
    told = [f"{len(done)} file{'s' * (len(done) != 1)}"] + ([f"{_size(size)}, {8 * size / pixels:.4f} bpp, {seconds:.1f} s"] if done else [])
    return ", ".join(told) + (f"; {len(skipped)} more were there already" if skipped else "")

@functools.cache
def _codec(model, device, fast=False): return _zoo().load_codec(model, device, "auto" if fast else "fp32")

@functools.cache
def _codec_of(kind, fingerprint, model, device, fast=False):
    from stanhlic.container import Header
    return _zoo().codec_for(Header(kind, fingerprint, 1, 1), model, device, "auto" if fast else "fp32")

def _one_picture(job, how):
    "Compress a picture; returns what `--json` prints"
    from stanhlic.images import check_head, decode_picture
    codec = functools.cache(lambda: _codec(how["model"], how["device"], how["fast"]).within(*how["limits"]))
    image = decode_picture(files.read(job.source, check_head), job.source, lambda height, width: codec().check_room(height, width), **how["carried"])
    files.check_target(job.source, job.target)
    start, codec = time.perf_counter(), codec()
    with _busy("compressing") as tell: out, quality = _compressed(image, codec, how["given"], how["effort"], tell)
    files.write(job, out)
    height, width = image.colors.shape[:2]
    return dict(input=job.source, output=job.target, model=codec.name, quality=quality, effort=how["effort"], bytes=len(out), bpp=8 * len(out) / (height * width),
                height=height, width=width, seconds=time.perf_counter() - start, notes=list(image.notes))

Inputs = Annotated[list[str] | None, typer.Argument(metavar="IN... [OUT]", show_default=False)]
Out = Annotated[str | None, typer.Option("-o", "--out", metavar="OUT", help="File to write, or folder for several; by default beside each input. - is standard output.")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Folders with their subfolders.")]
Listed = Annotated[str | None, typer.Option("--list", metavar="FILE", help="More inputs, one a line; below a folder --out they keep their paths. - is standard input.")]
Force = Annotated[bool, typer.Option("--force", help="Replace outputs that are there.")]
Skip = Annotated[bool, typer.Option("--skip-existing", help="Leave outputs that are there; to go on where a folder stopped.")]
Processes = Annotated[int | None, typer.Option("--jobs", metavar="N", min=1, help="Processes for several files, one thread each; by default one a core, for at least four files each, on the CPU.")]

@app.command("compress")
def _compress(
    inputs: Inputs = None, out: Out = None,
    model: Annotated[str, typer.Option(metavar="NAME|PATH", help="A model's name or file.")] = DEFAULT_MODEL,
    quality: Annotated[float | None, typer.Option(metavar="Q", help="0 (smallest) to 100 (best), any real number; without any target, 50 for stanh models, 100 for rnn and progressive.")] = None,
    target_bpp: Annotated[float | None, typer.Option(metavar="B", help="Best quality within B bits per pixel.")] = None,
    target_bytes: Annotated[int | None, typer.Option(metavar="N", help="Best quality within N bytes.")] = None,
    target_psnr: Annotated[float | None, typer.Option(metavar="P", help="Smallest file that reaches a PSNR of P dB.")] = None,
    layers: Annotated[int | None, typer.Option(metavar="K", help="Number of layers; for rnn models only.")] = None,
    effort: Annotated[int, typer.Option(metavar="E", min=0, max=9, help="0 (one pass) to 9: how long the encoder refines; each step doubles that time, decoding stays as it is.")] = 0,
    background: Annotated[str | None, typer.Option(metavar="COLOR", help="Flatten transparency on a color, by name or #rrggbb, instead of keeping it.")] = None,
    strip: Annotated[bool, typer.Option("--strip", help="Leave color profile, EXIF and XMP out; the place where a photograph was taken is in EXIF.")] = False,
    srgb: Annotated[bool, typer.Option("--convert-to-srgb", help="Convert the colors by the picture's profile, instead of keeping it.")] = False,
    recursive: Recursive = False, listed: Listed = None, skip: Skip = False, force: Force = False,
    count: Processes = None, threads: Threads = None, fast: Fast = False, device: Device = "auto", as_json: Json = False,
    max_pixels: Pixels = None, max_memory: Memory = None,
):
    """Compress pictures, folders of them, or lists.

    PNG, JPEG, WebP, TIFF, BMP, PPM and more are read.
    A .slic file names the model that wrote it and holds everything else a decoder needs: its size is the rate. With a target, the encoder searches for the quality that meets it.
    Alpha is kept without loss, color profile, EXIF and XMP as they are; they count towards the size.
    Of two paths the second is the file or folder to write, unless it is a picture that is there; otherwise each output goes beside its input, or below --out, with the suffix .slic. Only an output that you name is replaced. - is a pipe.

    \b
    Examples:
      stanhlic compress photo.png photo.slic
      stanhlic compress photo.png photo.slic --quality 72.5
      stanhlic compress photo.png photo.slic --target-bpp 0.3
      stanhlic compress photo.png photo.slic --target-bytes 20000 --json
      stanhlic compress photo.png photo.slic --effort 6
      stanhlic compress photo.png photo.slic --model rnn-compact --layers 2
      stanhlic compress *.jpg
      stanhlic compress photos/ --out small/ --recursive --skip-existing
      find . -newer last -name "*.png" | stanhlic compress --list - --out small/
      convert photo.cr2 png:- | stanhlic compress - photo.slic
    """
    given = _one_rate(quality=quality, target_bpp=target_bpp, target_bytes=target_bytes, target_psnr=target_psnr, layers=layers)
    if not inputs and not listed: raise typer.BadParameter("name a picture, a folder, or a --list of them")
    plan = files.plan_jobs(inputs, out, files.PICTURES, recursive, listed, skip, force)
    show = lambda row: f"{row['bytes']} bytes, {row['bpp']:.4f} bpp, quality {row['quality']:.4g}, {row['model']}"
    work = functools.partial(_one_picture, how=dict(model=model, device=device, fast=fast, given=given, effort=effort, carried=dict(background=background, strip=strip, srgb=srgb), limits=_limits(max_pixels, max_memory)))
    _each(plan, work, show, files.processes(count, len(plan.jobs), device), threads, as_json)

def _picture(codec, data, layers, strict):
    "Picture with what it carries, and notes"
    from stanhlic.container import extras, unpack_prefix
    from stanhlic.images import Picture
    decoder = codec.decoder(strict).feed(data)
    if layers is not None: _needs_layers(codec)
    colors, note = decoder.image(layers), decoder.note if layers is None else unpack_prefix(data).lacks
    beside = extras(data)
    return Picture(colors, beside.pop("alpha", None), beside), [note] if note else []

def _compared(original, picture):
    "PSNR and MS-SSIM of a picture against the one it was made from, for JSON: None where there is no number"
    from stanhlic.evaluate import measures_similarity
    from stanhlic.metrics import MS_SSIM_MIN_SIDE, ms_ssim, psnr
    if original.shape != picture.shape:
        raise StanhlicError(f"the original is {original.shape[1]}x{original.shape[0]}, the file holds {picture.shape[1]}x{picture.shape[0]}; give the picture it was made from")
    value, similar = psnr(original, picture), measures_similarity() and min(picture.shape[:2]) >= MS_SSIM_MIN_SIDE
    return {"psnr": value if value < float("inf") else None, "ms_ssim": ms_ssim(original, picture) if similar else None}

def _one_file(job, how):
    "Decompress a file; returns what `--json` prints"
    from stanhlic.images import check_writable_suffix, not_held, picture_bytes, read_picture
    data, name = files.read(job.source, _zoo().check_start), "-.png" if job.target == files.PIPE else job.target
    with _about_file(job.source): header = _zoo().sound_header(data)
    check_writable_suffix(name)
    files.check_target(job.source, job.target)
    original = read_picture(how["original"]).colors if how["original"] else None
    start = time.perf_counter()
    with _busy("decompressing"), _about_file(job.source):
        codec = _codec_of(header.kind, header.fingerprint, how["model"], how["device"], how["fast"]).within(*how["limits"])
        picture, notes = _picture(codec, data, how["layers"], how["strict"])
        compared = {} if original is None else _compared(original, picture.colors)
    files.write(job, picture_bytes(name, picture))
    if lost := not_held(name, picture): notes.append(f"{Path(name).suffix} has no place for its {' and '.join(lost)}; .png has")
    return dict(input=job.source, output=job.target, model=codec.name, bytes=len(data), bpp=8 * len(data) / (header.height * header.width), height=header.height, width=header.width,
                seconds=time.perf_counter() - start, notes=notes) | compared

def _shown(row):
    "A decoded picture in a few words"
    told = [f"{row['width']}x{row['height']}"]
    if "psnr" in row: told.append("identical to the original" if row["psnr"] is None else f"PSNR {row['psnr']:.2f} dB")
    if row.get("ms_ssim") is not None: told.append(f"MS-SSIM {row['ms_ssim']:.4f}")
    return ", ".join(told)

@app.command("decompress")
def _decompress(
    inputs: Inputs = None, out: Out = None,
    model: Annotated[str | None, typer.Option(metavar="NAME|PATH", help="Model that wrote the file, if it is not one of `stanhlic models`.")] = None,
    layers: Annotated[int | None, typer.Option(metavar="K", help="Decode only the first K layers; for rnn files.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Of a cut progressive file, show only what its checks have tested.")] = False,
    original: Annotated[str | None, typer.Option(metavar="IMAGE", help="The picture a file was made from, to measure PSNR and MS-SSIM against.")] = None,
    recursive: Recursive = False, listed: Listed = None, skip: Skip = False, force: Force = False,
    count: Processes = None, threads: Threads = None, fast: Fast = False, device: Device = "auto", as_json: Json = False,
    max_pixels: Pixels = None, max_memory: Memory = None,
):
    """Decompress .slic files into lossless pictures.

    A picture is written as .png .ppm .bmp .tif or .webp, by the suffix of its name.
    A file of an rnn or progressive model may be cut or damaged: whatever is sound before that point is decoded, and a note reports damage, missing layers, and bytes of a cut file that no check has tested.
    Without a sound header and a sound base or first layer there is no picture: the file is refused with one line, and nothing is written. So is a stanh file that is not whole, a foreign file, and one with bytes after its end.
    Of two paths the second is the picture or folder to write, unless it is a .slic file that is there; otherwise each output goes beside its input, or below --out, as .png. Only an output that you name is replaced. - is a pipe.

    \b
    Examples:
      stanhlic decompress photo.slic back.png
      stanhlic decompress photo.slic back.png --original photo.png
      stanhlic decompress photo.slic back.png --model my-model.safetensors
      stanhlic decompress photo.slic rough.png --layers 1
      stanhlic decompress small/ pictures/
      stanhlic decompress photo.slic - | display
    """
    if not inputs and not listed: raise typer.BadParameter("name a .slic file, a folder, or a --list of them")
    plan = files.plan_jobs(inputs, out, files.CODED, recursive, listed, skip, force)
    if original and plan.several: raise StanhlicError("--original is for one file; give a single input")
    work = functools.partial(_one_file, how=dict(model=model, device=device, fast=fast, layers=layers, original=original, strict=strict, limits=_limits(max_pixels, max_memory)))
    _each(plan, work, _shown, files.processes(count, len(plan.jobs), device), threads, as_json)

@contextlib.contextmanager
def _about_file(path):
    "Put the file's name before a refusal that does not know it"
    try: yield
    except StanhlicError as e: raise type(e)(f"{path}: {e}") from e

def _state(found):
    "Whole, cut or damaged, in a word"
    return "whole" if found["complete"] else "damaged" if found["damaged"] else "cut"

@app.command("info")
def _info(
    paths: Annotated[list[str], typer.Argument(metavar="FILE...", help=".slic files; - is standard input.")],
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="All that the file holds, chunk by chunk.")] = False,
    as_json: Json = False,
):
    """Show what .slic files hold.

    Size, rate, model, quality, and whether a file is whole.

    \b
    Examples:
      stanhlic info photo.slic
      stanhlic info photo.slic --verbose
      stanhlic info photo.slic --json
      stanhlic info small/*.slic
    """
    found = []
    for path in paths:
        data = files.read(path, _zoo().check_start)
        with _busy("reading"), _about_file(path): found.append(_zoo().describe_file(data))
    if as_json: _say(json.dumps(found[0] if len(found) == 1 else [{"file": p} | f for p, f in zip(paths, found)])); return
    known = lambda f: f["model"] or "unknown here"
    quality = lambda f: f"{f['quality']:.4g}" if "quality" in f else ""
    if len(found) > 1:
        rows = [(p, f"{f['width']}x{f['height']}", f["bytes"], f"{f['bpp']:.4f}", known(f), quality(f), _state(f)) for p, f in zip(paths, found)]
        _say(_table(rows, ("file", "size", "bytes", "bpp", "model", "quality", "state"))); return
    f = found[0]
    told = {"size": f"{f['width']}x{f['height']}", "bytes": f["bytes"], "bpp": f"{f['bpp']:.4f}", "model": f["model"] or "unknown here; decompress needs --model PATH",
            "quality": quality(f), "state": _state(f) + (f": {f['note']}" if f.get("note") else "")}
    told["carries"] = ", ".join([f"{k} ({n} bytes)" for k, n in f["extras"].items()] + [f"{k} (not there)" for k in f["absent"]])
    if verbose: told |= {k: v for k, v in f.items() if k not in {*told, "height", "width", "note", "complete", "damaged", "extras", "absent"} | ({"count", "partial", "declared"} if f["complete"] else set())}
    _say("\n".join(f"{k:<12} {v}" for k, v in told.items() if v != ""))

def _cuttable(header):
    "How files of this kind are cut, or one line"
    from stanhlic.zoo import file_rules
    if not file_rules(header.kind).TRUNCATABLE:
        raise StanhlicError(f"a {header.kind} file is all or nothing and cannot be cut; compress the picture again at another quality, or with an rnn or progressive model")
    return file_rules(header.kind)

def _one_cut(**given):
    "The size that was asked for, exactly one"
    given = {k: v for k, v in given.items() if v is not None}
    if len(given) != 1: raise typer.BadParameter("give exactly one of --bytes, --bpp and --layers")
    for name, value in given.items():
        if not 0 < value < float("inf"): raise StanhlicError(f"{name} {value:g} is not a positive number; choose one")
    return given

def _remade(path, data, kind):
    "May a file be replaced by a cut of the data? If it is not there, empty, no regular file, or a cut of the same data, as in a second try"
    if not os.path.isfile(path) or not os.path.getsize(path): return True
    held = files.read(path)
    try: return data.startswith(held) or kind.truncate(data, len(held)) == held
    except StanhlicError: return False

@app.command("truncate")
def _truncate(
    source: Annotated[str, typer.Argument(metavar="IN", help="A .slic file of an rnn or progressive model.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help="File to write, usually .slic. One that is there is replaced if it is a cut of IN, else only with --force.")],
    num_bytes: Annotated[int | None, typer.Option("--bytes", metavar="N", help="At most N bytes.")] = None,
    bpp: Annotated[float | None, typer.Option(metavar="B", help="At most B bits per pixel.")] = None,
    layers: Annotated[int | None, typer.Option(metavar="K", help="The first K layers; for rnn files only.")] = None,
    force: Force = False, as_json: Json = False,
):
    """Cut a .slic file down to a smaller one, without its model.

    A progressive file is cut at any byte, an rnn file after the last layer that fits.

    \b
    Examples:
      stanhlic truncate photo.slic small.slic --bytes 20000
      stanhlic truncate photo.slic small.slic --bpp 0.25
      stanhlic truncate photo.slic base.slic --layers 1
      stanhlic truncate photo.slic - --bytes 9000 | nc host 7000
    """
    given = _one_cut(bytes=num_bytes, bpp=bpp, layers=layers)
    from stanhlic.container import read_header
    from stanhlic.metrics import bytes_within
    data, job = files.read(source, _zoo().check_start), files.Job(source, files.PIPE if target in files.STDOUT else target, True)
    with _about_file(source):
        header = read_header(data)
        pixels, kind = header.height * header.width, _cuttable(header)
        files.check_target(source, job.target)
        if not force and not _remade(job.target, data, kind): raise StanhlicError(f"{target}: exists and is no cut of this file; --force replaces it")
        cut = kind.truncate(data, layers=layers) if layers else kind.truncate(data, given.get("bytes") or bytes_within(bpp, header.height, header.width))
    files.write(job, cut)
    done = dict(input=source, output=target, bytes=len(cut), bpp=8 * len(cut) / pixels, height=header.height, width=header.width)
    _emit(done, f"{target}: {len(cut)} of {len(data)} bytes, {done['bpp']:.4f} bpp", as_json, err=job.target == files.PIPE)

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
    effort: Annotated[int, typer.Option(metavar="E", min=0, max=9, help="How long the encoder refines each file that it makes, as for compress.")] = 0,
    force: Force = False, threads: Threads = None, device: Device = "auto",
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
    if "-" in (source, target, original): raise StanhlicError("-: is not a file; view reads and writes files, not pipes")
    from stanhlic.container import MAGIC
    from stanhlic.images import decode_image, read_image
    from stanhlic.view import make_page
    job = files.Job(source, target or str(Path(source).with_suffix(".html")), force or target is not None)
    start, data, target = time.monotonic(), files.read(source), job.target
    coded = data[:4] == MAGIC or Path(source).suffix == ".slic"
    if effort and coded and original is None: raise StanhlicError(f"{source}: is coded already; --effort is for a picture, or for the other stops of a stanh file with --original")
    if original is not None and not coded: raise StanhlicError(f"{source}: is a picture, and so the original itself; leave --original out")
    with _about_file(source): header = _zoo().sound_header(data) if coded else None
    picture = None if coded and original is None else read_image(original) if coded else decode_image(data, source)
    files.check_target(source, target)
    if os.path.lexists(target) and not job.replace: raise StanhlicError(f"{target}: exists already; name another page by --out, or --force replaces it")
    codec = _zoo().codec_for(header, model, device) if coded else _zoo().load_codec(model or DEFAULT_MODEL, device)
    with _about_file(source): page = make_page(codec, Path(source).name, data if coded else None, picture, stops, effort, _stop)
    files.write(job, page.text.encode())
    _remark(source, page.note)
    _say(f"{target}: {_size(len(page.text))}, {page.stops} stop{'s' * (page.stops > 1)}, {time.monotonic() - start:.0f} s; open it in a browser")

@app.command("export")
def _export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name or file.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder to write, new or empty.")],
    force: Force = False, threads: Threads = None, as_json: Json = False,
):
    """Write the networks of a model as ONNX files.

    A file for each network, of any height and width: analysis, synthesis, and the entropy networks slice by slice as a decoder needs them.
    Each is checked against torch with onnxruntime, to 1e-5. model.json names them in the order in which they run; for a stanh model it also
    holds the levels of every rate point, and the integer tables of every position on the dial lie beside it. With these a file decodes
    without Python: the page decode.html of the site does so in a browser.

    Needs pip install "stanhlic[onnx]".

    \b
    Examples:
      stanhlic export stanh-compact onnx/
      stanhlic export my-model.safetensors onnx/
    """
    if os.path.lexists(out) and not os.path.isdir(out): raise StanhlicError(f"{out}: is a file; name a folder")
    if not force and os.path.isdir(out) and os.listdir(out): raise StanhlicError(f"{out}: holds files already; name another folder, or --force writes over them")
    from stanhlic.export import OPSET, export
    rows = []
    told = lambda name, size, far: rows.append((f"{name}.onnx", _size(size), f"{far:.1e}"))
    with _busy("exporting"): path = export(_zoo().load_codec(model, "cpu"), out, told)
    if as_json: _say(path.read_text()); return
    _say(_table(rows, ("network", "size", "differs from torch")) + f"\n{path}: {len(rows)} networks of opset {OPSET}, {_size(sum(f.stat().st_size for f in Path(out).iterdir()))} in all")

def _numbers(words, option):
    "Numbers from words like `0,25,50`"
    try: return [float(w) for word in words or () for w in word.replace(",", " ").split()]
    except ValueError: raise typer.BadParameter(f"{option} takes numbers with commas between them, not '{' '.join(words)}'") from None

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
    out: Annotated[str | None, typer.Option(metavar="FILE.json", help="Result file to write; needed without --json.")] = None,
    qualities: Annotated[list[str] | None, typer.Option(metavar="Q,Q,...", help="Qualities to measure; by default 0,20,40,60,80,100, or each layer of an rnn model.")] = None,
    threads: Threads = None, device: Device = "auto", as_json: Json = False,
):
    """Measure a model on a folder of pictures.

    Each picture is written to a real file at each quality; all files are decoded in a fresh process. The result file has CompressAI's schema, with extras of our own.

    \b
    Examples:
      stanhlic eval --model stanh-zou22-compact --images kodak --out kodak.json
      stanhlic eval --model my.safetensors --images photos/ --qualities 0,50,100 --out my.json
    """
    chosen = _numbers(qualities, "--qualities")
    if out is None and not as_json: raise typer.BadParameter("give --out FILE.json, --json, or both")
    from stanhlic.evaluate import evaluate, write_results
    _zoo()
    if out: files.check_target(images, out)
    result = evaluate(model, images, chosen or None, device)
    if out: write_results(out, result)
    if as_json: _say(json.dumps(result, allow_nan=False)); return
    r, x = result["results"], result["extras"]
    show = lambda v, digits: None if v is None else f"{v:.{digits}f}"
    rows = [(f"{q:g}", *(show(v, 4) for v in (a, b)), show(p, 2), show(s, 4), show(e, 3), show(d, 3)) for q, a, b, p, s, e, d in
            zip(x["quality"], r["bpp"], x["bpp-estimated"], r["psnr-rgb"], r["ms-ssim-rgb"], r["encoding_time"], r["decoding_time"])]
    _say(_table(rows, ("quality", "bpp", "estimated", "PSNR dB", "MS-SSIM", "encode s", "decode s")))
    _remark(images, _without_similarity(x["per_image"]))

def _parts(name, manifest, parts):
    "How a data set of several collections is built, as far as that is known"
    total = sum(p["files"] for p in parts), _size(sum(p["bytes"] for p in parts))
    lines = [f"{name}: {total[0]:,} pictures, {total[1]}, from {len(parts)} collections, none of which is redistributed here"]
    for p in parts:
        lines.append(f"\n{p['family']}-*: {p['files']} files, {_size(p['bytes'])}; {p['title']}")
        lines += [f"  {label:9}{p[key]}" for label, key in (("from", "origin"), ("at", "address"), ("license", "license"), ("made", "made"), ("unknown", "unknown")) if key in p]
    return "\n".join([*lines, f"\nTo build it, put all files into one folder {name} below the folder that STANHLIC_DATA names. data/manifests/{name}.toml has the name, size and SHA-256 of each; files of other bytes are refused",
                      "under this name, and welcome under any other: stanhlic train ... --data FOLDER takes every folder of photographs.\n"])

@app.command("fetch")
def _fetch(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Data set; without it, all are listed.")] = None,
    mirror: Annotated[str | None, typer.Option(metavar="URL", help="Folder that holds the same files, instead of their origin.")] = None,
):
    """Download a data set, or list the known ones.

    Files come from their origin into the cache in your home folder and are checked by SHA-256; those already there are not downloaded again. A data set is looked for under STANHLIC_DATA, then in ./data, then in the cache.
    What cannot be fetched from one place, as the training photographs, is described: collections, licenses, counts, how the files were made, and what is not known of that.

    \b
    Examples:
      stanhlic fetch
      stanhlic fetch kodak
      stanhlic fetch train
      stanhlic fetch kodak --mirror https://example.org/kodak
    """
    from stanhlic.datasets import families, find_dataset, has_dataset, list_datasets, load_manifest
    if name is not None:
        if parts := families(name): _say(_parts(name, load_manifest(name), parts))
        if parts and not has_dataset(name) and mirror is None: raise StanhlicError(f"{name}: is not here and cannot be fetched from one place; build it as said above, or train on photographs of your own: stanhlic train ... --data FOLDER")
        found = find_dataset(name, download=True, mirror=mirror)
        _say(f"{name}: {len(found)} files, the first is {found[0]}")
        return
    size = lambda m: _size(sum(e["size"] for e in m["files"]) or m.get("archive", {}).get("size", 0)) if m["files"] or "archive" in m else ""
    rows = [(n, "here" if has_dataset(n) else "not here", len(m["files"]) or m["count"], size(m), m["title"]) for n in list_datasets() for m in [load_manifest(n)]]
    _say(_table(rows, ("name", "state", "files", "size", "title")))

@app.command("bench")
def _bench(as_json: Json = False, threads: Threads = None, device: Device = "cpu"):
    """Time the codecs on this machine.

    Transforms, entropy coding and memory are measured separately. Ratios within one run are meaningful; seconds from two machines are not comparable.

    \b
    Examples:
      stanhlic bench
      stanhlic bench --json > bench.json
    """
    _zoo()
    importlib.import_module("stanhlic.lab.bench").run(as_json, threads=threads or 2, device=device)

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
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="Stage of its training: joint, release, base, anchor, derivation or mixture (stanh); train (rnn); first, decoder or rem (progressive).")],
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
    if not earlier and Path(out, "model.safetensors").exists(): raise StanhlicError(f"{out}: holds a model that another run made; choose another --out")
    if resume and not earlier and first: _remark(out, "holds no run to resume; a new one starts")
    path = room.run(stage, profile=profile, data=data, out=out, init=init, resume=resume, device=device, set=list(overrides or []))
    if first: _say(f"{path}: {_size(path.stat().st_size)}")

@app.command("import")
def _import(
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="zou22 (STF's cnn_*.pth.tar), stanh (an anchor, then its rate points or their folder) or progressive.")],
    paths: Annotated[list[str], typer.Argument(metavar="FILE... OUT", help="The authors' files, and the .safetensors to write.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the model; by default zou22, stanh-zou22 or progressive-zou22, as profile paper of reproduce has them.")] = "",
    lambdas: Annotated[list[str] | None, typer.Option(metavar="L,L,...", help="Lambda of each rate point, which training starts from and the files do not record.")] = None,
    rems: Annotated[list[str] | None, typer.Option(metavar="Q,Q,...", help="Qualities of the REM checkpoints in percent, where the file does not record them.")] = None,
    force: Force = False,
):
    """Make a model of the weights that the authors of a method released.

    The tensors stay as they are, in full size; sizes are read off them. Keys that are missing, unexpected or of another shape are all
    listed, and then nothing is written. No code in a file is run. The new file's path works wherever a name does, its name where
    STANHLIC_MODELS is its folder.

    \b
    Examples:
      stanhlic import zou22 cnn_0067.pth.tar zou22.safetensors --lambdas 0.0067
      stanhlic import stanh anchor.pth.tar stanh/ stanh-full.safetensors
      stanhlic import progressive _very_best.pth.tar progressive-full.safetensors
      STANHLIC_MODELS=. stanhlic reproduce stanh/rd_kodak --profile paper
    """
    *given, out = paths
    if not given: raise typer.BadParameter("give the authors' files, and then the file to write")
    if not out.endswith(".safetensors"): raise StanhlicError(f"{out}: the last path is the model file to write; let it end in .safetensors")
    if os.path.lexists(out) and not force: raise StanhlicError(f"{out}: exists already; name another file, or --force replaces it")
    for path in given: files.check_target(path, out)
    numbers = _numbers(lambdas, "--lambdas"), _numbers(rems, "--rems") or None
    with warnings.catch_warnings(record=True) as remarks, _busy("importing"):
        warnings.simplefilter("always", UserWarning)
        try: made = _zoo().import_model(release, given, out, name, *numbers)
        except KeysDoNotFit as e:
            for line in e.lines: _say(line, err=True)
            raise
    for r in remarks:
        if r.category is UserWarning: _remark(release, str(r.message))
    _say(f"{out}: {made['name']}, {made['system']}, {made['parameters']:,} parameters, {_size(made['bytes'])}")

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
    from stanhlic.lab.reproduce import find_item, headline_tally, headline_verdicts, list_items, outdated, reproduce, tally
    if show:
        items = [find_item(item)] if item else list_items()
        minutes = lambda e: ", ".join(f"{k} {v:g}" for k, v in (e["minutes"] or {}).items())
        changed = lambda e: ", ".join(outdated(e, "compact")) if "compact" in e["parameters"] else ""
        _say(_table([(e["id"], e["status"], minutes(e), changed(e), e["title"]) for e in items], ("item", "status", "minutes", "changed since", "title")))
        for e in items: _say(f"\n{e['id']}: {e['paper']}, {e['item']}\n  claim  {e['claim']}\n  needs  {e['needs']}")
        rows, counts = headline_verdicts(), tally()
        said = lambda r: r["word"] if r["word"] != "needs" else next(v["verdict"] for v in r["rules"] if v["word"] == "needs")
        _say("\nheadline claims\n" + _table([(f"{r['paper']} {r['letter']}", ", ".join(dict.fromkeys(v["item"] for v in r["rules"])), said(r), r["claim"]) for r in rows], ("", "item", "held", "claim")))
        _say("\nclaims that held here, by the rules of the registry; checks of arithmetic are counted separately, as held of all\n" + _table([tuple(map(str, r.values())) for r in counts], tuple(counts[0])))
        _say("\nheadline claims\n" + _table([tuple(map(str, r.values())) for r in headline_tally()], tuple(headline_tally()[0])))
        return
    rows = reproduce(item, profile, force=force, settings=settings or [])
    see = lambda r: r["detail"] if r["outcome"] in ("needs", "left out", "failed", "up to date") else " ".join(r["outputs"]) or r["detail"]
    _say(_table([(r["id"], r["outcome"], f"{r['seconds']:.0f} s", see(r)) for r in rows], ("item", "outcome", "time", "see")))
    for r in rows:
        if r["outcome"] in ("done", "smoke", "up to date") and (text := _measured(r, find_item(r["id"]), bool(item))): _say(f"\n{text}")
    failed = [r for r in rows if r["outcome"] == "failed"]
    if failed: raise StanhlicError(failed[0]["detail"] if len(failed) == 1 else f"{len(failed)} of {len(rows)} items failed: {', '.join(r['id'] for r in failed)}; see runs/")

@app.command("selftest")
def _selftest(models: Annotated[list[str] | None, typer.Argument(metavar="MODEL...", help="Names or files of models; without any, all known ones.")] = None, threads: Threads = None, device: Device = "auto"):
    """Check that this installation works.

    Each model encodes a picture at three qualities; a fresh process decodes the files; damage must be noticed.

    \b
    Examples:
      stanhlic selftest
      stanhlic selftest stanh-compact
    """
    from stanhlic.evaluate import self_test
    _zoo()
    with _busy("testing"): rows = self_test(device, models or ())
    _say(_table([(r["model"], r["check"], "ok" if r["ok"] else "FAILED", r["detail"]) for r in rows], ("model", "check", "result", "detail")))
    if bad := [r for r in rows if not r["ok"]]: raise StanhlicError(f"{len(bad)} of {len(rows)} checks failed; the first: {bad[0]['check']}, {bad[0]['detail']}")

if __name__ == "__main__" and "__file__" in globals(): main()
