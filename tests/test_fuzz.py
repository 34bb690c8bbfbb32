"""The fuzzer of `tests/fuzz.py`: a few cases each time, a minute with --slow; its corpus decodes, and it finds what it is there to find."""
import fuzz
import numpy as np
import pytest

from stanhlic.errors import StanhlicError


def told(failures): return "\n".join(f"{kind} {number}: {wrong.splitlines()[-1]}" for kind, number, wrong in failures)


@pytest.mark.parametrize("kind", fuzz.SYSTEMS)
def test_the_corpus_decodes(kind):
    """If a format has changed: `python -m tests.fuzz --corpus`."""
    shapes = sorted(picture.shape for _, picture in fuzz.files(kind))
    assert shapes == sorted([(80, 112, 3), (64, 64, 3), (64, 64, 3), (1, 1, 3), (3, 130, 3), (40, 40, 3), (48, 72, 3)])
    assert sum(p.stat().st_size for p in fuzz.CORPUS.iterdir()) < 700_000


@pytest.mark.long
@pytest.mark.parametrize("kind", list(fuzz.TARGETS))
def test_cases_of_every_kind(kind):
    done, failures = fuzz.run(kinds=(kind,), count=40, report=lambda text: None)
    assert (done, told(failures)) == ({kind: 40}, "")


@pytest.mark.slow
def test_a_minute(): assert told(fuzz.run(60, first=10 ** 6, report=lambda text: None)[1]) == ""


def test_a_case_follows_from_its_number():
    for kind in fuzz.TARGETS: assert fuzz.run_case(kind, 7)[0] == fuzz.run_case(kind, 7)[0] != fuzz.run_case(kind, 8)[0]


@pytest.mark.parametrize("fault, words", [(lambda *a: 1 / 0, "ZeroDivisionError"), (lambda *a: np.zeros((9, 9, 3), np.uint8), "a picture uint8"), (lambda *a: np.zeros(1), "a picture float64"),
                                          (StanhlicError("two\nlines"), "a refusal of 9 characters"), (StanhlicError("x" * 999), "a refusal of 999"), (StanhlicError(""), "a refusal of 0")], ids=range(6))
def test_what_is_wrong_is_found(fault, words, monkeypatch):
    codec = type(fuzz.codec_of("stanh"))
    def image(self, layers=None):
        if isinstance(fault, Exception): raise fault
        return fault()
    fuzz.files("stanh")
    monkeypatch.setattr(codec.reader, "image", image)
    whole = fuzz.files("stanh")[0][0]
    monkeypatch.setitem(fuzz.TARGETS, "stanh", lambda rng: (whole, lambda: fuzz.read_everything("stanh", whole, rng, False)))
    assert words in fuzz.run_case("stanh", 0)[1]


def test_a_case_that_hangs_is_found(monkeypatch):
    def hang(rng):
        def forever():
            while True: pass
        return b"", forever
    monkeypatch.setitem(fuzz.TARGETS, "stanh", hang)
    real = fuzz.patience
    monkeypatch.setattr(fuzz, "patience", lambda: real(1))
    assert "no answer after 1 s" in fuzz.run_case("stanh", 0)[1]


def test_the_command(monkeypatch, capsys):
    monkeypatch.setattr(fuzz, "run", lambda seconds, kinds, first: ({"rnn": 3}, []))
    assert fuzz.main(["1", "rnn"]) == 0 and capsys.readouterr().out.endswith("3 rnn cases; 0 wrong\n")
    assert fuzz.main(["--case", "pictures", "3"]) == 0
    monkeypatch.setitem(fuzz.TARGETS, "pictures", lambda rng: (b"", lambda: 1 / 0))
    assert fuzz.main(["--case", "pictures", "3"]) == 1
