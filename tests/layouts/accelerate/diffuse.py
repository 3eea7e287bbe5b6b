"""Saves as the diffusers training scripts do, with a tiny UNet, its moving average and their save hooks: `diffuse.py OUT`.

OUT/run/checkpoint-3 and checkpoint-6 are training states, OUT/pipeline a pipeline, OUT/lora/checkpoint-2 and checkpoint-4 training
states of an adapter, OUT/average/checkpoint.pt one dictionary with the average's own state.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DDPMPipeline, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel, UNet2DModel
from diffusers.training_utils import EMAModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

out = Path(sys.argv[1])
accelerator = Accelerator(cpu=True)
size = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "norm_num_groups": 4}
unet = UNet2DModel(block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), **size)
ema = EMAModel(unet.parameters(), model_cls=UNet2DModel, model_config=unet.config)


def save(models, weights, directory):
    ema.save_pretrained(Path(directory) / "unet_ema")
    for model in models:
        accelerator.unwrap_model(model).save_pretrained(Path(directory) / "unet")
        weights.pop()


hook = accelerator.register_save_state_pre_hook(save)
optimizer = torch.optim.AdamW(unet.parameters(), 1e-3)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
unet, optimizer, scheduler = accelerator.prepare(unet, optimizer, scheduler)
for step in range(1, 7):
    unet(torch.randn(2, 1, 8, 8), torch.tensor([1, 2])).sample.pow(2).mean().backward()
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
    ema.step(unet.parameters())
    if step % 3 == 0:
        accelerator.save_state(str(out / "run" / f"checkpoint-{step}"))
DDPMPipeline(accelerator.unwrap_model(unet), DDPMScheduler()).save_pretrained(out / "pipeline")

(out / "average").mkdir()
whole = {"model": accelerator.unwrap_model(unet).state_dict(), "optimizer": optimizer.state_dict(), "global_step": 6}
torch.save({**whole, "ema": ema.state_dict()}, out / "average" / "checkpoint.pt")

hook.remove()
accelerator.free_memory()
text = {"cross_attention_dim": 8, "attention_head_dim": 4, "block_out_channels": (8, 16)}
blocks = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
adapted = UNet2DConditionModel(**size, **text, **blocks)
adapted.requires_grad_(False)
adapted.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_q", "to_v", "to_out.0"]))


def save_adapter(models, weights, directory):
    for model in models:
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(accelerator.unwrap_model(model)))
        StableDiffusionPipeline.save_lora_weights(directory, unet_lora_layers=layers)
        weights.pop()


accelerator.register_save_state_pre_hook(save_adapter)
optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], 1e-3)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
adapted, optimizer, scheduler = accelerator.prepare(adapted, optimizer, scheduler)
for step in range(1, 5):
    noise = torch.randn(2, 1, 8, 8)
    adapted(noise, torch.tensor([1, 2]), torch.randn(2, 3, 8)).sample.pow(2).mean().backward()
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
    if step % 2 == 0:
        accelerator.save_state(str(out / "lora" / f"checkpoint-{step}"))
