"""Rules about how tensors are stored."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from pydantic import Field

from ckpt_rules import FLOAT_DTYPES, Checkpoint, Place, Problem, Rule, Severity, TensorInfo
from ckpt_rules_weights.kinds import tensor_kinds

_KEPT_WIDE = (
    "norm",
    "ln_",
    "layernorm",
    "scale",
    "bias",
    "router",
    "gate.",
    "inv_freq",
    "running_",
    "zero_point",
    "absmax",
)


class MixedDtypes(Rule):
    """Tensors of one kind have different dtypes in different layers.

    ## What it checks
    Floating-point tensors whose names differ only in a layer's number. Norms, biases, routers and quantisation scales
    are skipped: they are kept in a wider dtype on purpose.

    ## Why it matters
    Parts of two saves were put together, or a conversion stopped half way.

    ## How to repair
    Convert all layers alike, or ignore the finding if the model is designed that way.
    """

    id = "weights/mixed-dtypes"
    severity = Severity.INFO
    tags = frozenset({"load", "numerics"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each kind of tensor in several dtypes."""
        for kind, members in tensor_kinds(checkpoint).items():
            if any(word in kind.lower() for word in _KEPT_WIDE):
                continue
            dtypes: dict[str, list[tuple[str, str]]] = defaultdict(list)
            for file, name, tensor in members:
                if tensor.dtype in FLOAT_DTYPES:
                    dtypes[tensor.dtype].append((file.path, name))
            if len(dtypes) > 1:
                counts = Counter({d: len(names) for d, names in dtypes.items()})
                rarest = min(dtypes, key=lambda d: (len(dtypes[d]), d))
                path, name = dtypes[rarest][0]
                found = ", ".join(f"{n:,} in {d}" for d, n in counts.most_common())
                yield Problem(
                    message=f"{kind} has several dtypes: {found}",
                    place=Place(path=path, tensor=name),
                    help="check whether the layers are from one save",
                    data=dict(counts),
                )


class StorageBloat(Rule):
    """A tensor's storage in the file is far larger than the tensor.

    ## What it checks
    In torch files: the bytes of each storage against the bytes of the tensors that view it.

    ## Why it matters
    `torch.save` writes the whole storage that a view belongs to: one row of a matrix is saved as the full matrix.
    Checkpoints become many times larger, and so does the memory that loading takes.

    ## How to repair
    Call `.clone()` on tensors that are slices of others before saving them.
    """

    id = "weights/storage-bloat"
    severity = Severity.WARNING
    tags = frozenset({"load"})

    factor: float = Field(default=2.0, gt=1, description="How many times larger than its tensors a storage may be.")
    least_nbytes: int = Field(default=1 << 20, ge=0, description="Wasted bytes up to this number are not reported.")

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each storage that is mostly unused."""
        for file in checkpoint.weights.files:
            views: dict[str, list[tuple[str, TensorInfo]]] = defaultdict(list)
            for name, tensor in file.tensors.items():
                if tensor.storage is not None and tensor.storage_nbytes is not None:
                    views[tensor.storage].append((name, tensor))
            for found in views.values():
                held = found[0][1].storage_nbytes or 0
                used = sum(t.nbytes for _, t in found)
                if held > self.factor * used and held - used >= self.least_nbytes:
                    name = found[0][0]
                    yield Problem(
                        message=f"the tensor takes {used:,} bytes, but its storage takes {held:,} bytes in the file",
                        place=Place(path=file.path, tensor=name, key=file.key or None),
                        help="clone the slice before saving it",
                        data={"used": used, "stored": held},
                    )
