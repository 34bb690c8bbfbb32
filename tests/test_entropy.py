"""Round trips, hostile bytes, cuts and golden bytes of stanhlic.entropy."""
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from stanhlic.entropy import (PRECISION, PrefixDecoder, SymbolDecoder, SymbolEncoder, Tables, decode_integers,
    encode_integers, integer_tables, prefix_count, read_varint, state_crc, write_varint)
from stanhlic.errors import StanhlicError

quick = settings(max_examples=60, deadline=None)


def make(seed, typical=True, max_symbols=300):
    "Random tables, and a message that follows them or sticks to their ends"
    rng = np.random.default_rng(seed)
    rows, cols = int(rng.integers(1, 6)), int(rng.integers(2, 40))
    tables = Tables(integer_tables(rng.dirichlet(np.full(cols, rng.choice([0.02, 0.2, 1.0])), rows)))
    indexes = rng.integers(0, rows, int(rng.integers(0, max_symbols)))
    if typical: symbols = np.array([rng.choice(cols, p=tables.freq[i] / 2**PRECISION) for i in indexes], int)
    else: symbols = rng.choice([0, cols - 1], len(indexes))
    return tables, symbols, indexes


@quick
@given(st.lists(st.lists(st.floats(0, 1e300), min_size=3, max_size=3), min_size=1, max_size=4))
def test_tables_sum_exactly(rows):
    pmf = np.array(rows)
    if (pmf.sum(1) == 0).any():
        with pytest.raises(StanhlicError): integer_tables(pmf)
        return
    freq = integer_tables(pmf)
    assert freq.dtype == np.int64 and (freq >= 1).all() and (freq.sum(1) == 2**PRECISION).all()
    share = pmf / pmf.sum(1, keepdims=True) * (2**PRECISION - 3) + 1
    assert (abs(freq - share) <= 1.001).all()


@pytest.mark.parametrize("bad", [[[1, np.nan]], [[1, np.inf]], [[2, -1]], [[0, 0]], [1, 2], [[1.0]], np.ones((0, 4)),
    [[1e308, 1e308, 1e308]], np.ones((1, 70_000))])
def test_bad_probabilities_are_refused(bad):
    with pytest.raises(StanhlicError): integer_tables(bad)


@pytest.mark.parametrize("bad", [np.ones((1, 4), int), np.ones((1, 4)), np.array([[2**24 + 1, -1]]), np.array([2**24])])
def test_bad_frequencies_are_refused(bad):
    with pytest.raises(StanhlicError): Tables(bad)


@quick
@given(st.integers(0, 2**32), st.booleans(), st.booleans())
def test_round_trip(seed, in_order, typical):
    tables, symbols, indexes = make(seed, typical)
    encoder = SymbolEncoder().encode(symbols, indexes, tables, in_order)
    first = encoder.bytes()
    assert np.array_equal(SymbolDecoder(first).decode(indexes, tables, in_order), symbols)
    decoder = SymbolDecoder(encoder.encode(symbols[::-1], indexes[::-1], tables).bytes())
    assert np.array_equal(decoder.decode(indexes, tables, in_order), symbols)
    assert np.array_equal(decoder.decode(indexes[::-1], tables), symbols[::-1])
    assert len(first) <= tables.bits(symbols, indexes).sum() / 8 + 0.0057 * len(symbols) / 8 + 2


def test_shapes_and_many_tables():
    tables = Tables(integer_tables(np.random.default_rng(0).random((300, 5))))
    indexes = np.arange(600).reshape(2, 300) % 300
    data = SymbolEncoder().encode(indexes % 5, indexes, tables).bytes()
    out = SymbolDecoder(data).decode(indexes, tables)
    assert out.shape == (2, 300) and out.dtype == np.int32 and np.array_equal(out, indexes % 5)


@pytest.mark.parametrize("symbols,indexes", [([5], [0]), ([-1], [0]), ([0], [2]), ([0], [-1]), ([0, 1], [0]), ([0.5], [0]), ([0], [0.0])])
def test_bad_symbols_are_refused(symbols, indexes):
    tables = Tables(integer_tables(np.ones((2, 5))))
    with pytest.raises(StanhlicError): SymbolEncoder().encode(symbols, indexes, tables)
    with pytest.raises(StanhlicError): tables.bits(symbols, indexes)


@quick
@given(st.integers(0, 2**32), st.binary(max_size=40))
def test_hostile_bytes_end_in_symbols_or_a_refusal(seed, data):
    tables, _, indexes = make(seed)
    try:
        out = SymbolDecoder(data).decode(indexes, tables)
        assert out.shape == indexes.shape and (out >= 0).all() and (out < tables.freq.shape[1]).all()
    except StanhlicError as error: assert "\n" not in str(error)
    assert len(PrefixDecoder(data).decode(indexes, tables)) <= len(indexes)


@quick
@given(st.integers(0, 2**32), st.booleans(), st.data())
def test_a_byte_prefix_is_a_symbol_prefix(seed, typical, data):
    tables, symbols, indexes = make(seed, typical)
    stream = SymbolEncoder().encode(symbols, indexes, tables, in_order=True).bytes()
    cut = data.draw(st.integers(0, len(stream)))
    decoder = PrefixDecoder(stream[:cut])
    known = decoder.decode(indexes, tables)
    assert np.array_equal(known, symbols[:len(known)])
    assert decoder.exhausted == (len(known) < len(symbols))
    if decoder.exhausted: assert len(decoder.decode(indexes, tables)) == 0
    if typical: assert prefix_count(tables.bits(symbols, indexes), cut) <= len(known)


def test_every_cut_of_one_stream():
    tables, symbols, indexes = make(5, max_symbols=2000)
    indexes = np.sort(indexes)
    stream = SymbolEncoder().encode(symbols := np.minimum(symbols, 1), indexes, tables, in_order=True).bytes()
    counts = [len(PrefixDecoder(stream[:n]).decode(indexes, tables)) for n in range(len(stream) + 1)]
    assert counts == sorted(counts) and len(stream) > 50
    for n, count in enumerate(counts):
        assert np.array_equal(PrefixDecoder(stream[:n]).decode(indexes, tables), symbols[:count])


def test_prefix_in_several_calls_equals_one_call():
    tables, symbols, indexes = make(11)
    stream = SymbolEncoder().encode(symbols, indexes, tables, in_order=True).bytes()
    decoder, third = PrefixDecoder(stream[:len(stream) // 2]), len(indexes) // 3
    parts = [decoder.decode(part, tables) for part in (indexes[:third], indexes[third:])]
    assert np.array_equal(np.concatenate(parts), PrefixDecoder(stream[:len(stream) // 2]).decode(indexes, tables))


def test_margin_covers_long_sparse_streams():
    rng = np.random.default_rng(3)
    for chance in (1e-2, 1e-4):
        tables = Tables(integer_tables([[1 - chance, chance]]))
        symbols, indexes = (rng.random(300_000) < chance).astype(int), np.zeros(300_000, int)
        stream = SymbolEncoder().encode(symbols, indexes, tables, in_order=True).bytes()
        bits = tables.bits(symbols, indexes)
        for cut in range(0, len(stream), 1 + len(stream) // 20):
            assert prefix_count(bits, cut) <= len(PrefixDecoder(stream[:cut]).decode(indexes, tables))


@quick
@given(st.lists(st.integers(-2**31, 2**31 - 1), max_size=50), st.binary(max_size=4))
def test_integer_lists(values, before):
    data = before + encode_integers(values)
    out, end = decode_integers(data, len(values), len(before))
    assert out.tolist() == values and end == len(data)
    for cut in range(len(before), len(data)):
        with pytest.raises(StanhlicError): decode_integers(data[:cut], len(values), len(before))


@quick
@given(st.binary(max_size=30))
def test_hostile_integer_lists(data):
    try: values, end = decode_integers(data, 10)
    except StanhlicError: return
    assert encode_integers(values) == data[:end]


def test_integer_bounds():
    for bad in ([2**31], [-2**31 - 1], [0.5]):
        with pytest.raises(StanhlicError): encode_integers(bad)
    with pytest.raises(StanhlicError): decode_integers(write_varint(2**34), 2**40)
    with pytest.raises(StanhlicError): write_varint(-1)
    with pytest.raises(StanhlicError): write_varint(2**35)
    with pytest.raises(StanhlicError): read_varint(b"\x80\x00")


def test_state_crc():
    a = np.arange(6)
    assert state_crc(a) == state_crc(a.astype(np.int16)) == state_crc(np.asfortranarray(a.reshape(2, 3))) == 0x7688708F
    for bad in ([0.5], [2**31]):
        with pytest.raises(StanhlicError): state_crc(bad)


def test_golden_bytes():
    "A change here is a change of format: raise container.VERSIONS"
    freq = integer_tables([[8, 4, 2, 1, 1], [1, 1, 1, 1, 0], [0, 0, 3, 1, 0]])
    assert freq[:, 0].tolist() == [8388607, 4194304, 1] and Tables(freq).crc == GOLDEN_CRC
    symbols, indexes = [0, 1, 2, 3, 4, 0, 2, 2, 3, 1], [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert SymbolEncoder().encode(symbols, indexes, Tables(freq)).bytes().hex() == GOLDEN_GROUPED
    assert SymbolEncoder().encode(symbols, indexes, Tables(freq), in_order=True).bytes().hex() == GOLDEN_IN_ORDER


GOLDEN_CRC, GOLDEN_GROUPED, GOLDEN_IN_ORDER = 0x8d7fed9c, "769ffe8634a119fec0", "367fff5f7de01a41a8"
