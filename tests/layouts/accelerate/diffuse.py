"""Saves as the diffusers training scripts do, with a tiny UNet, its moving average and their save hooks: `diffuse.py OUT`.

OUT/run/checkpoint-3 and checkpoint-6 are training states, OUT/pipeline a pipeline.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel

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


accelerator.register_save_state_pre_hook(save)
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
