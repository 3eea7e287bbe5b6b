"""What is wrong with a stored state of a random-number generator: each has a form that its `set_state` insists on.

python: `(3, 625 numbers, None or a float)`; numpy: `("MT19937", 624 numbers, position, …)`, or a dictionary with
`bit_generator`; torch: 5,056 bytes (5,048 before torch 1.5) on the CPU, and 16 or more on a GPU.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping

from ckpt_rules.facts.tensors import Opaque, TensorInfo
from ckpt_rules.facts.training import TORCH_STATE_BYTES, RngFault
from ckpt_rules.readers.state_dicts.resemblance import RANDOM, resemblance
from ckpt_rules.readers.state_dicts.words import described, join

_PYTHON_PARTS, _PYTHON_NUMBERS = 3, 625
_PYTHON_VERSIONS = (2, 3)
_NUMPY_NUMBERS = 624
_WORD = 1 << 32
_LEAST_OF_GPU = 16
_HEAD = "<QiiQ"
_WORDS = (
    ("cuda", ("cuda",)),
    ("numpy", ("numpy", "np")),
    ("torch", ("torch", "cpu")),
    ("python", ("python", "random")),
)
_OTHER_DEVICES = frozenset({"xpu", "mlu", "musa", "npu", "hpu", "sdaa", "neuron", "xla", "xm", "mps"})


Head = Callable[[TensorInfo], bytes]


def faults_of(value: object, key: str, needed: Mapping[str, str], head: Head | None = None) -> tuple[RngFault, ...]:
    """What no generator can be set to. Where no trainer is known, only what has the form of a state is looked at.

    needed: the keys that the trainer reads, each with the generator (`python`, `numpy`, `torch`) whose state it wants
    head:   the first 24 bytes of a tensor
    """
    if not isinstance(value, Mapping):
        source = "python" if isinstance(value, list | tuple) and value and isinstance(value[0], int) else "torch"
        fault = _fault(source, value, sure=False)
        return (RngFault(key, fault, stops=True),) if fault else ()
    if not value:
        return (RngFault(key, "holds no state of any generator", stops=bool(needed)),)
    if (looks := resemblance(value)) not in (None, RANDOM):
        return (RngFault(key, f"looks like {looks}, where the states of random-number generators belong", stops=True),)
    return tuple(_in_dictionary(value, key, needed, head))


def _in_dictionary(
    value: Mapping[object, object], key: str, needed: Mapping[str, str], head: Head | None
) -> Iterator[RngFault]:
    stops = not needed.keys() & value.keys()  # some of them: a person must judge what wrote the file
    for name, source in needed.items():
        if name not in value:
            sentence = f"is missing, where the state of {source}'s generator belongs"
            yield RngFault(join(key, name), sentence, stops=stops)
    for name, state in ((str(n), s) for n, s in value.items()):
        generator = needed.get(name) or _source(name)
        fault = _fault(generator, state, sure=name in needed) if generator else None
        if not fault and head and needed.get(name) == "torch" and isinstance(state, TensorInfo):
            fault = _bounds_fault(head(state))
        if fault:
            yield RngFault(join(key, name), fault, stops=True)


def _source(name: str) -> str | None:
    words = set(name.lower().replace(".", "_").split("_"))
    if words & _OTHER_DEVICES:
        return None
    return next((source for source, names in _WORDS if words.intersection(names)), None)


def _fault(source: str, value: object, *, sure: bool) -> str | None:
    """sure: whether the trainer hands this very value to the generator, so that any other form stops it."""
    if source == "python":
        return _python_fault(value, sure=sure)
    if source == "numpy":
        return _numpy_fault(value, sure=sure)
    return _torch_fault(value, gpu=source == "cuda", sure=sure)


def _python_fault(value: object, *, sure: bool) -> str | None:
    if not isinstance(value, list | tuple) or isinstance(value, TensorInfo):
        return f"is {described(value)}, where the state of python's generator belongs" if sure else None
    if len(value) != _PYTHON_PARTS:
        return f"has {len(value):,} parts, where a state of python's generator has 3" if sure else None
    version, numbers, last = value
    if not isinstance(numbers, list | tuple) or isinstance(numbers, TensorInfo):
        return f"holds {described(numbers)}, where the 625 numbers of python's generator belong" if sure else None
    if not sure and version not in _PYTHON_VERSIONS and len(numbers) != _PYTHON_NUMBERS:
        return None
    if version not in _PYTHON_VERSIONS:
        return f"begins with {_shown(version)}, where the state of python's generator begins with its version, 3"
    if len(numbers) != _PYTHON_NUMBERS:
        return f"holds {len(numbers):,} numbers, where the state of python's generator has 625"
    if not all(_is_whole(n, below=_WORD) for n in numbers):
        return "holds something other than whole numbers of 32 bits in the state of python's generator"
    if not _is_whole(numbers[-1], below=_NUMPY_NUMBERS + 1):
        return f"says that number {numbers[-1]:,} of 624 is next in the state of python's generator"
    if last is not None and not isinstance(last, float):
        return f"ends with {_shown(last)}, where python's generator keeps None or a float"
    return None


def _is_whole(value: object, *, below: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below


def _shown(value: object) -> str:
    """A small value as it is, another in words."""
    return repr(value)[:40] if isinstance(value, int | float | str | None) else described(value)


def _numpy_fault(value: object, *, sure: bool) -> str | None:
    if isinstance(value, Mapping):
        known = "bit_generator" in value
        return None if known or not sure else "is a dictionary without bit_generator, where numpy's state belongs"
    if isinstance(value, Opaque):
        return None
    if not isinstance(value, list | tuple) or isinstance(value, TensorInfo):
        return f"is {described(value)}, where the state of numpy's generator belongs" if sure else None
    if not value or value[0] != "MT19937":
        return "does not begin with 'MT19937', as numpy's state does" if sure else None
    if len(value) > 1 and not isinstance(value[1], Opaque | list | tuple):
        return f"holds {_shown(value[1])}, where the 624 numbers of numpy's generator belong"
    held = value[1] if len(value) > 1 else ()
    if isinstance(held, TensorInfo) and held.shape != (_NUMPY_NUMBERS,):
        return f"holds {described(held)}, where the 624 numbers of numpy's generator belong"
    numbers = _length(held)
    if numbers is not None and numbers != _NUMPY_NUMBERS:
        return f"holds {numbers:,} numbers, where the state of numpy's generator has 624"
    return _numpy_end_fault(value)


def _numpy_end_fault(value: list[object] | tuple[object, ...]) -> str | None:
    """What follows the numbers: the position, and of normally distributed numbers whether one is left over, and which."""
    if len(value) < 3:
        return "ends before the position of numpy's generator"
    if len(value) == 4:
        return "ends before the last number of the state of numpy's generator"
    position, left_over = value[2], value[3:5]
    if not isinstance(position, Opaque) and not _is_whole(_integral(position), below=_NUMPY_NUMBERS + 1):
        return f"says that number {_shown(position)} of 624 is next in the state of numpy's generator"
    odd = [v for v in left_over if not isinstance(v, int | float | Opaque)]
    if odd:
        return f"has {_shown(odd[0])} where the state of numpy's generator ends with two numbers"
    flag = left_over[0] if left_over else 0
    if not isinstance(flag, Opaque) and _integral(flag) not in (0, 1):
        return f"has {_shown(flag)} where numpy's generator keeps 0 or 1: whether a number is left over"
    return None


def _integral(value: object) -> object:
    """A float cut to a whole number, as numpy takes it; anything else as it is."""
    return int(value) if isinstance(value, float) and math.isfinite(value) else value


def _length(array: object) -> int | None:
    """How many numbers a numpy array has that a pickle builds, or a list of them; None where it can't be told."""
    if isinstance(array, TensorInfo):
        return array.shape[0] if len(array.shape) == 1 else None
    if isinstance(array, Opaque):
        parts = array.state if isinstance(array.state, tuple) else array.args
        shapes = [p for p in parts if isinstance(p, tuple) and len(p) == 1 and isinstance(p[0], int)]
        return int(shapes[0][0]) if shapes else None
    return len(array) if isinstance(array, list | tuple) else None


def _torch_fault(value: object, *, gpu: bool, sure: bool) -> str | None:
    if isinstance(value, list | tuple) and not isinstance(value, TensorInfo):
        tensors = [v for v in value if isinstance(v, TensorInfo)]
        if sure and not gpu:
            return f"is a list of {len(value):,}, where a tensor of 5,056 bytes belongs"
        return next((f for t in tensors if (f := _bytes_fault(t, gpu=True))), None)
    if isinstance(value, TensorInfo):
        return _bytes_fault(value, gpu=gpu or not sure)
    return f"is {described(value)}, where the state of torch's generator belongs" if sure else None


def _bytes_fault(tensor: TensorInfo, *, gpu: bool) -> str | None:
    """gpu: whether it may be the state of a GPU's generator, which is shorter."""
    wanted = "a uint8 tensor of 16 bytes or more" if gpu else "a uint8 tensor of 5,056 bytes"
    size = math.prod(tensor.shape) if tensor.shape else 0
    right = size >= _LEAST_OF_GPU if gpu else size in TORCH_STATE_BYTES
    if tensor.dtype == "uint8" and right:
        return None
    return f"is {described(tensor)}, where {wanted} belongs"


def _bounds_fault(head: bytes) -> str | None:
    """What torch's generator on the CPU refuses of its first numbers: a seed, how many are left, 1, and which is next."""
    if len(head) < struct.calcsize(_HEAD):
        return None
    _, left, seeded, following = struct.unpack_from(_HEAD, head)
    if seeded != 1 or not 0 < left <= _NUMPY_NUMBERS or following > _NUMPY_NUMBERS:
        return (
            f"begins with the numbers {left:,}, {seeded:,} and {following:,} after the seed, which torch refuses as no state "
            "of its generator"
        )
    return None
