"""Fields of a kind that Lightning can't restore from: an error, as the resume stops, or starts the epoch again."""

from __future__ import annotations

import pytest
import torch

from ckpt_rules import verify
from ckpt_rules_lightning.loop_fields import broken_fields
from tests.differential.resumes.with_lightning import WithLightning

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
NAME = "epoch=0-step=3.ckpt"
BATCHES, AUTOMATIC = "epoch_loop.batch_progress", "epoch_loop.automatic_optimization.optim_progress"
STOPS = "Lightning stops"


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    made = WithLightning(str(tmp_path_factory.mktemp("lightning")))
    made.make()
    return made


@pytest.fixture
def changed(trainer, tmp_path):
    """`changed({"loops.fit_loop…": value})`: the directory of a save with one field changed; ... drops it."""

    def build(*path, value):
        state = torch.load(f"{trainer.folder}/run/{NAME}", weights_only=False)
        parent = state
        for key in path[:-1]:
            parent = parent[key]
        if value is ...:
            del parent[path[-1]]
        elif path:
            parent[path[-1]] = value
        torch.save(state, tmp_path / NAME)
        return tmp_path

    return build


def findings(path):
    report = verify(path)
    assert not [o.crash.traceback for o in report.outcomes if o.crash]
    return [(f.severity.value, f.rule, f.place.key, f.message) for f in report.findings if f.severity.value != "info"]


FIT = ("loops", "fit_loop")


@pytest.mark.parametrize(
    ("path", "value", "key", "said"),
    [
        (("pytorch-lightning_version",), "2.6.", "pytorch-lightning_version", "is '2.6.', which is not a version: Lightning stops with InvalidVersion"),
        (("pytorch-lightning_version",), ["2.6.6"], "pytorch-lightning_version", "is ['2.6.6'], which is not a version"),
        (("lr_schedulers",), None, "lr_schedulers", "is None, where a list belongs"),
        (("callbacks",), [1], "callbacks", "is [1], where a dictionary belongs"),
        ((*FIT, AUTOMATIC, "optimizer", "zero_grad", "total", "completed"), {}, f"loops.fit_loop.{AUTOMATIC}.optimizer.zero_grad.total.completed", "is {}, where a count belongs"),
        ((*FIT, AUTOMATIC, "optimizer"), None, f"loops.fit_loop.{AUTOMATIC}", "which lacks the dictionary 'optimizer'"),
        ((*FIT, "epoch_loop.scheduler_progress", "current", "completed"), [3], "loops.fit_loop.epoch_loop.scheduler_progress.current.completed", "is [3], where a count belongs"),
        ((*FIT, "epoch_loop.val_loop.batch_progress"), {}, "loops.fit_loop.epoch_loop.val_loop.batch_progress", "has no 'total': Lightning stops with KeyError"),
        ((*FIT, BATCHES, "is_last_batch"), ..., f"loops.fit_loop.{BATCHES}", "has no 'is_last_batch'"),
        ((*FIT, "epoch_loop.state_dict"), None, "loops.fit_loop.epoch_loop.state_dict", "is None, where a dictionary belongs"),
        ((*FIT, "epoch_loop.state_dict", "_batches_that_stepped"), "x", "loops.fit_loop.epoch_loop.state_dict._batches_that_stepped", "is 'x', where a number belongs"),
    ],
)  # fmt: skip
def test_what_lightning_stops_at(path, value, key, said, changed, trainer):
    save = changed(*path, value=value)
    found = findings(save)
    assert ("error", "progress/counters-disagree", key) in [f[:3] for f in found], found
    assert any(said in f[3] for f in found), found
    with pytest.raises(Exception):  # noqa: B017, PT011 - each has an error of its own
        trainer.resume(str(save))


def test_an_epoch_that_starts_again(changed, trainer):
    save = changed(*FIT, BATCHES, value=...)
    (found,) = [f for f in findings(save) if f[1] == "progress/counters-disagree"]
    assert found[:3] == ("error", "progress/counters-disagree", f"loops.fit_loop.{BATCHES}")
    assert "Lightning starts the epoch again at its first batch" in found[3]
    assert trainer.resume(str(save))["batch_idx"] != trainer.resume(f"{trainer.folder}/run")["batch_idx"]


def test_what_it_does_not_look_at(changed, trainer):
    assert findings(f"{trainer.folder}/run") == []
    assert findings(changed(*FIT, "epoch_loop.manual_optimization.state_dict", value=None)) == []


@pytest.mark.parametrize(
    ("path", "value", "key", "said"),
    [
        ((BATCHES, "total", "completed"), ..., f"{BATCHES}.total", "has no 'completed': Lightning continues with the new loop's own count"),
        ((BATCHES, "total", "started"), 2, f"{BATCHES}.total", "processed is 3 where started is 2, which is counted first"),
        ((BATCHES, "total", "completed"), 3, f"{BATCHES}.total", "of earlier epochs 1 batches were completed, and 0 processed: the total counts and those of this epoch disagree"),
        ((BATCHES, "total", "processed"), 2, f"{BATCHES}.total", "of earlier epochs 0 batches were completed, and -1 processed"),
        ((BATCHES, "total", "processed"), float("nan"), f"{BATCHES}.total.processed", "is nan, where a count belongs"),
        ((BATCHES, "total", "processed"), 1.5, f"{BATCHES}.total.processed", "is 1.5, where a count belongs"),
        ((BATCHES, "is_last_batch"), "x", f"{BATCHES}.is_last_batch", "is 'x', where True or False belongs"),
        (("epoch_progress", "total"), [], "epoch_progress.total", "is [], where a dictionary of counters belongs"),
        (("epoch_progress", "total", "ready"), 0, "epoch_progress.total", "0 epochs were started in total, but the current epoch is number 1"),
        (("epoch_progress", "total", "ready"), 10, "epoch_progress.total", "started is 1 but ready is 10; it should be the same, or one less"),
        (("epoch_progress", "total", "ready"), ..., "epoch_progress.total", "has no 'ready'"),
    ],
)  # fmt: skip
def test_counters_that_lightning_never_writes(path, value, key, said, changed, trainer):
    save = changed(*FIT, *path, value=value)
    found = [f for f in findings(save) if f[1] == "progress/counters-disagree"]
    assert ("error", f"loops.fit_loop.{key}") in [(f[0], f[2]) for f in found], found
    assert any(said in f[3] for f in found), found
    assert trainer.resume(str(save)) != trainer.resume(f"{trainer.folder}/run")


def test_a_loop_in_the_place_of_a_scheduler(changed, trainer):
    fit = torch.load(f"{trainer.folder}/run/{NAME}", weights_only=False)["loops"]["fit_loop"]
    for value in (fit, fit["epoch_progress"]):
        (found,) = [f for f in findings(changed("lr_schedulers", value=[value])) if f[0] == "error"]
        assert found[1:3] == ("scheduler/missing", "lr_schedulers")
        assert "looks like the progress of one of Lightning's loops" in found[3]


@pytest.mark.parametrize(
    "version",
    ["2.6.6", "2.0.0rc1", "1.9.0.post1", "2.1.0.dev0", "2.5.0.post0", "v2.1", "2.0.0+local.1", "2.6.0a0+git1"],
)
def test_versions_that_packaging_takes(version):
    from packaging.version import Version

    Version(version)
    assert list(broken_fields("a.ckpt", {"pytorch-lightning_version": version})) == []
