"""ema/missing: moving averages that are promised, whole, or neither."""

from __future__ import annotations

import torch

from ckpt_rules.testing import run_rule
from ckpt_rules_training.ema import EmaMissing


class TestEma:
    """A moving average that was promised, and one that is not whole."""

    WEIGHTS = {"a.weight": torch.ones(2, 2), "b.weight": torch.ones(3)}

    def saved(self, path, **more):
        torch.save(
            {"global_step": 3, "model": self.WEIGHTS, "optimizer": {"state": {}, "param_groups": []}, **more},
            path / "checkpoint.pt",
        )
        return run_rule(EmaMissing(), path)

    def test_a_whole_average_passes(self, tmp_path):
        self.saved(tmp_path, ema={f"module.{n}": t for n, t in self.WEIGHTS.items()}).assert_passed()

    def test_nothing_speaks_of_one(self, tmp_path):
        self.saved(tmp_path, args={"use_ema": False}).assert_skipped("nothing shows")

    def test_an_average_that_was_promised(self, tmp_path):
        result = self.saved(tmp_path, args={"use_ema": True})
        result.assert_one(path="checkpoint.pt", key="args.use_ema", severity="warning")

    def test_one_in_a_file_of_its_own(self, tmp_path):
        torch.save(self.WEIGHTS, tmp_path / "ema.pt")
        self.saved(tmp_path, args={"use_ema": True}).assert_passed()

    def test_an_average_of_a_part_of_the_weights(self, tmp_path):
        more = {**self.WEIGHTS, "c.weight": torch.ones(4)}
        torch.save(
            {"global_step": 3, "model": more, "optimizer": {"state": {}, "param_groups": []}, "ema": self.WEIGHTS},
            tmp_path / "last.pt",
        )
        result = run_rule(EmaMissing(), tmp_path)
        result.assert_one(path="last.pt", key="ema", data={"missing": ["c.weight"], "weights": 3})
