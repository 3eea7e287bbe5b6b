"""Arrays in the pickles of joblib: their numbers lie in the file itself, behind the object that describes them.

Source: `NumpyArrayWrapper.read_array` in joblib/numpy_pickle.py.
"""

from __future__ import annotations

import re
from math import prod
from typing import TYPE_CHECKING

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import Opaque

if TYPE_CHECKING:
    from ckpt_rules.readers.pickle.stack import Machine

WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"
_DTYPE = re.compile(r"[<>|=]?([a-zA-Z?])(\d*)")
_HAS_OBJECTS = 1
_STATE_PARTS = 8
_UNICODE_NBYTES = 4


def skip_array(machine: Machine, wrapper: Opaque) -> bool:
    """Step over the numbers that follow the description of an array; False where a pickle follows in their place.

    FormatError where they can't be found.
    """
    state = wrapper.state
    if not isinstance(state, dict) or not isinstance(dtype := state.get("dtype"), Opaque):
        raise FormatError("an array of joblib has no dtype")
    if machine.frame_end > machine.pos:
        raise FormatError("an array of joblib is announced inside of a frame")
    machine.frame_end = 0
    itemsize = _itemsize(dtype)
    if itemsize is None:
        return False
    shape = state.get("shape")
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise FormatError("an array of joblib has no shape")
    if state.get("numpy_array_alignment_bytes") is not None:
        machine.take(machine.take(1)[0])
    machine.take(prod(shape) * itemsize)
    return True


def _itemsize(dtype: Opaque) -> int | None:
    """Bytes of one element; None of an object."""
    found = _DTYPE.fullmatch(str(dtype.args[0])) if dtype.args else None
    if found is None:
        raise FormatError("an array of joblib has a dtype that is not known")
    kind, digits = found.groups()
    flags = dtype.state[-1] if isinstance(dtype.state, tuple) and len(dtype.state) >= _STATE_PARTS else 0
    if kind == "O" or (isinstance(flags, int) and flags & _HAS_OBJECTS):
        return None
    return int(digits or 1) * (_UNICODE_NBYTES if kind == "U" else 1)
