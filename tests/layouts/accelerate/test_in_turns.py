"""Two models that are trained in turns: what was prepared and has not begun is not a fault of the save."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from ckpt_rules import verify
from tests.layouts.killing import said

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("trained", [0, 1])
def test_one_optimizer_has_not_stepped_yet(tmp_path, trained):
    accelerator = Accelerator(cpu=True)
    models = [torch.nn.Linear(8, 8), torch.nn.Linear(8, 1)]
    optimizers = [torch.optim.AdamW(m.parameters(), 1e-3) for m in models]
    schedulers = [torch.optim.lr_scheduler.LambdaLR(o, lambda _: 1.0) for o in optimizers]
    prepared = accelerator.prepare(*models, *optimizers, *schedulers)
    model, optimizer, scheduler = prepared[trained], prepared[2 + trained], prepared[4 + trained]
    for _ in range(6):
        optimizer.zero_grad()
        accelerator.backward(model(torch.randn(4, 8)).mean())
        optimizer.step()
        scheduler.step()
    accelerator.save_state(str(tmp_path / "save"))
    accelerator.load_state(str(tmp_path / "save"))
    report = verify(tmp_path / "save", strict=True)
    assert (report.layout.name, report.passed, report.findings) == ("accelerate", True, []), said(report)
