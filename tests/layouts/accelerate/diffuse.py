"""Trains, saves and resumes as the diffusers training scripts do, with tiny UNets and the scripts' hooks: `diffuse.py OUT`.

OUT/run/checkpoint-3 and checkpoint-6 are training states with a moving average, OUT/pipeline a pipeline, OUT/lora/checkpoint-2 and
checkpoint-4 training states of an adapter, OUT/average/checkpoint.pt one dictionary with the average's own state. OUT/resumed.json
says what an unbroken run did, and a resume from each training state.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DDPMPipeline, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel, UNet2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from diffusers.utils import convert_state_dict_to_diffusers, convert_unet_state_dict_to_peft
from peft import LoraConfig, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict
from torch.utils.data import DataLoader

SIZE = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "norm_num_groups": 4}
BLOCKS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
UPDATES = 8


class Whole:
    """A UNet and its moving average, as train_unconditional.py has them: its resume passes over the batches that were trained."""

    per_epoch, every, passes_over = 4, 3, True

    def __init__(self):
        self.model = UNet2DModel(
            block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), **SIZE
        )
        self.ema = EMAModel(self.model.parameters(), model_cls=UNet2DModel, model_config=self.model.config)

    def save(self, models, weights, directory):
        self.ema.save_pretrained(Path(directory) / "unet_ema")
        for model in models:
            model.save_pretrained(Path(directory) / "unet")
            weights.pop()

    def load(self, models, directory):
        self.ema.load_state_dict(EMAModel.from_pretrained(Path(directory) / "unet_ema", UNet2DModel).state_dict())
        while models:
            saved = UNet2DModel.from_pretrained(directory, subfolder="unet")
            models.pop().load_state_dict(saved.state_dict())

    def predict(self, batch):
        return self.model(batch + torch.randn_like(batch), torch.tensor([1, 2])).sample


class Adapter:
    """LoRA, as train_text_to_image_lora.py and the dreambooth scripts have it: their resumes pass over nothing."""

    per_epoch, every, passes_over, ema = 3, 2, False, None

    def __init__(self):
        self.model = UNet2DConditionModel(
            cross_attention_dim=8, attention_head_dim=4, block_out_channels=(8, 16), **BLOCKS, **SIZE
        )
        self.model.requires_grad_(False)
        self.model.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_q", "to_v", "to_out.0"]))

    def save(self, models, weights, directory):
        for model in models:
            layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(model))
            StableDiffusionPipeline.save_lora_weights(directory, unet_lora_layers=layers)
            weights.pop()

    def load(self, models, directory):
        state, _ = StableDiffusionPipeline.lora_state_dict(directory)
        layers = {name.removeprefix("unet."): tensor for name, tensor in state.items() if name.startswith("unet.")}
        while models:
            set_peft_model_state_dict(models.pop(), convert_unet_state_dict_to_peft(layers))

    def predict(self, batch):
        return self.model(batch + torch.randn_like(batch), torch.tensor([1, 2]), torch.randn(2, 3, 8)).sample


def train(part, out, until, resume_from=None):
    """One run of a script. A batch is told by the number that fills it, beside the step, rate and average that it met."""
    accelerator = Accelerator(cpu=True)
    accelerator.register_save_state_pre_hook(part.save)
    accelerator.register_load_state_pre_hook(part.load)
    optimizer = torch.optim.AdamW([p for p in part.model.parameters() if p.requires_grad], 1e-3)
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=2 * UPDATES)
    data = DataLoader([torch.full((1, 8, 8), float(i // 2)) for i in range(2 * part.per_epoch)], batch_size=2)
    part.model, optimizer, data, scheduler = accelerator.prepare(part.model, optimizer, data, scheduler)
    global_step = first_epoch = skipped = 0
    if resume_from is not None:
        accelerator.load_state(str(resume_from))
        global_step = int(resume_from.name.split("-")[1])
        first_epoch = global_step // part.per_epoch
        skipped = global_step % part.per_epoch if part.passes_over else 0
    seen = []
    for epoch in range(first_epoch, -(-until // part.per_epoch)):
        for step, batch in enumerate(data):
            if epoch == first_epoch and step < skipped:
                continue
            updates = max((int(s["step"]) for s in optimizer.state_dict()["state"].values()), default=0)
            average = part.ema.optimization_step if part.ema else updates
            seen.append([int(batch[0, 0, 0, 0]), global_step, updates, average, scheduler.get_last_lr()[0]])
            accelerator.backward(part.predict(batch).pow(2).mean())
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            if part.ema:
                part.ema.step(part.model.parameters())
            global_step += 1
            if resume_from is None and global_step % part.every == 0:
                accelerator.save_state(str(out / f"checkpoint-{global_step}"))
            if global_step >= until:
                return seen, optimizer
    return seen, optimizer


out, found = Path(sys.argv[1]), {}
for kind, name, until in ((Whole, "run", 6), (Adapter, "lora", 4)):
    part = kind()
    unbroken, optimizer = train(part, out / name, until)
    found[name] = {"unbroken": unbroken, "per_epoch": part.per_epoch}
    for checkpoint in (out / name).iterdir():
        found[name][checkpoint.name] = train(kind(), out / name, UPDATES, checkpoint)[0]
    if part.ema:
        DDPMPipeline(part.model, DDPMScheduler()).save_pretrained(out / "pipeline")
        (out / "average").mkdir()
        whole = {"model": part.model.state_dict(), "optimizer": optimizer.state_dict(), "global_step": until}
        torch.save({**whole, "ema": part.ema.state_dict()}, out / "average" / "checkpoint.pt")
(out / "resumed.json").write_text(json.dumps(found))
