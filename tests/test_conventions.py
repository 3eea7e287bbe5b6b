"""The tables of names say what the installed libraries say."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from ckpt_rules import conventions, rank_of_metadata, rank_of_shard
from ckpt_rules.conventions import distributed, state_files, weight_files, wrappers


def source(path: str) -> str:
    """The text of a module of an installed library, which is not imported."""
    package, _, rest = path.partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    return (Path(spec.origin).parent / rest).read_text("utf-8")


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("transformers/utils/__init__.py", weight_files.TRANSFORMERS),
        (
            "transformers/trainer.py",
            (
                state_files.ARGUMENTS,
                state_files.TRAINER_STATE,
                state_files.TRAINER_OPTIMIZER,
                state_files.TRAINER_SCHEDULER,
                state_files.SCALER,
            ),
        ),
        ("diffusers/utils/constants.py", weight_files.DIFFUSERS),
        ("peft/utils/constants.py", (*weight_files.ADAPTER, weight_files.ADAPTER_CONFIG)),
        ("accelerate/utils/constants.py", ("random_states", "optimizer", "scheduler", "sampler", state_files.SCALER)),
        ("torch/distributed/checkpoint/filesystem.py", (distributed.METADATA, ".distcp")),
        ("torch/distributed/fsdp/_common_utils.py", (wrappers.FSDP[:-1],)),
        ("torch/distributed/fsdp/fully_sharded_data_parallel.py", (wrappers.FLAT_PARAMETER,)),
        ("torch/distributed/algorithms/_checkpoint/checkpoint_wrapper.py", (wrappers.CHECKPOINTED[:-1],)),
        ("torch/_dynamo/eval_frame.py", (wrappers.COMPILED[:-1],)),
    ],
)
def test_a_name_is_its_librarys(path, names):
    text = source(path)
    assert [name for name in names if f'"{name}"' not in text] == []


def test_names_of_ranks():
    assert [rank_of_shard(n) for n in ("__12_0.distcp", "__0_3.distcp", "12_0.distcp", "__x_0.distcp")] == [
        12,
        0,
        None,
        None,
    ]
    assert [rank_of_metadata(n) for n in ("__3.metadata", ".metadata")] == [3, None]
    assert state_files.TRAINER_RNG.fullmatch("rng_state_3.pth")["rank"] == "3"
    assert state_files.TRAINER_RNG.fullmatch("rng_state.pth")["rank"] is None
    assert state_files.ACCELERATE_RNG.fullmatch("random_states_0.pkl")["rank"] == "0"


@pytest.mark.parametrize("name", [*weight_files.TRANSFORMERS, *weight_files.DIFFUSERS, *weight_files.ADAPTER])
def test_a_file_of_weights_has_a_usual_stem_and_shards(name):
    stem, _, suffix = name.rpartition(".")
    assert stem in weight_files.STEMS
    assert weight_files.SHARD.fullmatch(f"{stem}-00001-of-00003.{suffix}")
    assert f".{suffix}" in conventions.suffixes.WEIGHTS
