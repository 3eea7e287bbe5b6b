"""Trains, saves and resumes a loop of our own that does what nanoGPT's train.py does: `train_nanogpt.py OUT`; it is not a package.

Before the update of every second iteration, a file with the keys of nanoGPT is written, the first as from a compiled model. A resume takes `iter_num` for the next
iteration, sets the learning rate by it, and draws its batches at random.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

SAVED_EVERY, END, WARMUP = 2, 8, 4
SIZES = {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 4, "bias": False, "vocab_size": 5}


class Loop:
    def __init__(self) -> None:
        self.model = torch.nn.Sequential(torch.nn.Embedding(5, 8), torch.nn.Linear(8, 5))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2, betas=(0.9, 0.95))
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.iteration, self.best = 0, 1e9

    def save(self, path: Path) -> None:
        compiled = "_orig_mod." if self.iteration == SAVED_EVERY else ""
        state = {
            "model": {f"{compiled}{name}": tensor for name, tensor in self.model.state_dict().items()},
            "optimizer": self.optimizer.state_dict(),
            "model_args": SIZES,
            "iter_num": self.iteration,
            "best_val_loss": self.best,
            "config": {"max_iters": END, "warmup_iters": WARMUP, "learning_rate": 1e-2, "dtype": "bfloat16"},
        }
        torch.save(state, path)

    def resume(self, path: Path) -> dict[str, object]:
        """What the first iteration then is."""
        state = torch.load(path)
        self.model.load_state_dict({k.removeprefix("_orig_mod."): v for k, v in state["model"].items()})
        self.optimizer.load_state_dict(state["optimizer"])
        self.iteration, self.best = state["iter_num"], state["best_val_loss"]
        updates = {int(s["step"]) for s in self.optimizer.state.values()}
        return {"iteration": self.iteration, "updates": updates.pop(), "lr": self.rate()}

    def rate(self) -> float:
        return 1e-2 * min(1.0, (self.iteration + 1) / (WARMUP + 1))

    def train(self, out: Path) -> None:
        """`ckpt.pt` is overwritten at each save; copies of each are kept."""
        for self.iteration in range(END):
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate()
            if self.iteration and self.iteration % SAVED_EVERY == 0:
                self.best = torch.tensor(2.5)
                folder = out / f"at-{self.iteration}"
                folder.mkdir()
                self.save(folder / "ckpt.pt")
            batch = torch.randint(5, (8,))
            self.optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self.model(batch), batch).backward()
            self.optimizer.step()


if __name__ == "__main__":
    home = Path(sys.argv[1])
    Loop().train(home)
    seen = {f"{path.parent.name}/{path.name}": Loop().resume(path) for path in sorted(home.glob("*/ckpt.pt"))}
    (home / "resumed.json").write_text(json.dumps(seen))
