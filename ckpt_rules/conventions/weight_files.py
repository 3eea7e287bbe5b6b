"""Names of files of weights."""

from __future__ import annotations

import re
from typing import Final

INDEX: Final = ".index.json"
"""Follows the name that the weights would have in one file, in that of the file which says what each shard holds."""

TRANSFORMERS: Final = ("model.safetensors", "pytorch_model.bin")  # transformers/utils/__init__.py
DIFFUSERS: Final = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
)  # diffusers/utils/constants.py
ADAPTER: Final = ("adapter_model.safetensors", "adapter_model.bin")  # peft/utils/constants.py
ADAPTER_CONFIG: Final = "adapter_config.json"  # the same

STEMS: Final = ("model", "diffusion_pytorch_model", "adapter_model", "pytorch_model")
"""Of all of these, in the order in which they are taken where there are several."""

SHARD: Final = re.compile(
    r"(?P<stem>.+?)-(?P<number>\d{2,6})-of-(?P<count>\d{2,6})\.(?P<suffix>safetensors|bin|pt|pth)"
)
"""`model-00001-of-00003.safetensors`, as huggingface_hub's `split_torch_state_dict_into_shards` and its likes name them."""

_FIVE_DIGITS = r"-\d{5}-of-(?P<count>\d{5})\.(?P<suffix>safetensors|bin)"
TRANSFORMERS_SHARD: Final = re.compile(rf"(?P<stem>model|pytorch_model){_FIVE_DIGITS}")
DIFFUSERS_SHARD: Final = re.compile(rf"(?P<stem>diffusion_pytorch_model){_FIVE_DIGITS}")
"""The same, as transformers and diffusers write it."""

MISTRAL: Final = re.compile(r"consolidated(?:[._-].*)?\.safetensors")
"""Mistral's own format, beside which the hub has that of transformers."""

ANY_STEM: Final = re.compile(
    r"(?:(?:pytorch_|diffusion_pytorch_|adapter_)?model|weights|net|network|consolidated)(?:[._-].*)?"
)
"""What scripts call a torch file of weights, lower case and without its suffix."""
