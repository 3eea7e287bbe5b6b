"""A pickle machine that builds nothing but inert values, and knows the byte of everything it does.

It runs protocols 0 to 5 as the C unpickler does, with two differences: no callable is ever called, known constructors
become the plain values that they would have made and anything else an `Opaque`; and every resource is bounded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import GlobalRef, ReadProblem
from ckpt_rules.readers.pickle_opcodes import TABLE
from ckpt_rules.readers.pickle_stack import Builder, LimitError, Machine, Stop

MAX_NBYTES = 64 << 20
MAX_OPCODES = 4_000_000
BINPUT, LONG_BINPUT = b"qr"


@dataclass(frozen=True, slots=True)
class Unpickled:
    """One pickle. `end` is the byte behind its STOP; `value` is None where it broke, what it asked for is kept."""

    value: object
    globals: tuple[GlobalRef, ...]
    protocol: int
    end: int
    problems: tuple[ReadProblem, ...] = ()

    @property
    def readable(self) -> bool:
        """Whether the pickle ran to its STOP."""
        return not any(p.fatal for p in self.problems)


def unpickle(data: bytes, builder: Builder, *, stream: str, start: int = 0, base: int = 0) -> Unpickled:
    """Run the pickle that starts at `data[start]`.

    stream: what to call it in facts (`data.pkl`)
    base:   byte of `data[0]` in the file, so that problems name bytes of the file
    """
    machine = Machine(data, builder, stream, start)
    fault = _run(machine)
    problems = () if fault is None else (ReadProblem(fault[0], fault[1], base + machine.at, stream),)
    value = machine.stack[-1] if fault is None else None
    return Unpickled(value, tuple(machine.globals), machine.protocol, machine.pos, problems)


def _run(machine: Machine) -> tuple[str, str] | None:
    """Run to STOP; else the code and the sentence of the fault, with `at` on the opcode to blame."""
    data, memo, table = machine.data, machine.memo, TABLE
    try:
        for _ in range(MAX_OPCODES):
            machine.at = at = machine.pos
            code = data[at]
            # A third of what torch writes are these two: without a call each, the whole run takes a quarter less.
            if code == BINPUT:
                memo[data[at + 1]] = machine.stack[-1]
                machine.pos = at + 2
            elif code == LONG_BINPUT:
                memo[int.from_bytes(data[at + 1 : at + 5], "little")] = machine.stack[-1]
                machine.pos = at + 5
            else:
                machine.pos = at + 1
                table[code](machine)
    except Stop:
        return None
    except FormatError as error:
        return ("limit" if isinstance(error, LimitError) else "pickle"), error.reason
    except (IndexError, struct.error):
        if machine.pos >= machine.size - 1:
            return "pickle", f"the pickle {machine.stream} ends after {machine.size:,} bytes without its STOP opcode"
        return "pickle", f"{_opcode(machine)} takes a value from an empty stack"
    except KeyError:
        return "pickle", f"{_opcode(machine)} is no pickle opcode, or asks for a value that was never stored"
    except (TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        return "pickle", f"{_opcode(machine)} can't be carried out: {error}"
    return "limit", f"the pickle {machine.stream} has more than {MAX_OPCODES:,} opcodes"


def _opcode(machine: Machine) -> str:
    return f"opcode 0x{machine.data[machine.at]:02x} of the pickle {machine.stream}"
