"""Keys of dictionaries and sets: for some, the C unpickler would compute for ever."""

from __future__ import annotations

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import Opaque
from ckpt_rules.limits import Limits
from ckpt_rules.readers.budget import LimitError

# Whole numbers hash to themselves up to here; beyond, any number of them can be made to collide.
_LARGEST_PLAIN_KEY = (1 << 61) - 2


_DCP = "torch.distributed.checkpoint"
_UNHASHABLE = frozenset({
    f"{_DCP}.filesystem._StorageInfo", f"{_DCP}.filesystem._StoragePrefix", f"{_DCP}.metadata.BytesStorageMetadata",
    f"{_DCP}.metadata.ChunkStorageMetadata", f"{_DCP}.metadata.Metadata", f"{_DCP}.metadata.StorageMeta",
    f"{_DCP}.metadata.TensorProperties", f"{_DCP}.metadata.TensorStorageMetadata",
})  # fmt: skip


class ByteArray(bytes):
    """What a bytearray holds; unlike bytes, it can't be a key."""

    __slots__ = ()


class KeyGuard:
    """Lets keys through to be hashed while that is cheap: not too large, and not too many that can collide by design."""

    def __init__(self, limits: Limits) -> None:
        self._odd = 0
        self._limits = limits

    def check(self, key: object) -> object:
        """The key itself; FormatError where its kind can't be hashed, LimitError where hashing could take for ever."""
        if type(key) is not str and _can_collide(key, self._limits):
            self._odd += 1
            most = self._limits.odd_keys
            if self._odd > most:
                what = f"the pickle has more than {most:,} keys that are tuples or huge numbers"
                raise LimitError.past("odd_keys", what)
        return key


def _can_collide(key: object, limits: Limits) -> bool:
    """Whether any number of keys with one hash can be made up: huge integers, and tuples and sets that hold numbers."""
    odd, left = False, [key]
    for _ in range(limits.key_parts):
        if not left:
            return odd
        part = left.pop()
        if isinstance(part, int):
            if part.bit_length() > limits.key_bits:
                raise LimitError.past("key_bits", f"a key is a number of {part.bit_length():,} bits")
            odd = odd or part is not key or not -_LARGEST_PLAIN_KEY <= part <= _LARGEST_PLAIN_KEY
        elif isinstance(part, tuple | frozenset):
            odd = odd or isinstance(part, frozenset)
            left.extend(list(part)[: limits.key_parts + 1])
        elif isinstance(part, float | complex):
            odd = odd or part is not key
        elif isinstance(part, Opaque) and part.type in _UNHASHABLE:
            raise FormatError(f"an object of class {part.type.rpartition('.')[2]} is used as a key")
        elif type(part) is ByteArray or not isinstance(part, str | bytes | Opaque | None):
            raise FormatError(f"a {type(part).__name__} is used as a key")
    raise LimitError.past("key_parts", f"a key has more than {limits.key_parts:,} parts")
