"""One clean checkpoint of each layout, for tests that ask the same of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.layouts.megatron.test_megatron import sharded


@dataclass(frozen=True)
class Sample:
    """A checkpoint of a layout: `inside` what a script of this folder wrote when run with `args`, or a fixture, as a glob."""

    layout: str
    inside: str
    script: str | None = None
    args: tuple[str, ...] = ()


TRAINER, ACCELERATE, DCP, LIGHTNING = (f"{n}/train.py" for n in ("trainer", "accelerate", "dcp", "lightning"))
DIFFUSE = "accelerate/diffuse.py"
SAMPLES = {
    "trainer": Sample("transformers-trainer", "run/checkpoint-8", TRAINER, ("plain",)),
    "trainer sharded": Sample("transformers-trainer", "run/checkpoint-11", TRAINER, ("sharded",)),
    "trainer lora": Sample("transformers-trainer", "run/checkpoint-8", TRAINER, ("lora",)),
    "adapter": Sample("peft-adapter", "lora", "peft/make.py"),
    "accelerate": Sample("accelerate", "mid", ACCELERATE, ("ddp",)),
    "diffusers": Sample("diffusers-training", "run/checkpoint-3", DIFFUSE),
    "pipeline": Sample("diffusers-pipeline", "pipeline", DIFFUSE),
    "dcp": Sample("torch-distributed", "step-2", DCP, ("fsdp2",)),
    "dcp safetensors": Sample("torch-distributed-safetensors", "step-2", DCP, ("huggingface",)),
    "lightning": Sample("lightning", "checkpoints/last.ckpt", LIGHTNING, ("plain",)),
    "zero2": Sample("deepspeed", "deepspeed/fixtures/zero2/global_step4"),
    "zero3": Sample("deepspeed", "deepspeed/fixtures/zero3/global_step4"),
    "zero0": Sample("deepspeed", "deepspeed/fixtures/zero0/global_step4"),
    "experts": Sample("deepspeed", "deepspeed/fixtures/moe/global_step4"),
    "stages": Sample("deepspeed", "deepspeed/fixtures/pipeline/global_step4"),
    "universal": Sample("deepspeed", "deepspeed/fixtures/universal/global_step4_universal"),
    "orbax": Sample("orbax", "jax/fixtures/orbax/2"),
    "keras": Sample("keras", "jax/fixtures/keras"),
    "mmengine": Sample("mmengine", "one_file/fixtures/mmengine/**/epoch_2.pth"),
    "detectron2": Sample("detectron2", "one_file/fixtures/detectron2/**/model_0000005.pth"),
    "nanogpt": Sample("nanogpt", "at-6/ckpt.pt", "one_file/train_nanogpt.py"),
    "fairseq": Sample("fairseq", "one_file/fixtures/fairseq/run/checkpoint_2_7.pt"),
    "timm": Sample("timm", "one_file/fixtures/timm/run/last.pth.tar"),
    "ultralytics": Sample("ultralytics", "one_file/fixtures/ultralytics/interrupted/last.pt"),
    "torchtune": Sample("torchtune", "torchtune/fixtures/full"),
    "torch_checkpointing": Sample("torch-checkpointing", "torch_checkpointing/fixtures/plain/step-4"),
    "megatron": Sample("megatron", ""),
}
DIRECTORIES = [name for name, sample in SAMPLES.items() if not Path(sample.inside).suffix]


def sample_of(name, made, tmp_path) -> Path:
    """The path of a sample, which other tests share: nobody may change it."""
    sample = SAMPLES[name]
    if name == "megatron":
        folder = tmp_path / "megatron" / "iter_0000100"
        return folder if folder.exists() else sharded(folder)
    if sample.script is None:
        return min(Path(__file__).parent.glob(sample.inside))
    return made(sample.script, *sample.args) / sample.inside
