"""What `inspect` tells of real checkpoints, of broken ones, and of paths that hold none."""

from __future__ import annotations

import json

import pytest

from ckpt_rules import Layout, Match, Progress, UsageError, inspect
from ckpt_rules.inspection.inspecting import inspect_checkpoint
from ckpt_rules.inspection.model import Inspection
from ckpt_rules.opening import open_checkpoint
from ckpt_rules.storage import LocalStorage


class TestPlainTorch:
    def test_in_the_middle_of_an_epoch(self, make_checkpoint):
        ck = make_checkpoint(epoch=3, step=394, total_batches=1000)
        found = inspect(ck.path)
        assert found.layout.name == "plain-torch"
        assert (found.progress.epoch, found.progress.step, found.progress.total_batches) == (3, 394, 1000)
        assert (found.progress.fraction, found.progress.complete) == (0.394, False)
        assert (found.resume.epoch, found.resume.skipped, found.resume.trained) == (3, 394, 606)
        assert "394 to 999 are trained" in found.resume.sentence
        assert found.optimizer.updates == found.progress.expected_updates == 2394
        assert found.unavailable == {}

    def test_at_the_end_of_an_epoch(self, make_checkpoint):
        found = inspect(make_checkpoint(epoch=2, step=0, total_batches=10).path)
        assert (found.progress.complete, found.progress.fraction) == (True, 1.0)
        assert (found.resume.epoch, found.resume.skipped, found.resume.trained) == (3, 0, 10)

    def test_the_parts(self, make_checkpoint):
        found = inspect(make_checkpoint(optimizer="AdamW", scheduler="cosine", scaler=True).path)
        assert (found.optimizer.kind, found.optimizer.groups, len(found.optimizer.lrs)) == ("AdamW", 2, 2)
        assert found.optimizer.parameters == found.optimizer.states > 0
        assert found.scheduler.kind == "CosineAnnealingLR"
        assert found.scheduler.last_lr == pytest.approx(found.optimizer.lrs)
        assert (found.scaler.enabled, found.scaler.scale) == (True, 65536.0)
        assert {"python", "torch"} <= set(found.rng.sources)
        assert found.model.model_type == "llama"

    def test_the_weights(self, make_checkpoint):
        from safetensors import safe_open

        ck = make_checkpoint(weights="safetensors")
        found = inspect(ck.path).weights
        with safe_open(ck / "model.safetensors", "pt") as file:
            tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 - it is not a dictionary
        assert (found.files, found.index) == (("model.safetensors",), None)
        assert (found.tensors, found.parameters) == (len(tensors), sum(t.numel() for t in tensors))
        assert (found.nbytes, found.dtypes) == (sum(t.nbytes for t in tensors), {"float32": found.parameters})

    def test_what_is_not_there_says_why(self, make_checkpoint):
        ck = make_checkpoint(scheduler=None)
        ck.remove("model.safetensors").truncate("training_state.pth", keep=0.5)
        found = inspect(ck.path)
        assert found.progress is found.optimizer is found.weights is None
        assert set(found.unavailable) >= {"progress", "resume", "optimizer", "scheduler", "weights"}
        assert "training_state.pth" in found.unavailable["progress"]
        assert (found.files.count, found.notices) == (2, ())

    def test_it_is_stable_json(self, make_checkpoint):
        jsonschema = pytest.importorskip("jsonschema")
        found = inspect(make_checkpoint().path)
        text = found.model_dump_json()
        jsonschema.validate(json.loads(text), Inspection.model_json_schema(mode="serialization"))
        assert Inspection.model_validate_json(text) == found


class TestPaths:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda p: (p.parent / "step-5").mkdir(), "{p} does not exist; did you mean {d}/step-5?"),
        ],
        ids=["absent"],
    )
    def test_one_that_is_no_directory_is_a_usage_error(self, tmp_path, make, message):
        path = tmp_path / "step-50"
        make(path)
        with pytest.raises(UsageError) as caught:
            inspect(path)
        assert str(caught.value) == message.format(p=path, d=tmp_path)

    def test_a_file_that_no_layout_recognises_is_one_of_plain_files(self, tmp_path):
        (tmp_path / "notes").write_text("x")
        found = inspect(tmp_path / "notes")
        assert (found.layout.name, found.files.count, found.progress) == ("files", 1, None)

    def test_an_empty_directory_is_one_of_plain_files(self, tmp_path):
        found = inspect(tmp_path)
        assert (found.layout.name, found.files.count, found.progress) == ("files", 0, None)


class TestLayoutsThatMisbehave:
    class Broken(Layout):
        name = "broken"
        title = "broken"

        def recognise(self, checkpoint):
            return Match(99, ())

        def progress(self, checkpoint):
            return Progress(epoch="three")

        def optimizer(self, checkpoint):
            raise SystemExit(0)

    def test_one_costs_only_the_part_it_was_asked_for(self, tmp_path, plugins_of):
        checkpoint, notices = open_checkpoint(LocalStorage(tmp_path), plugins_of(acme={"layouts": [self.Broken()]}))
        found = inspect_checkpoint(checkpoint, notices)
        assert found.unavailable["optimizer"] == "the layout crashed: SystemExit: 0"
        assert found.unavailable["progress"].startswith("the layout crashed: ValidationError")
        assert found.unavailable["resume"] == "the counters do not say where training starts again"
        assert [n.message.partition(":")[0] for n in found.notices] == [
            "the layout broken crashed when asked for progress",
            "the layout broken crashed when asked for optimizer",
        ]
        assert all(n.fatal for n in found.notices)
