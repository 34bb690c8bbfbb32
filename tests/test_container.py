"""Round trips, every flip, every cut and golden bytes of stanhlic.container."""
import json
import tracemalloc
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from stanhlic.container import (KINDS, MAX_PARAMS, VERSIONS, Header, describe, pack, read_header, unpack, unpack_prefix)
from stanhlic.entropy import write_varint
from stanhlic.errors import StanhlicError

HEADER = Header("progressive", b"\x01\x23\x45\x67\x89\xab\xcd\xef", 300, 7, b"pq")
CHUNKS = [b"base layer", b"", b"the rest of it"]
FILE = pack(HEADER, CHUNKS)
HEAD = len(pack(HEADER, []))


def refused(call, *args):
    with pytest.raises(StanhlicError) as caught: call(*args)
    assert "\n" not in str(caught.value) and ";" in str(caught.value)


def forge(height=300, width=7, params=b"pq", count=0, version=VERSIONS["progressive"], kind=3, size=None):
    "A header with a correct checksum over whatever is in it"
    numbers = write_varint(height) + write_varint(width) + write_varint(len(params) if size is None else size)
    head = b"SLIC" + bytes([version, kind]) + HEADER.fingerprint + numbers + params + write_varint(count)
    return head + zlib.crc32(head).to_bytes(4, "little")


headers = st.builds(Header, st.sampled_from(["stanh", "rnn", "progressive"]), st.binary(min_size=8, max_size=8),
    st.integers(1, 4096), st.integers(1, 65_535), st.binary(max_size=60))


@settings(max_examples=60, deadline=None)
@given(headers, st.lists(st.binary(max_size=300), max_size=6))
def test_round_trip(header, chunks):
    data = pack(header, chunks)
    assert unpack(data) == (header, chunks) and read_header(data) == header
    assert unpack_prefix(data).complete and unpack(bytearray(data)) == (header, chunks)


def test_overhead():
    small = Header("stanh", bytes(8), 512, 768, bytes(6))
    assert len(pack(small, [bytes(30_000)])) - 30_000 <= 40
    assert len(pack(replace(small, height=16_384, width=16_384), [bytes(300_000)])) - 300_000 <= 40


def test_every_cut_is_refused():
    for size in range(len(FILE)): refused(unpack, FILE[:size])


def test_every_flipped_bit_is_refused():
    for bit in range(8 * len(FILE)):
        data = bytearray(FILE)
        data[bit // 8] ^= 1 << bit % 8
        refused(unpack, bytes(data))


def test_every_cut_gives_the_chunks_that_are_whole():
    ends = [HEAD + sum(len(c) + 5 for c in CHUNKS[:n]) for n in range(len(CHUNKS) + 1)]
    for size in range(HEAD): refused(unpack_prefix, FILE[:size])
    for size in range(HEAD, len(FILE)):
        found = unpack_prefix(FILE[:size])
        whole = sum(end <= size for end in ends) - 1
        assert found.chunks == CHUNKS[:whole] and not found.damaged and not found.complete and found.count == 3
        received = size - ends[whole]
        assert found.tail == CHUNKS[whole][:max(0, received - 1)]
        assert found.declared == (len(CHUNKS[whole]) if received else 0)


def test_flips_never_reach_a_chunk():
    for bit in range(8 * len(FILE)):
        data = bytearray(FILE)
        data[bit // 8] ^= 1 << bit % 8
        try: found = unpack_prefix(bytes(data))
        except StanhlicError: continue
        assert bit >= 8 * HEAD and found.chunks == CHUNKS[:len(found.chunks)] and not found.complete


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.booleans())
def test_hostile_bytes(tail, ours):
    data = FILE[:HEAD] + tail if ours else tail
    for read in (unpack, read_header, unpack_prefix, describe):
        try: read(data)
        except StanhlicError as error: assert "\n" not in str(error)


def test_trailing_and_moved_bytes_are_refused():
    refused(unpack, FILE + b"\0")
    refused(unpack_prefix, FILE + b"\0")
    two = pack(HEADER, [b"aaaa", b"bbbb"])
    swapped = two[:HEAD] + two[HEAD + 9:] + two[HEAD:HEAD + 9]
    refused(unpack, swapped)
    other = pack(replace(HEADER, width=8), CHUNKS)
    refused(unpack, FILE[:HEAD] + other[HEAD:])


@pytest.mark.parametrize("fields", [dict(height=0), dict(width=0), dict(height=65_536), dict(height=65_535, width=65_535),
    dict(height=2**34), dict(params=bytes(MAX_PARAMS + 1)), dict(size=2**34), dict(count=2**34), dict(kind=0), dict(kind=9),
    dict(version=VERSIONS["progressive"] + 1), dict(version=0)])
def test_absurd_headers_are_refused_before_anything_is_allocated(fields):
    data = forge(**fields)
    tracemalloc.start()
    try:
        for read in (read_header, unpack, unpack_prefix, describe): refused(read, data)
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally: tracemalloc.stop()


def test_an_absurd_chunk_length_allocates_nothing():
    data = forge(count=1) + write_varint(2**35 - 1) + b"x"
    refused(unpack, data)
    found = unpack_prefix(data)
    assert found.tail == b"x" and found.declared == 2**35 - 1


def test_a_misspelled_length_is_damage():
    found = unpack_prefix(forge(count=1) + b"\xff" * 9)
    assert found.damaged and found.tail == b""
    refused(unpack, forge(count=1) + b"\x80\x00" + b"x" * 9)


@pytest.mark.parametrize("change", [dict(kind="jpeg"), dict(fingerprint=b"short"), dict(height=0), dict(width=65_536),
    dict(height=60_000, width=60_000), dict(params=bytes(MAX_PARAMS + 1))])
def test_bad_headers_are_not_written(change): refused(pack, replace(HEADER, **change), [])


def test_describe():
    facts = describe(FILE)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["chunks"] == [10, 0, 14] and facts["complete"] and facts["fingerprint"] == "0123456789abcdef"
    assert facts["bpp"] == 8 * len(FILE) / 2100 and facts["bytes"] == len(FILE)
    assert describe(FILE[:-5])["partial"] == 13


def test_each_codec_counts_its_own_versions():
    for code, kind in KINDS.items():
        data = pack(replace(HEADER, kind=kind), [])
        assert data[4:6] == bytes([VERSIONS[kind], code]) and describe(data)["version"] == VERSIONS[kind]
        refused(read_header, forge(version=VERSIONS[kind] + 1, kind=code))


def test_golden_bytes():
    "A change here is a change of format: raise container.VERSIONS"
    assert FILE.hex() == GOLDEN


GOLDEN = "534c494306030123456789abcdefac020702707103682fa1ba0a62617365206c6179657222fd8e29005e97d6e60e7468652072657374206f6620697452d54d42"
