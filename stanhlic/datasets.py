"""Know every file by its hash, find it where the machine has it, fetch it only when asked."""

import contextlib, hashlib, http.client, os, threading, time, urllib.error, urllib.request
from pathlib import Path
import numpy as np
import stanhlic
from tqdm import tqdm
from .errors import StanhlicError, needs
from .images import find_files, is_image_name, read_image

def _manifest_folder():
    "Where the manifests are: inside the installed package, else in the repository"
    package = Path(stanhlic.__file__).resolve().parent
    for folder in (package / "manifests", package.parent / "data" / "manifests"):
        if folder.is_dir(): return folder
    raise StanhlicError("the data set manifests are missing from this installation; install stanhlic again")

def list_datasets() -> list:  # names
    """Names of the data sets that have a manifest."""
    return sorted(p.stem for p in _manifest_folder().glob("*.toml"))

def load_manifest(
    name: str,  # data set
) -> dict:      # name, title, license, origin, files = [{path, size, sha256, pixels?, url?}]
    """Manifest of a data set; raises `StanhlicError` for an unknown name."""
    import tomllib
    if name not in list_datasets(): raise StanhlicError(f"unknown data set '{name}'; known: {', '.join(list_datasets())}")
    manifest = tomllib.loads((_manifest_folder() / f"{name}.toml").read_text())
    if "url" in manifest:
        for f in manifest["files"]: f.setdefault("url", manifest["url"].format(path=f["path"]))
    return manifest

def pixel_hash(
    array: np.ndarray,  # picture, uint8 (H, W, 3)
) -> str:               # 64 hex digits
    """SHA-256 of a picture's RGB bytes, rows from the top."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()

def is_file_of(
    path: str | Path,  # local file
    entry: dict,       # its line of the manifest: sha256, pixels (optional)
) -> bool:             # the same file, or the same pixels
    """Does a file agree with its manifest?"""
    with open(path, "rb") as f: same = hashlib.file_digest(f, "sha256").hexdigest() == entry["sha256"]
    if same or "pixels" not in entry: return same
    try: return pixel_hash(read_image(path)) == entry["pixels"]
    except StanhlicError: return False

def cache_folder() -> Path:  # need not exist yet
    """The user's cache: $STANHLIC_CACHE, else $XDG_CACHE_HOME/stanhlic, else ~/.cache/stanhlic. Raises `StanhlicError` for a user without a home folder."""
    if os.environ.get("STANHLIC_CACHE"): return Path(os.environ["STANHLIC_CACHE"])
    try: return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stanhlic"
    except RuntimeError: raise StanhlicError("this user has no home folder, so there is no place for data sets; set STANHLIC_CACHE to a folder") from None

def search_folders(
    name: str,  # data set
) -> list:      # folders where it is looked for, in order
    """Places where a data set may be."""
    given, places = os.environ.get("STANHLIC_DATA"), [Path("data") / name]
    if given: places.insert(0, Path(given) / name)
    with contextlib.suppress(StanhlicError): places.append(cache_folder() / name)
    return places

def _entries(name, prefix=""):
    "Manifest lines whose path starts with the prefix"
    entries = [e for e in load_manifest(name)["files"] if e["path"].startswith(prefix)]
    if not entries: raise StanhlicError(f"data set {name} has no file that starts with '{prefix}'")
    return entries

def _locate(name, entries):
    "First folder that holds all the files, or None"
    for folder in search_folders(name):
        if all((folder / e["path"]).is_file() for e in entries): return folder

def _counted(name, manifest):
    "Pictures of a set that is known by their number, in the first folder that has so many, or none"
    for folder in search_folders(name):
        found = find_files(folder, is_image_name)[0] if folder.is_dir() else []
        if len(found) == manifest["count"]: return found
    return []

def _unpack(name, manifest):
    "Pictures of an archive, into the cache"
    import zipfile
    archive = download(manifest["archive"]["url"], cache_folder() / f"{name}.zip", manifest["archive"])
    (folder := cache_folder() / name).mkdir(exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as z:
            for member in z.infolist():
                file = Path(member.filename).name
                if not member.is_dir() and is_image_name(file) and not file.startswith("."): (folder / file).write_bytes(z.read(member))
    except (zipfile.BadZipFile, OSError) as e: raise StanhlicError(f"{archive}: cannot be unpacked ({e}); delete it and fetch {name} again") from e
    archive.unlink()

def families(
    name: str,  # data set
) -> list:      # rows: family, files, bytes, and title, license, origin, address, made, unknown as the manifest has them; none for a set of one piece
    """The collections that a data set was put together from, and what is known of how."""
    manifest = load_manifest(name)
    own = lambda family: [e for e in manifest["files"] if e["path"].startswith(f"{family}-")]
    return [{"family": k, "files": len(own(k)), "bytes": sum(e["size"] for e in own(k))} | f for k, f in manifest.get("families", {}).items()]

def _how_to_get(name, manifest):
    "The second half of a refusal"
    place = f"set STANHLIC_DATA to the folder that holds {name}/"
    if "url" in manifest or "archive" in manifest: return f"{place}, or download it: stanhlic fetch {name}"
    return manifest.get("get", place)

def find_dataset(
    name: str,              # data set
    download: bool = False, # fetch it into the cache if this machine has none
    prefix: str = "",       # only files whose path starts with this
    verify: bool = True,    # compare every file with the manifest (0.2 s per 100 MB)
    mirror: str | None = None, # of a download: address of a folder that holds the same files
) -> list:                  # paths, in the order of the manifest
    """Files of a data set, checked.

    Raises `StanhlicError` for an unknown set, one that is missing here, or a file that does not match the manifest."""
    manifest = load_manifest(name)
    if "count" in manifest: return _find_counted(name, manifest, download)
    entries = _entries(name, prefix)
    folder = _locate(name, entries)
    if folder is None:
        if download: return fetch(name, mirror, prefix=prefix)
        near = [(sum((f / e["path"]).is_file() for e in entries), f) for f in search_folders(name)]
        have, where = max(near, key=lambda x: x[0])
        found = f"incomplete: {where} has {have} of {len(entries)} files" if have else "not on this machine"
        raise StanhlicError(f"data set {name} is {found}; {_how_to_get(name, manifest)}")
    if verify:
        for e in entries:
            if not is_file_of(folder / e["path"], e):
                raise StanhlicError(f"{folder / e['path']}: not the file that data set {name} lists (SHA-256 differs); fetch it again")
    return [folder / e["path"] for e in entries]

def _find_counted(name, manifest, download):
    "Pictures of a set that is known by their number; raises `StanhlicError` if it is not here"
    if not (found := _counted(name, manifest)) and download and "archive" in manifest:
        _unpack(name, manifest)
        found = _counted(name, manifest)
    if not found: raise StanhlicError(f"data set {name} is not on this machine, or not with its {manifest['count']} pictures; {_how_to_get(name, manifest)}")
    return found

def has_dataset(
    name: str,         # data set
    prefix: str = "",  # only files whose path starts with this
) -> bool:             # all files are here; hashes are not checked
    """Is a data set available?"""
    if "count" in (manifest := load_manifest(name)): return bool(_counted(name, manifest))
    return _locate(name, _entries(name, prefix)) is not None

PATIENCE, SLOWEST = 30, 1000  # seconds; bytes a second, over so many seconds, below which a server is given up

def _answer(request):
    "The reply to a request, or what went wrong; a server may take its time for each byte of it, but not for all"
    said = []
    def ask():
        try: said.append(urllib.request.urlopen(request, timeout=PATIENCE))
        except BaseException as e: said.append(e)
    thread = threading.Thread(target=ask, daemon=True); thread.start(); thread.join(PATIENCE)
    if not said: raise TimeoutError("the server does not answer")
    if isinstance(said[0], BaseException): raise said[0]
    return said[0]

def _blocks(reply):
    "What a server sends, as it comes; raises `TimeoutError` for one that trickles"
    start, got = time.monotonic(), 0
    while block := reply.read1(1 << 16):
        yield block
        got, passed = got + len(block), time.monotonic() - start
        if passed > PATIENCE:
            if got < SLOWEST * passed: raise TimeoutError(f"the server sends {got / passed:.0f} bytes a second")
            start, got = time.monotonic(), 0

def _receive(url, part, limit, bar):
    "One request, appended to the part file; returns whether it is complete"
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "stanhlic"} | ({"Range": f"bytes={have}-"} if have else {}))
    with _answer(request) as reply:
        resumed = reply.status == 206 and reply.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        left = reply.headers.get("Content-Length")
        bar.reset(total=int(left) + (have if resumed else 0) if left else None)
        if resumed: bar.update(have)
        with open(part, "ab" if resumed else "wb") as f:
            got = 0
            for block in _blocks(reply):
                f.write(block); bar.update(len(block)); got += len(block)
                if f.tell() > limit: raise StanhlicError(f"{url}: sends more than {limit} bytes, far over the manifest; try another mirror")
    return left is None or got == int(left)

@contextlib.contextmanager
def _alone(folder):
    "Wait until no other process downloads into a folder; the system lets go of what a killed one held"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):  # systems without such locks
            import fcntl
            fd = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield

def download(
    url: str,               # http, https or file address
    path: str | Path,       # where the file goes
    entry: dict,            # manifest line: size, sha256, pixels (optional)
    progress: bool = True,  # draw a bar
    attempts: int = 3,      # connections before giving up
) -> Path:                  # the file
    """Download one file, resuming what an earlier attempt left, and check it; one that another process has fetched meanwhile is taken as it is.

    Raises `StanhlicError` if it cannot be downloaded (the part is kept, to resume later) or does not match the manifest (the part is deleted)."""
    path = Path(path); part = path.with_name(path.name + ".part")
    try: path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e: raise StanhlicError(f"{path.parent}: cannot be created ({e.strerror}); choose another folder") from e
    with _alone(path.parent):
        if not (path.is_file() and is_file_of(path, entry)): _download(url, part, entry, progress, attempts); os.replace(part, path)
    return path

def _download(url, part, entry, progress, attempts):
    "The part file, complete and checked"
    why, done = "", False
    with tqdm(desc=part.stem, unit="B", unit_scale=True, leave=False, disable=not progress) as bar:
        for _ in range(attempts):
            try:
                done = _receive(url, part, 4 * entry["size"] + (1 << 20), bar)
                why = "the connection broke"
            except urllib.error.HTTPError as e:
                why, done = f"the server answers {e.code} {e.reason}", e.code == 416 and part.exists()
                if not done and e.code < 500: break
            except (urllib.error.URLError, http.client.HTTPException, OSError) as e: why = str(getattr(e, "reason", None) or e)
            if done: break
    if not done:
        kept = f"; {part.stat().st_size} bytes are kept, run again to resume" if part.exists() else "; check the network or give a mirror"
        raise StanhlicError(f"{url}: cannot be downloaded ({why}){kept}")
    if not is_file_of(part, entry):
        part.unlink()
        raise StanhlicError(f"{url}: not the file the manifest lists (SHA-256 differs); try again or another mirror")

def fetch(
    name: str,                  # data set
    mirror: str | None = None,  # address of a folder that holds the same files, instead of the origin
    folder: str | Path | None = None,  # target, default <cache>/<name>
    prefix: str = "",           # only files whose path starts with this
    progress: bool = True,      # draw bars
) -> list:                      # paths, in the order of the manifest
    """Download a data set into the cache; files already there and correct are not fetched again.

    Raises `StanhlicError` if the set has no address, or as `download` does."""
    manifest, entries = load_manifest(name), _entries(name, prefix)
    folder = Path(folder) if folder else cache_folder() / name
    if mirror is None and "url" not in manifest: raise StanhlicError(f"data set {name} cannot be downloaded from one place; {_how_to_get(name, manifest)}")
    paths = []
    for e in tqdm(entries, desc=name, unit="file", disable=not progress):
        path = folder / e["path"]
        if not (path.is_file() and is_file_of(path, e)):
            download(f"{mirror.rstrip('/')}/{e['path']}" if mirror else e["url"], path, e, progress)
        paths.append(path)
    return paths

def sample_photograph(
    side: int | None = None,  # reduce so that the longer side has this many pixels
) -> np.ndarray:              # uint8 (600, 512, 3) or smaller
    """The photograph that ships inside matplotlib; raises `StanhlicError` if that is not installed."""
    with needs("figures"): from matplotlib import get_data_path
    from PIL import Image
    array = read_image(Path(get_data_path()) / "sample_data" / "grace_hopper.jpg")
    if side is None: return array
    im = Image.fromarray(array); im.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.array(im)

def demo_images(
    limit: int | None = None,  # at most this many
) -> tuple:                    # ([(name, uint8 (H, W, 3)), ...], one line saying what they are)
    """Kodak if it is available, else the sample photograph; the line says which, and belongs under every figure.

    Raises `StanhlicError` if Kodak is present but damaged."""
    if has_dataset("kodak"):
        files = find_dataset("kodak")[:limit]
        return [(p.name, read_image(p)) for p in files], f"Kodak, {len(files)} of 24 images"
    return [("grace_hopper.jpg", sample_photograph())], "matplotlib's sample photograph, not Kodak: set STANHLIC_DATA or run `stanhlic fetch kodak` for real numbers"
