"""Files that our readers and the real loaders once differed in: what each says of them now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.differential.answers import ours, theirs
from tests.differential.compare import difference

CORPUS = Path(__file__).parent / "corpus"

# Name of the file, the codes that we report, and the exception that its loader raises.
CASES = [
    ("dtype-by-number.safetensors", "dtype", "SafetensorError"),
    ("zip64-field-past-its-record.zip", "directory", "RuntimeError"),
    ("zip64-field-cut-inside-a-number.zip", "directory", "RuntimeError"),
    ("end-record-out-of-reach.zip", "directory", "ValueError"),
    ("bytes-before-the-first-entry.zip", "not-torch", "UnpicklingError"),
    ("entry-compressed-to-nothing.zip", "entry-header", "RuntimeError"),
    ("format-version-of-another-length.zip", "entry-header", "RuntimeError"),
    ("torchscript-behind-a-zero-byte.zip", "unsafe-load", "RuntimeError"),
    ("hole-after-a-name-given-twice.safetensors", "hole", "SafetensorError"),
    ("opcode-dup.zip", "unsafe-load", "UnpicklingError"),
    ("opcode-of-protocol-0.legacy", "unsafe-load", "UnpicklingError"),
    ("torchscript.zip", "unsafe-load", "RuntimeError"),
    ("untyped-storage.legacy", "pickle", "AttributeError"),
    ("storage-in-the-system-information.legacy", "pickle", "UnpicklingError"),
    ("storage-keys-are-a-number.legacy", "pickle", "TypeError"),
    ("metadata-of-a-tensor-is-a-number.zip", "pickle", "AssertionError"),
    ("conjugate-of-real-numbers.zip", "pickle", "RuntimeError"),
    ("nested-tensor-without-arguments.zip", "pickle", "TypeError"),
    ("wrapper-subclass-without-arguments.legacy", "pickle", "TypeError"),
    ("tensor-from-numpy-of-a-number.zip", "pickle", "TypeError"),
    ("parameter-of-three-arguments.zip", "pickle", "TypeError"),
    ("parameter-of-a-text.zip", "pickle", "AttributeError"),
    ("encode-of-a-name.zip", "pickle", "TypeError"),
    ("bytearray-as-a-key.zip", "pickle", "TypeError"),
    ("shape-of-true-after-one.zip", "pickle", "TypeError"),
    ("state-of-a-plain-dictionary.zip", "pickle", "UnpicklingError"),
    ("layout-of-an-unknown-name.zip", "pickle", "KeyError"),
    ("size-of-a-text.zip", "pickle", "TypeError"),
    ("function-taken-for-a-class.zip", "pickle", "TypeError"),
    ("float8-that-requires-gradients.zip", "pickle", "RuntimeError"),
    ("sparse-with-more-values-than-indices.zip", "pickle", "RuntimeError"),
    ("quantised-by-an-unknown-scheme.zip", "pickle", "RuntimeError"),
    ("quantised-without-bytes.zip", "pickle", "NotImplementedError"),
    ("encode-of-a-device.zip", "pickle", "TypeError"),
    ("empty-storage-made-larger.legacy", "storage-bounds", ""),
    ("compressed-storage-of-another-size.zip", "entry-header", "RuntimeError"),
    ("metadata-named-by-half-a-pair.legacy", "pickle", "TypeError"),
    ("zero-point-of-65-bits.legacy", "pickle", "ValueError"),
    ("state-of-a-tensor.legacy", "pickle", ""),
    ("sparse-of-too-many-elements.zip", "pickle", "RuntimeError"),
    ("storage-of-two-types.zip", "", ""),
    ("size-of-booleans.zip", "", ""),
    ("python-2-name-in-protocol-3.zip", "", ""),
    ("counter-of-a-list.zip", "", ""),
    ("new-dictionary-drops-its-arguments.zip", "", ""),
]


@pytest.mark.parametrize(("name", "codes", "refusal"), CASES, ids=[name for name, _, _ in CASES])
def test_the_answers_are_those_that_were_agreed_on(name, codes, refusal):
    file_format, data = name.rpartition(".")[2], (CORPUS / name).read_bytes()
    mine, other = ours(file_format, data), theirs(file_format, data)
    assert [code for code, _ in mine.faults] == codes.split()
    assert [kind for kind, _ in other.faults] == refusal.split()
    if not codes and not refusal:
        assert difference(file_format, mine.value, other.value) == ""


def test_every_file_of_the_corpus_is_tested():
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(name for name, _, _ in CASES)
