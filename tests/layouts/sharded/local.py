"""Trains with FSDP 1 on two CPU ranks and keeps LOCAL_STATE_DICT: `local.py OUT [original]` writes OUT/accelerate, OUT/dcp and OUT/plain.

With `original`, the parameters keep their own names beside the flattened one. OUT/loaded.txt says what `load_state` did.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from forking import fork
from fsdp import on_cpu


def main() -> None:
    if "LOCAL_RANK" not in os.environ:
        fork(2, main)
        return
    on_cpu()
    from accelerate import Accelerator
    from accelerate.utils import FullyShardedDataParallelPlugin

    out, own_names = Path(sys.argv[1]), "original" in sys.argv
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=1, state_dict_type="LOCAL_STATE_DICT", use_orig_params=own_names
    )
    accelerator = Accelerator(fsdp_plugin=plugin)
    accelerator.state.device = torch.device("cpu")
    model = accelerator.prepare(torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Linear(6, 3)))
    optimizer = accelerator.prepare(torch.optim.AdamW(model.parameters(), 1e-3))
    for _ in range(4):
        accelerator.backward(model(torch.randn(2, 5)).pow(2).mean())
        optimizer.step()
        optimizer.zero_grad()
    accelerator.save_state(str(out / "accelerate"))
    rank = accelerator.process_index
    (out / "plain").mkdir(parents=True, exist_ok=True)
    with torch.distributed.fsdp.FullyShardedDataParallel.state_dict_type(
        model, torch.distributed.fsdp.StateDictType.LOCAL_STATE_DICT
    ):
        torch.save(model.state_dict(), out / "plain" / f"model_rank{rank}.pt")
        state = {"model": model.state_dict(), "step": 4}
        state["optim"] = torch.distributed.fsdp.FullyShardedDataParallel.optim_state_dict(model, optimizer)
        dcp.save(state, checkpoint_id=out / "dcp")
    torch.save(optimizer.state_dict(), out / "plain" / f"optim_rank{rank}.pt")
    try:
        accelerator.load_state(str(out / "accelerate"))
        did = "loaded"
    except Exception as error:  # noqa: BLE001 - whatever it says
        did = type(error).__name__
    if rank == 0:
        (out / "loaded.txt").write_text(did)
    torch.distributed.barrier()
    os._exit(0)


if __name__ == "__main__":
    main()
