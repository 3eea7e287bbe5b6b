"""Trainers that write all of a checkpoint into one dictionary: nanoGPT, fairseq, timm, detectron2, mmengine, ultralytics."""

from __future__ import annotations

from ckpt_rules import Layout, Rule, hookimpl


@hookimpl
def ckpt_rules_layouts() -> list[Layout]:
    """A layout for each trainer."""
    from ckpt_rules_one_file.detectron2 import Detectron2
    from ckpt_rules_one_file.fairseq import Fairseq
    from ckpt_rules_one_file.llama import LlamaOriginal
    from ckpt_rules_one_file.mmengine import MMEngine
    from ckpt_rules_one_file.nanogpt import NanoGPT
    from ckpt_rules_one_file.openai import OpenAIDiffusion
    from ckpt_rules_one_file.timm import Timm
    from ckpt_rules_one_file.ultralytics import Ultralytics

    return [NanoGPT(), Fairseq(), Timm(), Detectron2(), MMEngine(), Ultralytics(), LlamaOriginal(), OpenAIDiffusion()]


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The rule about checkpoints that were stripped for inference."""
    from ckpt_rules_one_file.stripped import Stripped

    return [Stripped]
