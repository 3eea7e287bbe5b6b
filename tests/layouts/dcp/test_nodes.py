"""Saves of which each node keeps its own part: what lies elsewhere is no finding, and nothing is vouched for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ckpt_rules import Status, inspect, verify
from ckpt_rules.testing import run_rule
from ckpt_rules_dcp.coverage import ChunkCoverage, UnreferencedFile
from ckpt_rules_dcp.nodes import named
from tests.layouts.killing import damages_of, said, survey_of

RANKS = "dcp/ranks.py"
BOTH = ["default", "deep"]

pytestmark = pytest.mark.slow


@pytest.fixture
def node(made, tmp_path):
    """`node("states", 2, 3)`: what ranks 2 and 3 wrote, on a disk of theirs."""

    def part(name: str, *ranks: int) -> Path:
        whole, target = made(RANKS) / name / "step-2", tmp_path / "step-2"
        target.mkdir()
        for rank in ranks:
            for path in whole.glob(f"__{rank}[_.]*"):
                shutil.copy2(path, target)
        if 0 in ranks and (whole / ".metadata").exists():
            shutil.copy2(whole / ".metadata", target)
        return target

    return part


class TestMetadataOnTheDiskOfRank0:
    @pytest.mark.parametrize("ruleset", [*BOTH, "quick", "inference"])
    @pytest.mark.parametrize("ranks", [(2, 3), (1,)])
    def test_a_node_without_it_yields_nothing_and_is_not_vouched_for(self, node, ranks, ruleset):
        report = verify(node("states", *ranks), ruleset=ruleset, strict=True)
        assert (report.layout.name, report.verdict.value, report.findings) == ("torch-distributed", "unknown", [])
        assert f"there is no .metadata, and the files are those of {named(ranks)}" in report.reason
        assert "copy it here and verify again" in report.reason

    def test_not_even_where_the_marker_is_all_that_is_asked_for(self, node, tmp_path):
        (tmp_path / "marker.yaml").write_text("select: [files/commit-marker]\n")
        report = verify(node("states", 2, 3), ruleset=str(tmp_path / "marker.yaml"))
        assert (report.verdict.value, report.findings) == ("unknown", [])

    def test_with_files_of_rank_0_the_save_never_finished(self, node):
        checkpoint = node("states", 0, 1)
        (checkpoint / ".metadata").unlink()
        (found,) = verify(checkpoint).findings
        assert (found.rule, found.place.path, found.severity) == ("files/commit-marker", ".metadata", "error")

    @pytest.mark.parametrize("ruleset", BOTH)
    def test_the_first_node_yields_nothing_and_is_not_vouched_for(self, node, ruleset):
        report = verify(node("states", 0, 1), ruleset=ruleset, strict=True)
        assert (report.verdict.value, report.findings) == ("unknown", []), said(report)
        (outcome,) = [o for o in report.outcomes if o.rule == "ranks/chunk-coverage"]
        assert "all files of ranks 2 and 3 are missing, while those of" in outcome.reason

    def test_another_node_to_which_it_was_copied(self, node, made):
        checkpoint = node("states", 2, 3)
        shutil.copy2(made(RANKS) / "states" / "step-2" / ".metadata", checkpoint)
        report = verify(checkpoint, strict=True)
        assert (report.verdict.value, report.findings) == ("unknown", []), said(report)

    def test_a_rank_of_which_a_part_is_here_is_missed(self, node):
        checkpoint = node("threads", 0, 1)
        (checkpoint / "__1_1.distcp").unlink()
        found = [f for f in run_rule(ChunkCoverage(), checkpoint).outcome.findings if f.place.path == "__1_1.distcp"]
        assert [f.message.split(";")[0] for f in found] == ["__1_1.distcp is missing"]

    @pytest.mark.parametrize(
        ("ranks", "lost"), [((0, 1, 2), [3]), ((0, 1, 3), [2]), ((0, 2), [1, 3]), ((1, 2), [0, 3])]
    )
    def test_what_is_no_share_of_a_node_is_lost(self, node, made, ranks, lost):
        checkpoint = node("states", *ranks)
        shutil.copy2(made(RANKS) / "states" / "step-2" / ".metadata", checkpoint)
        found = [f for f in verify(checkpoint).findings if f.rule == "ranks/chunk-coverage"]
        assert [f.place.path for f in found] == [f"__{rank}_0.distcp" for rank in lost]
        assert all("from the disk of the node where that rank ran" in f.help for f in found)


class TestInsideOfOtherLayouts:
    """What the second of two nodes has, one process on each."""

    @pytest.fixture
    def second(self, copied):
        def part(script: str, *save: str) -> Path:
            checkpoint = copied(script, *save)
            for path in [*checkpoint.rglob(".metadata"), *checkpoint.rglob("__0_*.distcp")]:
                path.unlink()
            return checkpoint

        return part

    @pytest.mark.parametrize("save", ["accelerate/sharded/mid", "trainer/sharded/checkpoint-2"])
    def test_fsdp_in_accelerate_and_the_trainer(self, second, save):
        report = verify(second("sharded/fsdp.py", save), strict=True)
        assert (report.verdict.value, report.findings) == ("unknown", []), said(report)
        reasons = {o.reason for o in report.outcomes if o.blocked_by}
        assert any(
            r.startswith("there is no pytorch_model_fsdp_0/.metadata, and the files are those of rank 1")
            for r in reasons
        )

    def test_lightning(self, second):
        checkpoint = second("lightning/strategies.py", "model-parallel", "checkpoints/epoch=0-step=4.ckpt")
        (checkpoint / "meta.pt").unlink()
        report = verify(checkpoint, strict=True)
        assert (report.layout.name, report.verdict.value, report.findings) == ("lightning-sharded", "unknown", [])


class TestMetadataOfEachRank:
    """`use_collectives=False`: no rank waits for another, and each loads what it wrote."""

    def test_each_damage_is_found(self, made, tmp_path, survived):
        checkpoint = made(RANKS) / "alone" / "step-2"
        survey = survey_of(checkpoint, list(damages_of(checkpoint)), tmp_path)
        survived(survey, {})

    def test_it_is_recognised_and_read_as_one(self, made):
        inspected = inspect(made(RANKS) / "alone" / "step-2")
        assert inspected.layout.signs == ("__0.metadata", "__0_0.distcp", "__1_0.distcp")
        assert inspected.weights.parameters == 4 * 31 + 31 + 31 * 3 + 3

    def test_a_rank_that_never_finished(self, copied):
        checkpoint = copied(RANKS, "alone/step-2")
        (checkpoint / "__2.metadata").unlink()
        found = [f for f in verify(checkpoint).findings if f.rule == "files/commit-marker"]
        assert [(f.place.path, f.severity) for f in found] == [("__2.metadata", "error")]
        assert "this rank never finished" in found[0].message

    def test_a_rank_of_which_nothing_is_left(self, copied):
        checkpoint = copied(RANKS, "alone/step-2")
        for path in (checkpoint / "__2.metadata", checkpoint / "__2_0.distcp"):
            path.unlink()
        found = [f.place.path for f in verify(checkpoint).findings if f.rule == "files/commit-marker"]
        assert found == ["__2.metadata"]

    def test_a_rank_far_off(self, copied):
        checkpoint = copied(RANKS, "alone/step-2")
        shutil.copy2(checkpoint / "__0_0.distcp", checkpoint / "__999999_0.distcp")
        found = [f.place.path for f in verify(checkpoint).findings if f.rule == "files/commit-marker"]
        assert found == ["__999999.metadata"]

    def test_ranks_of_two_saves(self, copied, made):
        checkpoint = copied(RANKS, "alone/step-2")
        later = made(RANKS) / "alone" / "step-4"
        for name in ("__1.metadata", "__1_0.distcp"):
            shutil.copy2(later / name, checkpoint / name)
        (found,) = [f for f in verify(checkpoint).findings if f.rule == "ranks/mixed-steps"]
        assert found.place.path == "__1_0.distcp"

    @pytest.mark.parametrize("ranks", [(2, 3), (0, 1)])
    def test_a_node_with_its_own_yields_nothing_and_is_not_vouched_for(self, node, ranks):
        report = verify(node("alone", *ranks), strict=True)
        assert (report.verdict.value, report.findings) == ("unknown", []), said(report)
        assert "set `separate_disks: true` if they stay on their nodes" in report.reason

    def test_a_team_with_such_disks_says_so(self, node, tmp_path):
        (tmp_path / "ours.yaml").write_text(
            "extends: [default]\nrules: {ranks/chunk-coverage: {options: {separate_disks: true}}}\n"
        )
        report = verify(node("alone", 2, 3), ruleset=str(tmp_path / "ours.yaml"), strict=True)
        assert (report.passed, report.findings) == (True, []), said(report)

    def test_files_of_which_no_rank_speaks(self, copied):
        checkpoint = copied(RANKS, "alone/step-2")
        shutil.copy2(checkpoint / "__0_0.distcp", checkpoint / "__0_7.distcp")
        run_rule(UnreferencedFile(), checkpoint).assert_one(path="__0_7.distcp", message="does not mention")

    def test_a_global_one_goes_before(self, copied, made):
        checkpoint = copied(RANKS, "states/step-2")
        shutil.copy2(made(RANKS) / "alone" / "step-2" / "__0.metadata", checkpoint)
        assert run_rule(ChunkCoverage(), checkpoint).outcome.status is Status.PASSED


def test_ranks_in_words():
    assert [named(r) for r in ({1}, {0, 2}, {8, 9, 10}, {0, 2, 5}, range(0, 20, 2))] == [
        "rank 1",
        "ranks 0 and 2",
        "ranks 8 to 10",
        "ranks 0, 2 and 5",
        "ranks 0, 2, 4, 6 and 6 more",
    ]
