"""Llama's original files and those of OpenAI's diffusion scripts: told by their names, built with torch.save."""

from __future__ import annotations

import json

import pytest
import torch

from ckpt_rules import inspect, verify
from tests.layouts.killing import said


def rules(path, ruleset="default"):
    return [(f.rule, f.place.path) for f in verify(path, ruleset=ruleset).findings if f.severity != "info"]


class TestLlama:
    @pytest.fixture
    def model(self, tmp_path):
        """Two model-parallel ranks."""
        for rank in range(2):
            torch.save(
                {"tok_embeddings.weight": torch.ones(8, 4), "norm.weight": torch.ones(8)},
                tmp_path / f"consolidated.{rank:02d}.pth",
            )
        (tmp_path / "params.json").write_text(json.dumps({"dim": 8, "n_layers": 1}))
        return tmp_path

    def test_it_loads_and_is_nothing_to_resume(self, model):
        report = verify(model, ruleset="inference", strict=True)
        assert (report.layout.name, report.passed, report.findings) == ("llama-original", True, []), said(report)
        assert rules(model) == [("files/not-resumable", ".")]

    def test_a_rank_that_is_not_there(self, model):
        (model / "consolidated.00.pth").unlink()
        assert ("ranks/missing-file", "consolidated.00.pth") in rules(model)

    def test_without_its_sizes(self, model):
        (model / "params.json").unlink()
        assert rules(model, "inference") == [("files/missing-required", "params.json")]


class TestOpenAI:
    @pytest.fixture
    def run(self, tmp_path):
        """Two saves after three and six updates."""
        weight = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.AdamW([weight], 1e-3)
        for step in range(1, 7):
            weight.sum().backward()
            optimizer.step()
            if step % 3 == 0:
                torch.save({"w": weight.detach()}, tmp_path / f"model{step:06d}.pt")
                torch.save({"w": weight.detach()}, tmp_path / f"ema_0.9999_{step:06d}.pt")
                torch.save(optimizer.state_dict(), tmp_path / f"opt{step:06d}.pt")
        return tmp_path

    def test_the_newest_save_counts(self, run):
        report = verify(run, strict=True)
        assert (report.layout.name, report.passed) == ("openai-diffusion", True), said(report)
        assert inspect(run).resume.from_update == inspect(run).optimizer.updates == 6

    @pytest.mark.parametrize("name", ["opt000006.pt", "ema_0.9999_000006.pt", "model000006.pt"])
    def test_a_part_of_the_newest_that_is_missing(self, run, name):
        (run / name).unlink()
        assert ("files/missing-required", name) in rules(run)

    def test_an_optimizer_of_another_step(self, run):
        for step in range(7, 40):
            (run / f"model{step:06d}.pt").write_bytes((run / "model000006.pt").read_bytes())
        (run / "opt000039.pt").write_bytes((run / "opt000006.pt").read_bytes())
        assert ("optimizer/step-drift", "opt000039.pt") in rules(run)
