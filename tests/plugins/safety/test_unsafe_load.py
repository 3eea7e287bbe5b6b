"""state/needs-unsafe-load: what the weights-only loader of torch does not know, besides globals."""

from __future__ import annotations

import io

import pytest
import torch

from ckpt_rules.readers.pickle.enclosed import Memory
from ckpt_rules.readers.torch.file import read_torch_file
from ckpt_rules_safety.unsafe_load import refused_by_default
from tests.plugins.safety.hostile import saved, with_pickle


def refused(data):
    return refused_by_default(read_torch_file(Memory(data), "model.pt"))


def scripted():
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Identity(), torch.ones(1)), stream)
    return stream.getvalue()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_what_torch_save_writes_is_let_through(legacy):
    assert refused(saved({"w": torch.ones(2), "step": 3}, legacy=legacy)) is None


@pytest.mark.parametrize(
    ("program", "opcode", "at"),
    [(b"\x80\x02K\x012\x86.", "0x32", 4), (b"\x80\x02I1\n.", "0x49", 2), (b"\x80\x02C\x01a.", "0x43", 2)],
    ids=["DUP", "INT", "SHORT_BINBYTES"],
)
def test_the_first_opcode_that_the_loader_lacks_is_named(program, opcode, at):
    data = with_pickle(program)
    problem = refused(data)
    assert (
        f"the pickle archive/data.pkl has the opcode {opcode}, which its weights-only loader does not support"
        in problem.message
    )
    assert (problem.place.offset, problem.place.key) == (data.index(program) + at, "archive/data.pkl")
    with pytest.raises(Exception, match=f"Unsupported operand {int(opcode, 16)}"):
        torch.load(io.BytesIO(data), weights_only=True)


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_is_refused_as_such():
    problem = refused(scripted())
    assert problem.message == "torch.load refuses model.pt by default: it is a TorchScript archive"
    with pytest.raises(RuntimeError, match="TorchScript"):
        torch.load(io.BytesIO(scripted()), weights_only=True)
