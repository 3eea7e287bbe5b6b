"""Objects of every kind that people save: we find nothing wrong with a file exactly where torch loads it."""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import io
import pathlib

import numpy as np
import pytest
import torch
from torch import nn

from ckpt_rules.readers.torch.file import read_torch_file
from tests.readers.sources import Bytes

# What torch loads only without restraint, and what no loader of torch's reads at all, is another rule's business.
NOT_WRONG = {"weights-only", "not-torch"}


class Sub(torch.Tensor):
    """A tensor of a class of its own."""


def with_attributes(thing, **attributes):
    for name, value in attributes.items():
        setattr(thing, name, value)
    return thing


def optimizer():
    return torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1)


def schedulers():
    owner = optimizer()
    lr = torch.optim.lr_scheduler
    return lr.SequentialLR(owner, [lr.LinearLR(owner), lr.StepLR(owner, 2)], [3]).state_dict()


def recursive():
    loop: list = [1]
    loop.append(loop)
    return loop


def shared():
    tensor = torch.ones(2)
    return [tensor, tensor, tensor.view(1, 2), {"x": tensor}]


def network():
    parts = nn.Linear(4, 4), nn.LSTM(4, 4), nn.MultiheadAttention(4, 2), nn.BatchNorm1d(4), nn.Embedding(5, 4)
    return nn.Sequential(*parts)


OBJECTS = {
    "subclass": lambda: torch.ones(2).as_subclass(Sub),
    "parameter with an attribute": lambda: with_attributes(nn.Parameter(torch.ones(2)), tag="x"),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "quantised by channel": lambda: torch.quantize_per_channel(
        torch.ones(2, 3), torch.tensor([0.1, 0.2]), torch.tensor([0, 0]), 0, torch.qint8
    ),
    "sparse": lambda: [torch.eye(4).to_sparse(), torch.eye(4).to_sparse_csr(), torch.eye(4).to_sparse_bsr((2, 2))],
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "conjugate": lambda: torch.ones(2, dtype=torch.complex64).conj(),
    "negated": lambda: torch.ones(2, dtype=torch.complex64).conj().imag,
    "meta": lambda: torch.ones(2, device="meta"),
    "network": network,
    "parametrised": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)).state_dict(),
    "unsigned": lambda: torch.ones(3, dtype=torch.uint16),
    "views": lambda: [torch.arange(12).reshape(3, 4).t()[1:, ::2], torch.ones(1).expand(5), torch.empty(0, 3)],
    "channels last": lambda: torch.ones(1, 3, 2, 2).to(memory_format=torch.channels_last),
    "untyped storage": lambda: torch.ones(3).untyped_storage(),
    "one cycle": lambda: torch.optim.lr_scheduler.OneCycleLR(optimizer(), 0.1, 10).state_dict(),
    "schedulers": schedulers,
    "L-BFGS": lambda: torch.optim.LBFGS(nn.Linear(2, 2).parameters()).state_dict(),
    "containers": lambda: [collections.defaultdict(list, a=[1]), collections.Counter("abc"), collections.deque([1])],
    "an OrderedDict with an attribute": lambda: with_attributes(collections.OrderedDict(a=1), _metadata={"x": 1}),
    "arguments": lambda: argparse.Namespace(a=1, out=pathlib.PurePosixPath("/x")),
    "NumPy": lambda: [np.float32(1), np.arange(3), np.array(["x"]), np.array([1, "a"], dtype=object), np.datetime64(0, "s")],
    "days": lambda: [dt.datetime(2026, 1, 2, tzinfo=dt.UTC), dt.timedelta(1), dt.date(2026, 1, 2)],
    "bytes": lambda: [b"abc", bytearray(b"x"), b""],
    "numbers": lambda: [2**100, -(2**70), 1e300, float("nan"), complex(1, 2), True],
    "shared": shared,
    "recursive": recursive,
    "sets": lambda: [{1, "a"}, frozenset({1}), slice(1, 2), range(4)],
    "torch's own": lambda: [torch.float32, torch.Size([1]), torch.device("cuda:0"), torch.strided],
}  # fmt: skip
# torch 2.13 reads their sizes before there are any bytes, so that chance decides whether it loads them.
LEFT_TO_CHANCE = {("nested", "legacy")}
FORMATS = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}, "protocol 4": {"pickle_protocol": 4}}


def torch_loads(data):
    try:
        torch.load(io.BytesIO(data), weights_only=False)
    except Exception:  # noqa: BLE001 - whatever torch raises
        return False
    return True


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_nothing_is_wrong_where_torch_loads_it(name, form):
    if (name, form) in LEFT_TO_CHANCE:
        pytest.skip("torch takes whatever lies in memory for the sizes")
    try:
        torch.save(OBJECTS[name](), stream := io.BytesIO(), **FORMATS[form])
    except (RuntimeError, NotImplementedError, AttributeError) as refusal:
        pytest.skip(f"torch can't save it so: {refusal}")
    file = read_torch_file(Bytes(stream.getvalue()), "x.pt")
    faults = [(p.code, p.message) for p in file.problems if p.code not in NOT_WRONG]
    assert (file.readable and faults == []) == torch_loads(stream.getvalue()), faults
