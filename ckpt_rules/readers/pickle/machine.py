"""A pickle machine that builds nothing but inert values, and knows the byte of everything it does.

It runs protocols 0 to 5 as the C unpickler does, with two differences: no callable is ever called, known constructors
become the plain values that they would have made and anything else an `Opaque`; and every resource is bounded.
"""

from __future__ import annotations

import gc
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import GlobalRef, ReadProblem
from ckpt_rules.readers.budget import Budget, LimitError
from ckpt_rules.readers.pickle.bounded import bounded
from ckpt_rules.readers.pickle.enclosed import Enclosed
from ckpt_rules.readers.pickle.opcodes import TABLE, UNNOTED
from ckpt_rules.readers.pickle.stack import UNSET, Builder, Ended, FrameOpened, Machine, Stop

BLOCK = 4_096
BINGET, BININT1, BINPUT, LONG_BINPUT = b"hKqr"
LONG_BINGET, MEMOIZE = b"j\x94"
_U4 = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Unpickled:
    """One pickle. What it asked for is kept where it broke; `value` is then None and `readable` False.

    end:      the byte behind its STOP, or where it broke
    ended:    whether it broke because its bytes are at an end
    enclosed: bytes in it that look loadable themselves
    refused:  why torch's weights-only loader does not take it, though other unpicklers do
    """

    value: object
    globals: tuple[GlobalRef, ...]
    protocol: int
    end: int
    readable: bool = True
    ended: bool = False
    problems: tuple[ReadProblem, ...] = ()
    enclosed: tuple[Enclosed, ...] = ()
    refused: ReadProblem | None = None


def unpickle(  # noqa: PLR0913 - a stretch of bytes, what is made of it, and what that may take
    data: bytes,
    builder: Builder,
    *,
    stream: str,
    budget: Budget | None = None,
    start: int = 0,
    base: int = 0,
    made: Callable[[bytes, Builder, str, int, Budget], Machine] = Machine,
) -> Unpickled:
    """Run the pickle that starts at `data[start]`.

    stream: what to call it in facts (`data.pkl`)
    budget: drawn on for what is built
    base:   byte of `data[0]` in the file, so that problems name bytes of the file
    made:   makes the machine
    """
    budget = budget or Budget()
    machine = made(data, builder, stream, start, budget)
    machine.run_inner = _run_inner
    value = None
    problems = []
    readable = ended = False
    try:
        with _collector_paused():
            _run(machine)
        value, was_cut = bounded(machine.stack[-1], budget.limits)
        if was_cut:
            limit = LimitError.past("levels", f"values nested deeper than {budget.limits.levels} levels are left out")
            problems.append(ReadProblem(limit.code, limit.reason, base + machine.at, stream, fatal=False))
        readable = True
        budget.room = machine.room
    except FormatError as error:  # not kept: its traceback would keep the whole machine
        code = "limit" if isinstance(error, LimitError) else "pickle"
        problems.append(ReadProblem(code, error.reason, base + machine.at, stream))
        ended = isinstance(error, Ended)
    problems[:0] = [ReadProblem("pickle", message, base + at, stream) for message, at in machine.notes]
    globals_ = (
        *(_as_called(g, machine, start) for g in machine.globals),
        *(g._replace(offset=g.offset - start) for g in machine.inner),
    )
    refused = None
    if machine.refused:
        what, at = machine.refused
        refused = ReadProblem("weights-only", f"the pickle {stream} {what}", base + at, stream, fatal=False)
    return Unpickled(
        value,
        globals_,
        machine.protocol,
        machine.pos,
        readable,
        ended,
        tuple(problems),
        tuple(machine.enclosed),
        refused,
    )


def _as_called(ref: GlobalRef, machine: Machine, start: int) -> GlobalRef:
    """The name with what became of it, and its byte counted from the start of the pickle."""
    known = None if ref.reached else machine.known.get((ref.module, ref.name))
    called, given = (known.called, known.given) if known else (ref.reached, ref.reached)
    network = not given and ref.dotted in machine.networks
    return ref._replace(offset=ref.offset - start, called=called, given=given, network=network)


def _run_inner(machine: Machine) -> None:
    """Step over a pickle that lies in the middle of this one, and note what it asks for."""
    budget, start = machine.budget, machine.pos
    budget.room, room = machine.room, budget.room
    inner = unpickle(machine.data, machine.builder, stream=machine.stream, budget=budget, start=start)
    machine.room, budget.room = budget.room, room
    machine.inner.extend(g._replace(offset=g.offset + start) for g in inner.globals)
    machine.enclosed.extend(inner.enclosed)
    if not inner.readable:
        fault = inner.problems[-1].message if inner.problems else "a pickle inside of it breaks"
        raise Ended(fault) if inner.ended else FormatError(fault)
    machine.pos = inner.end


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Nothing that is built is garbage before the end: to look for some again and again takes a tenth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _run(machine: Machine) -> None:
    """Run to STOP; FormatError with the sentence of the fault, and `at` on the opcode to blame."""
    budget = machine.budget
    try:
        while budget.opcodes > 0:
            budget.opcodes -= BLOCK
            machine.check_room()
            try:
                _steps(machine)
            except FrameOpened:
                continue
            end_frame(machine)
    except Stop:
        return
    except struct.error:
        raise Ended(_without_stop(machine)) from None
    except IndexError:
        if machine.at + 1 >= machine.size:
            raise Ended(_without_stop(machine)) from None
        raise FormatError(f"{_opcode(machine)} takes a value from an empty stack") from None
    except KeyError:
        raise FormatError(f"{_opcode(machine)} is not a pickle opcode") from None
    except (TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        raise FormatError(f"{_opcode(machine)} can't be carried out: {error}") from None
    most = budget.limits.opcodes
    raise LimitError.past("opcodes", f"the pickle {machine.stream} goes past {most:,} opcodes in one file")


def _steps(machine: Machine) -> None:
    """Run a block of opcodes, or to the end of the frame."""
    data, memo = machine.data, machine.memo
    is_refused = machine.refused is not None
    table = UNNOTED if is_refused else TABLE
    end = machine.frame_end or machine.size
    for _ in range(BLOCK):
        machine.at = at = machine.pos
        if at >= end:
            return
        code = data[at]
        # Half of what torch writes are these: without a call each, the whole run takes a third less.
        if code == LONG_BINPUT and _U4.unpack_from(data, at + 1)[0] == len(memo):
            memo.append(machine.stack[-1])
            machine.pos = at + 5
        elif code == BINGET and data[at + 1] < len(memo) and (value := memo[data[at + 1]]) is not UNSET:
            machine.stack.append(value)
            machine.pos = at + 2
        elif code == BININT1:
            machine.stack.append(data[at + 1])
            machine.pos = at + 2
        elif code == BINPUT and data[at + 1] == len(memo):
            memo.append(machine.stack[-1])
            machine.pos = at + 2
        elif code == MEMOIZE and is_refused:
            memo.append(machine.stack[-1])
            machine.pos = at + 1
        elif (
            code == LONG_BINGET
            and (index := _U4.unpack_from(data, at + 1)[0]) < len(memo)
            and (value := memo[index]) is not UNSET
        ):
            machine.stack.append(value)
            machine.pos = at + 5
        else:
            machine.pos = at + 1
            table[code](machine)


def end_frame(machine: Machine) -> None:
    """Leave a frame at its end; FormatError where an opcode reaches across it, or the bytes are at an end."""
    if machine.frame_end and machine.pos >= machine.frame_end:
        if machine.pos > machine.frame_end:
            raise FormatError(
                f"{_opcode(machine)} straddles the end of its frame: readers differ in what they make of it"
            )
        machine.frame_end = 0
    elif machine.pos >= machine.size:
        raise Ended(_without_stop(machine))


def _without_stop(machine: Machine) -> str:
    return f"the pickle {machine.stream} ends after {machine.size:,} bytes without its STOP opcode"


def _opcode(machine: Machine) -> str:
    return f"opcode 0x{machine.data[machine.at]:02x} of the pickle {machine.stream}"
