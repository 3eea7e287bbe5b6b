"""Keys under which a saved dictionary holds its parts."""

from __future__ import annotations

from typing import Final

MODEL: Final = ("model_state_dict", "state_dict", "model", "module", "net", "weights")
"""Those of the weights, in the order in which they are looked for in a file of weights.

PyTorch's tutorials, Lightning, scripts, DeepSpeed, and scripts again.
"""

DISTRIBUTED_MODEL: Final = ("model", "module", "state_dict")
"""Those of the weights in a save of torch.distributed.checkpoint: torchtitan and its likes, DeepSpeed's, Lightning."""

EMA: Final = ("ema", "ema_state_dict", "ema_model", "model_ema", "state_dict_ema", "ema_params", "shadow_params")
"""Those of a moving average of the weights: scripts, timm (`state_dict_ema`), diffusers' `EMAModel` (`shadow_params`)."""
