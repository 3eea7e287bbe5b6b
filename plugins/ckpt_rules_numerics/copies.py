"""numerics/replicas-differ: copies of one tensor that must hold the same values."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Located,
    Measure,
    Place,
    Problem,
    Reads,
    Rule,
    Wanted,
    located_tensors,
    read_all,
)
from ckpt_rules_numerics.tensors import listed, weights

_TENSOR_PARALLEL = re.compile(r"mp_rank_(?P<tensor>\d+)(?P<pipeline>_\d+)?")
_SHARED = re.compile(
    r"norm|(?:^|[._])ln_|position_embeddings|position_embedding\b"
    r"|(?:attention\.dense|attn\.out|dense_4h_to_h|linear_proj|linear_fc2|o_proj|down_proj)\.bias$",
    re.IGNORECASE,
)
_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "embed_in.weight",
)
_HEADS = ("lm_head.weight", "output.weight", "embed_out.weight")
_MOST = 10


class ReplicasDiffer(Rule):
    """Copies of one tensor hold different values.

    ## What it checks
    The output head against the input embeddings where config.json says `tie_word_embeddings: true` and both are stored;
    and, in the files of tensor-parallel ranks (`mp_rank_XX`), the tensors of which each rank keeps a full copy: norms,
    position embeddings, biases added after a sum over ranks.

    ## Why it matters
    A loader takes one copy and drops the other. Ranks that disagree on a norm compute with different models from then
    on, and their sums are meaningless; no error ever shows it.

    ## How to repair
    Resume from an earlier save whose copies agree. If they differ there too, check how gradients of shared parameters
    are reduced.
    """

    id = "numerics/replicas-differ"
    tags = frozenset({"numerics", "ranks", "resume"})
    reads = Reads.BYTES

    def wanted(self, checkpoint: Checkpoint) -> Wanted:
        """The fingerprints of all tensors, where there is something to compare."""
        compare = checkpoint.fact(_pair_stored) or checkpoint.fact(_shared_copies)
        return Wanted(Measure.FINGERPRINT) if compare else Wanted()

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for the tied pair, one for each of the first ten shared tensors."""
        tied, shared = checkpoint.fact(_pair_stored), checkpoint.fact(_shared_copies)
        if not tied and not shared:
            raise FactUnavailable("no tensor is stored in several copies that must agree")
        if tied:
            yield from _tied(checkpoint)
        yield from _across_ranks(checkpoint, shared)


def _pair_stored(checkpoint: Checkpoint) -> bool:
    try:
        if checkpoint.config.values.get("tie_word_embeddings") is not True:
            return False
        tensors = checkpoint.weights.tensors
    except FactUnavailable:
        return False
    return any(n.endswith(_HEADS) for n in tensors) and any(n.endswith(_EMBEDDINGS) for n in tensors)


def _tied(checkpoint: Checkpoint) -> Iterator[Problem]:
    found = dict(weights(checkpoint, Measure.FINGERPRINT))
    head = next((n for n in found if n.endswith(_HEADS)), None)
    embedding = next((n for n in found if n.endswith(_EMBEDDINGS)), None)
    if head is None or embedding is None:
        return
    one, other = found[head], found[embedding]
    alike = one.tensor.dtype == other.tensor.dtype and one.tensor.shape == other.tensor.shape
    known = one.values.fingerprint is not None and other.values.fingerprint is not None
    if alike and known and one.values.fingerprint != other.values.fingerprint:
        yield Problem(
            message=f"{head} and {embedding} hold different values, but config.json says that they are tied",
            place=Place(path=one.tensor.path, tensor=head),
            help="set tie_word_embeddings to false if both were trained; otherwise resume from a save in which they "
            "agree",
            data={"head": head, "embedding": embedding, "embedding_path": other.tensor.path},
        )


def _shared_copies(checkpoint: Checkpoint) -> dict[tuple[str, str], list[Located]]:
    """By file without its rank, and name: the tensors that all tensor-parallel ranks keep a copy of."""
    copies: dict[tuple[str, str], list[Located]] = defaultdict(list)
    for tensor in located_tensors(checkpoint):
        rank = _TENSOR_PARALLEL.search(tensor.path)
        if rank and _SHARED.search(tensor.name) and "optim" not in tensor.name and "layers_" not in tensor.path:
            whose = tensor.path.replace(rank[0], f"mp_rank_*{rank['pipeline'] or ''}")
            copies[whose, tensor.name].append(tensor)
    return {key: found for key, found in copies.items() if len(found) > 1 and len({t.shape for t in found}) == 1}


def _across_ranks(checkpoint: Checkpoint, copies: dict[tuple[str, str], list[Located]]) -> Iterator[Problem]:
    if not copies:
        return
    read = read_all(checkpoint, Wanted(Measure.FINGERPRINT))
    differing: list[tuple[str, list[str]]] = []
    for (_, name), tensors in copies.items():
        prints = {m.tensor.path: m.values.fingerprint for m in read.measured(tensors)}
        known = {path: value for path, value in prints.items() if value is not None}
        if len(set(known.values())) > 1:
            differing.append((name, _odd_ones(known)))
    for name, paths in differing[:_MOST]:
        yield Problem(
            message=f"the tensor-parallel ranks hold different values of {name}, although each stores a full copy: "
            f"{listed(paths)} "
            f"differ from the others; {len(differing):,} of {len(copies):,} such tensors differ",
            place=Place(path=paths[0], tensor=name),
            help="resume from a save in which the ranks agree; check how gradients of shared parameters are reduced",
            data={"tensor": name, "paths": paths, "differing": len(differing), "shared": len(copies)},
        )


def _odd_ones(prints: dict[str, int]) -> list[str]:
    """The files that hold something else than most of them; of two, the second."""
    values = list(prints.values())
    usual = max(values, key=values.count)
    return [path for path, value in prints.items() if value != usual]
