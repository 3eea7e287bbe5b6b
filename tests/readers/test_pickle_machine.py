"""The pickle machine: the values that pickle makes of plain data, nothing run, and an end to everything."""

from __future__ import annotations

import array
import collections
import copyreg
import datetime as dt
import os
import pickle
import pickletools
import random
import struct
import sys
import tracemalloc

import pytest

from ckpt_rules.facts.tensors import Opaque
from ckpt_rules.limits import DEFAULT_LIMITS, Limits
from ckpt_rules.readers.budget import Budget
from ckpt_rules.readers.pickle.bounded import RECURSION, TOO_DEEP, bounded
from ckpt_rules.readers.pickle.machine import Unpickled, unpickle
from ckpt_rules.readers.pickle.opcodes import TABLE
from ckpt_rules.readers.pickle.plain_objects import PlainBuilder


def run(data: bytes, **limits: int) -> Unpickled:
    given = Limits(**limits)
    return unpickle(data, PlainBuilder(given), stream="object", budget=Budget(given))


def problem(data: bytes):
    result = run(data)
    assert not result.readable
    assert result.value is None
    (found,) = result.problems
    assert found.fatal
    return found


class Values:
    """Plain values of all kinds, nested at random."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def value(self, depth: int = 0):
        kinds = [self.leaf] if depth > 4 else [self.leaf, self.leaf, self.list, self.tuple, self.dict, self.set]
        return self.rng.choice(kinds)(depth)

    def leaf(self, depth: int = 0):
        rng = self.rng
        numbers = [
            0,
            255,
            256,
            65_536,
            -1,
            -(2**31),
            2**31,
            rng.getrandbits(200),
            -rng.getrandbits(64),
            0.0,
            -1.5,
            1e300,
            2j,
        ]
        texts = ["", "x" * 300, "naïve 權重", "a\nb'\\", b"", b"\0\xff" * 200, b"b"]
        return rng.choice([None, True, False, float("inf"), *numbers, *texts])

    def list(self, depth: int):
        return [self.value(depth + 1) for _ in range(self.rng.randrange(5))]

    def tuple(self, depth: int):
        return tuple(self.list(depth))

    def dict(self, depth: int):
        return {self.leaf(): self.value(depth + 1) for _ in range(self.rng.randrange(5))}

    def set(self, depth: int):
        return self.rng.choice([set, frozenset])(self.leaf() for _ in range(self.rng.randrange(4)))


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_those_that_pickle_makes(protocol):
    for seed in range(60):
        value = Values(seed).value()
        data = pickle.dumps(value, protocol)
        result = run(data)
        assert (result.readable, result.end, result.problems) == (True, len(data), ())
        assert repr(result.value) == repr(pickle.loads(data))


def test_pickles_as_the_optimiser_of_the_standard_library_writes_them():
    value = [{"a": [1, 2]}] * 3
    for protocol in range(6):
        assert run(pickletools.optimize(pickle.dumps(value, protocol))).value == value


def test_every_opcode_is_known():
    codes = {ord(op.code) for op in pickletools.opcodes}
    assert set(TABLE) == codes


def test_subclasses_keep_what_they_hold():
    class Numbers(list):
        pass

    Numbers.__qualname__ = "Numbers"
    sys.modules[__name__].Numbers = Numbers
    numbers = Numbers([1, 2])
    numbers.unit = "ms"
    value = run(pickle.dumps([numbers, dt.date(2024, 1, 2), array.array("i", [7])])).value
    assert (value[0].type, value[0].items, value[0].state) == (f"{__name__}.Numbers", [1, 2], {"unit": "ms"})
    assert (value[1].type, value[1].args) == ("datetime.date", (b"\x07\xe8\x01\x02",))
    assert value[2].type == "array._array_reconstructor"


class Point:
    def __init__(self, x) -> None:
        self.x = x


@pytest.mark.parametrize("protocol", range(6))
def test_objects_of_unknown_classes_are_kept_shut(protocol):
    value = run(pickle.dumps({"p": Point(3)}, protocol)).value["p"]
    assert (value.type, value.state) == (f"{__name__}.Point", {"x": 3})


def test_an_object_is_no_class():
    """Pickle itself stops there: `NEWOBJ class argument must be a type`."""
    assert run(b"\x80\x04cmodels\nNet\n)\x81)\x81.").readable  # what a call returned may be one
    assert (
        "an object of the class models.Net is taken for a class"
        in problem(b"\x80\x04cmodels\nNet\n)\x81}b)\x81.").message
    )


def test_keyword_arguments_of_a_class_are_kept():
    class Named:
        def __getnewargs_ex__(self):
            return (1,), {"size": 2}

    Named.__qualname__ = "Named"
    sys.modules[__name__].Named = Named
    value = run(pickle.dumps(object.__new__(Named), 4)).value
    assert (value.args, value.kwargs) == ((1,), {"size": 2})


class Evil:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_is_recorded_and_not_made(protocol):
    result = run(pickle.dumps([Evil()], protocol))
    assert [g.dotted for g in result.globals] == ["posix.system"]
    assert (result.value[0].type, result.value[0].args) == ("posix.system", ("exit 1",))


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"cos\nsystem\n(S'id'\ntR.", "os.system"),
        (b"(S'id'\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nS'id'\no.", "os.system"),
        (b"\x80\x02cos\nsystem\n)\x81.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93.", "os.system"),
        (b"\x80\x04X\x02\0\0\0osX\x06\0\0\0system\x93.", "os.system"),
        (b"\x80\x04\x8c\x09torch.foo\x8c\x0bos.system.x\x93.", "torch.foo.os.system.x"),
        (b"\x80\x02cos\nsystem\n0N.", "os.system"),
        (b"\x80\x02}cos\nsystem\n)RNs.", "os.system"),
        (b"\x80\x02c__builtin__\neval\n.", "builtins.eval"),
        (b"\x80\x02ccopy_reg\n_reconstructor\n.", "copyreg._reconstructor"),
        (b"\x80\x03c__builtin__\neval\n.", "builtins.eval"),
        (b"\x80\x02cos\nsystem\n\xff", "os.system"),
        (b"\x80\x02cos\nsystem\nX\xff\xff\xff\x7f", "os.system"),
    ],
)
def test_every_way_to_name_a_global_is_seen(data, found):
    assert [g.dotted for g in run(data).globals] == [found]


def test_a_global_has_the_offset_of_its_opcode():
    result = run(b"\x80\x02K\x01cos\nsystem\n\x86.")
    assert [g.offset for g in result.globals] == [4]
    at_10 = unpickle(b"\0" * 10 + b"\x80\x02cos\nsystem\n.", PlainBuilder(), stream="s", start=10)
    assert [(g.offset, g.stream) for g in at_10.globals] == [(2, "s")]


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (b"\x80\x02" + b"(" * 3_000 + b".", "limit", "nests deeper than 2,000"),
        (b"\x80\x02N" + b"r\xff\xff\xff\x7f" + b".", "limit", "numbers a value 2,147,483,647 after 0 values"),
        (b"\x80\x02Np30000000\n.", "limit", "numbers a value 30,000,000 after 0 values"),
        (b"\x80\x02Np-1\n.", "limit", "numbers a value -1"),
        (b"\x80\x02" + b"]" * 1_700_000 + b".", "limit", "would exceed the 112 MiB memory limit"),
        (b"\x80\x04" + b"\x8f" * 500_000 + b".", "limit", "would exceed the 112 MiB memory limit"),
        (b"\x80\x02(" + b"J\x01\x02\x03\x04" * 4_000_000 + b"t.", "limit", "would exceed the 112 MiB memory limit"),
        (b"\x80\x02" + b"N0" * 5_100_000 + b".", "limit", "goes past 10,000,000 opcodes in one file"),
        (b"\x80\x02\x8b" + struct.pack("<i", 5_000) + b"\x01" * 5_000 + b".", "limit", "a number of 5,000 bytes"),
        (b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "pickle", "announces 9,223,372,036,854,775,807 bytes"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.", "pickle", "announces a frame of 9,223,372,036,854,775,807"),
        (b"\x80\x02T\xff\xff\xff\xff.", "pickle", "announces -1 bytes"),
        (b"\x80\x02I" + b"9" * 10_000 + b"\n.", "pickle", "can't be carried out"),
        (b"\x80\x02\x82\x07.", "pickle", "copyreg extension 7"),
        (b"\x80\x05\x97.", "pickle", "buffers outside of the file"),
        (b"\x80\x02NQ.", "pickle", "kept outside of the pickle"),
        (b"\x80\x06.", "pickle", "has protocol 6"),
        (b"", "pickle", "without its STOP opcode"),
        (b"\x80\x02", "pickle", "without its STOP opcode"),
        (b"\x80\x02.N", "pickle", "takes a value from an empty stack"),
        (b"\x80\x02\x85N.", "pickle", "takes a value from an empty stack"),
        (b"\x80\x02N(\x85.N.", "pickle", "takes a value from an empty stack"),
        (b"\x80\x02h\x05.", "pickle", "asks for value 5, which was never stored"),
        (b"\x80\x02Nq\x01h\x00.", "pickle", "asks for value 0, which was never stored"),
        (b"\x80\x02\xff.", "pickle", "opcode 0xff of the pickle object is not a pickle opcode"),
        (b"\x80\x02]K\x01s.", "pickle", ""),
        (b"\x80\x02]K\x01K\x02s.", "pickle", "items are set in a list"),
        (b"\x80\x02}K\x01a.", "pickle", "items are appended to a dict"),
        (b"\x80\x02}]Ns.", "pickle", "a list is used as a key"),
        (
            b"\x80\x02}ctorch.distributed.checkpoint.filesystem\n_StorageInfo\n)\x81Ns.",
            "pickle",
            "an object of class _StorageInfo is used as a key",
        ),
        (b"\x80\x02}(K\x01u.", "pickle", "a key without a value"),
        (b"\x80\x02K\x01)R.", "pickle", "a int is called as if it were a function"),
        (b"\x80\x02cos\nsystem\nNR.", "pickle", "arguments that are not a tuple"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "pickle", "arguments that it does not take"),
        (b"\x80\x04K\x01K\x02\x93.", "pickle", "asked for by something that is not text"),
        (b"\x80\x02X\x02\0\0\0\xff\xfe.", "pickle", "can't be carried out"),
        (b"\x80\x02S'abc\n.", "pickle", "not in quotes"),
    ],
)  # fmt: skip
def test_a_pickle_made_to_exhaust_or_confuse_ends_as_a_problem(data, code, said):
    found = problem(data)
    assert found.code == code
    assert said in found.message


def test_an_opcode_that_straddles_its_frame_is_told_from_one_that_does_not():
    body = pickle.dumps(["abc"], 4)[11:]
    framed = b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body
    assert run(framed).value == ["abc"]
    short = b"\x80\x04\x95" + struct.pack("<Q", 4) + body
    assert "straddles the end of its frame" in problem(short).message
    nested = b"\x80\x04\x95" + struct.pack("<Q", 20) + b"\x95" + struct.pack("<Q", 2) + b"N0" + b"N" * 9 + b"."
    assert "opens a frame inside another" in problem(nested).message


def test_a_large_pickle_in_several_frames_is_read_whole():
    value = ["x" * 1_000 for _ in range(200)] + [b"y" * 200_000, "z"]
    assert run(pickle.dumps([dict(enumerate(value)), value], 4)).value == [dict(enumerate(value)), value]


def test_a_byte_string_of_python_2_that_is_no_utf8():
    result = run(b"\x80\x02U\x02\xff\xfe.")
    assert (result.value, result.readable) == (b"\xff\xfe", True)
    assert "encoding='latin1'" in result.problems[0].message
    assert run(b"\x80\x02U\x02ok.").value == "ok"


def doubled(levels: int, last: bytes) -> bytes:
    """A value that holds the one before it twice, and so on."""
    return (
        b"\x80\x02"
        + last
        + b"".join(b"q" + bytes([i]) + b"0h" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(levels))
    )


class TestKeys:
    def test_whose_hash_would_never_end(self):
        data = doubled(64, b")") + b"q\xf0"[:0]
        found = problem(data + b"q@0}h@Ns.")
        assert (found.code, found.message) == (
            "limit",
            "a key has more than 1,000 parts (a ruleset can raise this: `limits: {key_parts: …}`)",
        )

    def test_in_great_numbers_that_collide(self):
        collide = {i * (2**61 - 1): None for i in range(90)}
        assert run(pickle.dumps(collide, 2), odd_keys=100).value == collide
        for keys in (
            {i * (2**61 - 1): None for i in range(200)},
            {(i, i): None for i in range(200)},
            {(i, i) for i in range(200)},
        ):
            data = pickle.dumps(keys, 2)
            (found,) = run(data, odd_keys=100).problems
            assert (found.code, "more than 100 keys" in found.message) == ("limit", True)
            assert "`limits: {odd_keys: …}`" in found.message
            assert run(data, odd_keys=200).value == keys

    def test_in_great_numbers_that_do_not(self):
        usual = {
            **dict.fromkeys(range(300)),
            **{(str(i), "b"): i for i in range(300)},
            **{i / 3: i for i in range(300)},
        }
        assert run(pickle.dumps(usual, 2), odd_keys=100).value == usual

    def test_that_are_huge_numbers(self):
        assert "a key is a number of" in problem(pickle.dumps({2**5_000: 1}, 2)).message


class TestBounds:
    def test_a_list_that_holds_itself(self):
        loop: list = [1]
        loop.append(loop)
        value = run(pickle.dumps(loop)).value
        assert (value[0], value[1].type) == (1, RECURSION)

    def test_a_tuple_in_its_own_list(self):
        inside: list = []
        pair = (inside, "kept")
        inside.append(pair)
        value = run(pickle.dumps({"a": pair})).value
        assert value["a"][0][0].type == RECURSION
        assert value["a"][1] == "kept"

    def test_an_object_that_knows_its_parent(self):
        parent = Point([])
        child = Point(parent)
        parent.x.append(child)
        value = run(pickle.dumps([parent, child])).value
        assert value[0].state["x"][0].state["x"].type == RECURSION
        assert value[1] is value[0].state["x"][0]

    def test_a_dictionary_that_holds_itself_everywhere(self):
        loop: dict = {}
        loop.update({"a": loop, "b": [loop], "c": (loop, {"d": loop})})
        value = run(pickle.dumps(loop)).value
        found = [value["a"], value["b"][0], value["c"][0], value["c"][1]["d"]]
        assert [item.type for item in found] == [RECURSION] * 4

    def test_lists_without_bottom_are_cut(self):
        value = run(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".").value
        for _ in range(DEFAULT_LIMITS.levels):
            (value,) = value
        assert value.type == TOO_DEEP

    def test_tuples_without_bottom_are_cut(self):
        value = run(b"\x80\x02N" + b"\x85" * 100_000 + b".").value
        for _ in range(DEFAULT_LIMITS.levels):
            (value,) = value
        assert value.type == TOO_DEEP

    def test_what_is_shared_at_two_depths_is_cut_at_the_deeper(self):
        shared: list = []
        for _ in range(150):
            shared = [shared]
        deep: list = shared
        for _ in range(100):
            deep = [deep]
        value = run(pickle.dumps([shared, deep])).value
        levels = 0
        while isinstance(value, list) and value:
            value, levels = value[-1], levels + 1
        assert levels <= DEFAULT_LIMITS.levels + 1

    def test_sharing_that_multiplies(self):
        assert "unfolds into more than 8,000,000 values" in problem(doubled(64, b")") + b".").message
        assert run(doubled(10, b")") + b".").readable

    def test_sharing_as_such_is_kept(self):
        shared = [1]
        value = run(pickle.dumps({"a": shared, "b": shared})).value
        assert value["a"] is value["b"]

    def test_parts_of_objects_that_are_cut(self):
        opaque = Opaque("x", args=(1, []), kwargs={"k": []})
        opaque.args[1].append(opaque)
        opaque.kwargs["k"].append(opaque)
        opaque.items.append(opaque)
        opaque.pairs.append((opaque, opaque))
        opaque.state = (opaque,)
        value, was_cut = bounded(opaque, DEFAULT_LIMITS)
        assert not was_cut
        cut = [value.args[1][0], value.kwargs["k"][0], value.items[0], *value.pairs[0], value.state[0]]
        assert [part.type for part in cut] == [RECURSION] * 6


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02" + b"]" * 2_000_000,
        b"\x80\x02(" + b"N" * 2_000_000,
        b"\x80\x02]q\x00" + b"h\x00" * 1_000_000,
        b"\x80\x04" + b"N\x94" * 1_000_000,
        b"\x80\x02" + b"(" * 2_000_000,
        b"\x80\x04" + b"\x8c\x04\xf0\x9f\x98\x80" * 300_000,
        b"\x80\x02}(" + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(300_000)) + b"u",
        b"\x80\x02ccollections\nOrderedDict\nq\x00" + b"h\x00)R" * 400_000,
        b"\x80\x02" + b"".join(b"cos\nsystem%d\n" % i for i in range(50_000)),
        b"\x80\x02c_codecs\nencode\nq\x00X\x00\x00\x10\x00" + b"a" * (1 << 20) + b"q\x01" + b"h\x00h\x01\x85R" * 100_000,
        b"\x80\x02cbuiltins\nlist\nq\x00(" + b"N" * 100_000 + b"lq\x01" + b"h\x00h\x01\x85R" * 100_000,
    ],
    ids=["lists", "nothings", "gets", "memo", "marks", "texts", "keys", "calls", "globals", "copies", "copied lists"],
)  # fmt: skip
def test_no_pickle_takes_more_memory_than_is_allowed(data):
    tracemalloc.start()
    result = run(data, memory=10, opcodes=1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not result.readable
    assert peak < 18 << 20


def test_names_are_kept_apart_from_their_module():
    result = run(b"\x80\x04\x8c\x0bcollections\x8c\x0bOrderedDict\x93)R.")
    assert result.value == {}
    result = run(b"\x80\x04\x8c\x00\x8c\x17collections.OrderedDict\x93)R.")
    assert isinstance(result.value, Opaque)


def test_extension_codes_are_never_looked_up():
    copyreg.add_extension("collections", "OrderedDict", 77)
    try:
        data = pickle.dumps(collections.OrderedDict(a=1), 2)
        assert b"\x82M" in data
        assert "copyreg extension 77" in problem(data).message
    finally:
        copyreg.remove_extension("collections", "OrderedDict", 77)


class TestLimitsThatARulesetRaises:
    """Each bound is named where it is met, and with another number the same file is read."""

    @pytest.mark.parametrize(
        ("limit", "value", "data"),
        [
            ("marks", 3, b"(" * 5 + b"t" * 5 + b"."),
            ("memo_gap", 10, b"Nr\xff\x00\x00\x00."),
            ("key_parts", 4, pickle.dumps({(1, 2, 3, 4, 5, 6): 1}, 2)),
            ("key_bits", 64, pickle.dumps({1 << 100: 1}, 2)),
            ("enclosed", 1, pickle.dumps([pickle.dumps([n, 2], 2) for n in range(3)], 3)),
        ],
    )
    def test_each(self, limit, value, data):
        (found,) = run(data, **{limit: value}).problems
        assert (found.code, f"`limits: {{{limit}: …}}`" in found.message) == ("limit", True)
        assert run(data).readable
