"""Builds the checkpoints that are measured. Run as a program, so that the torch it imports never counts in a measurement.

plain: GPT-2 small by real writers: 148 float32 tensors, 475 MiB of safetensors, and 950 MiB of AdamW state.
sparse: a mixture of experts in 163 shards with some 92,000 tensors and 700 GB, of which only the headers take space on the
disk. sparse10: ten times as many layers, shards and tensors.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from functools import partial
from math import ceil, prod
from pathlib import Path

VERSION = 4  # raise it when a builder changes: what lies on the disk is then built again
NBYTES = {"F32": 4, "BF16": 2, "F8_E4M3": 1}

Tensor = tuple[str, str, tuple[int, ...]]


def gpt2_tensors(
    layers: int = 12, width: int = 768, vocabulary: int = 50_257, context: int = 1_024
) -> Iterator[Tensor]:
    """Names, dtypes and shapes of GPT-2 as transformers stores it."""
    yield "wte.weight", "F32", (vocabulary, width)
    yield "wpe.weight", "F32", (context, width)
    for layer in range(layers):
        for name, shape in {
            "ln_1.weight": (width,),
            "ln_1.bias": (width,),
            "attn.c_attn.weight": (width, 3 * width),
            "attn.c_attn.bias": (3 * width,),
            "attn.c_proj.weight": (width, width),
            "attn.c_proj.bias": (width,),
            "ln_2.weight": (width,),
            "ln_2.bias": (width,),
            "mlp.c_fc.weight": (width, 4 * width),
            "mlp.c_fc.bias": (4 * width,),
            "mlp.c_proj.weight": (4 * width, width),
            "mlp.c_proj.bias": (width,),
        }.items():
            yield f"h.{layer}.{name}", "F32", shape
    yield "ln_f.weight", "F32", (width,)
    yield "ln_f.bias", "F32", (width,)


def build_plain(directory: Path) -> None:
    """GPT-2 small after two epochs of 250 batches, with AdamW, a cosine schedule and RNG state."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    weights = {name: torch.randn(shape) * 0.02 for name, _, shape in gpt2_tensors()}
    parameters = [torch.nn.Parameter(w) for w in weights.values()]
    optimizer = torch.optim.AdamW(parameters, lr=6e-4)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) * 1e-3
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=1_000)
    optimizer.zero_grad()  # without gradients, a step moves the counters of nothing
    for _ in range(500):
        optimizer.step()
        scheduler.step()
    for state in optimizer.state.values():
        state["step"].fill_(500)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    state = {
        "epoch": 2,
        "step": 0,
        "total_batches": 250,
        "global_step": 500,
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": scheduler.state_dict(),
        "rng_state": {"torch": torch.get_rng_state()},
    }
    torch.save(state, directory / "training_state.pth")
    config = {
        "model_type": "gpt2",
        "n_layer": 12,
        "n_embd": 768,
        "n_head": 12,
        "vocab_size": 50_257,
        "n_positions": 1_024,
    }
    (directory / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


WIDTH, EXPERTS, EXPERT_WIDTH, DENSE_WIDTH, DENSE_LAYERS = 7_168, 256, 2_048, 18_432, 3
HEADS, QUERY_RANK, KEY_RANK, NOPE, ROPE, VALUE, VOCABULARY, BLOCK = 128, 1_536, 512, 128, 64, 128, 129_280, 128


def experts_tensors(layers: int) -> Iterator[Tensor]:
    """Names, dtypes and shapes of a mixture of experts in FP8, one float32 scale for each block of 128 x 128.

    One layer past `layers` predicts a token more, as such models have it.
    """
    yield "model.embed_tokens.weight", "BF16", (VOCABULARY, WIDTH)
    for layer in range(layers + 1):
        prefix = f"model.layers.{layer}"
        if layer == layers:
            yield from _next_token_prediction(prefix)
        yield f"{prefix}.input_layernorm.weight", "BF16", (WIDTH,)
        yield f"{prefix}.post_attention_layernorm.weight", "BF16", (WIDTH,)
        yield from _attention(f"{prefix}.self_attn")
        if layer < DENSE_LAYERS:
            yield from _mlp(f"{prefix}.mlp", DENSE_WIDTH)
            continue
        yield f"{prefix}.mlp.gate.weight", "BF16", (EXPERTS, WIDTH)
        yield f"{prefix}.mlp.gate.e_score_correction_bias", "F32", (EXPERTS,)
        yield from _mlp(f"{prefix}.mlp.shared_experts", EXPERT_WIDTH)
        for expert in range(EXPERTS):
            yield from _mlp(f"{prefix}.mlp.experts.{expert}", EXPERT_WIDTH)
    yield "model.norm.weight", "BF16", (WIDTH,)
    yield "lm_head.weight", "BF16", (VOCABULARY, WIDTH)


def _next_token_prediction(prefix: str) -> Iterator[Tensor]:
    yield f"{prefix}.embed_tokens.weight", "BF16", (VOCABULARY, WIDTH)
    yield f"{prefix}.enorm.weight", "BF16", (WIDTH,)
    yield f"{prefix}.hnorm.weight", "BF16", (WIDTH,)
    yield f"{prefix}.eh_proj.weight", "BF16", (WIDTH, 2 * WIDTH)
    yield f"{prefix}.shared_head.norm.weight", "BF16", (WIDTH,)
    yield f"{prefix}.shared_head.head.weight", "BF16", (VOCABULARY, WIDTH)


def _attention(prefix: str) -> Iterator[Tensor]:
    yield f"{prefix}.q_a_layernorm.weight", "BF16", (QUERY_RANK,)
    yield f"{prefix}.kv_a_layernorm.weight", "BF16", (KEY_RANK,)
    yield from _fp8(f"{prefix}.q_a_proj", QUERY_RANK, WIDTH)
    yield from _fp8(f"{prefix}.q_b_proj", HEADS * (NOPE + ROPE), QUERY_RANK)
    yield from _fp8(f"{prefix}.kv_a_proj_with_mqa", KEY_RANK + ROPE, WIDTH)
    yield from _fp8(f"{prefix}.kv_b_proj", HEADS * (NOPE + VALUE), KEY_RANK)
    yield from _fp8(f"{prefix}.o_proj", WIDTH, HEADS * VALUE)


def _mlp(prefix: str, width: int) -> Iterator[Tensor]:
    yield from _fp8(f"{prefix}.gate_proj", width, WIDTH)
    yield from _fp8(f"{prefix}.up_proj", width, WIDTH)
    yield from _fp8(f"{prefix}.down_proj", WIDTH, width)


def _fp8(name: str, rows: int, columns: int) -> Iterator[Tensor]:
    yield f"{name}.weight", "F8_E4M3", (rows, columns)
    yield f"{name}.weight_scale_inv", "F32", (ceil(rows / BLOCK), ceil(columns / BLOCK))


def build_sparse(directory: Path, layers: int = 61, shards: int = 163) -> None:
    """Shards whose headers are real and whose tensors are holes, with a configuration and an index."""
    tensors = list(experts_tensors(layers))
    weight_map: dict[str, str] = {}
    total = 0
    for shard in range(shards):
        part = tensors[len(tensors) * shard // shards : len(tensors) * (shard + 1) // shards]
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        total += write_sparse_safetensors(directory / name, part)
        weight_map |= {tensor: name for tensor, _, _ in part}
    (directory / "config.json").write_text(json.dumps(experts_config(layers), indent=2), encoding="utf-8")
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def write_sparse_safetensors(path: Path, tensors: list[Tensor]) -> int:
    """A safetensors file whose data is one hole; returns the number of bytes of the tensors."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape in tensors:
        start, end = end, end + prod(shape) * NBYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return end


def experts_config(layers: int) -> dict[str, object]:
    """The configuration beside the sparse weights, with the keys that transformers writes for this architecture."""
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "hidden_size": WIDTH,
        "intermediate_size": DENSE_WIDTH,
        "moe_intermediate_size": EXPERT_WIDTH,
        "n_routed_experts": EXPERTS,
        "n_shared_experts": 1,
        "first_k_dense_replace": DENSE_LAYERS,
        "num_hidden_layers": layers,
        "num_nextn_predict_layers": 1,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "q_lora_rank": QUERY_RANK,
        "kv_lora_rank": KEY_RANK,
        "qk_nope_head_dim": NOPE,
        "qk_rope_head_dim": ROPE,
        "v_head_dim": VALUE,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [BLOCK, BLOCK]},
    }


BUILDERS: dict[str, Callable[[Path], None]] = {
    "plain": build_plain,
    "sparse": build_sparse,
    "sparse10": partial(build_sparse, layers=592, shards=1_630),
}


def main() -> None:
    """`checkpoints.py DIRECTORY`: build there what is not there yet, each in one move when it is complete."""
    home = Path(sys.argv[1])
    home.mkdir(parents=True, exist_ok=True)
    for name, build in BUILDERS.items():
        target = home / f"{name}-v{VERSION}"
        if target.exists():
            continue
        print(f"building {target}", file=sys.stderr)
        unfinished = home / f".{name}.{os.getpid()}"
        unfinished.mkdir()
        try:
            build(unfinished)
            unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


if __name__ == "__main__":
    main()
