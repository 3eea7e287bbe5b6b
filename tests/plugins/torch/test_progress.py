"""How the counters of a plain checkpoint are read: epochs, steps, accumulation, and the plan to resume."""

from __future__ import annotations

import pytest

from ckpt_rules.errors import FactUnavailable
from ckpt_rules.opening import open_checkpoint
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.storage import LocalStorage
from ckpt_rules_torch.readings import Counters, Witnesses, by_epochs, by_updates


def progress_of(path):
    return open_checkpoint(LocalStorage(path), installed_plugins())[0].progress


def test_an_epoch_is_complete(make_checkpoint):
    progress = progress_of(make_checkpoint(epoch=2, step=0, total_batches=1270))
    assert (progress.epoch, progress.step, progress.complete, progress.fraction) == (2, 0, True, 1.0)
    assert (progress.batches_done, progress.expected_updates, progress.notes) == (2540, 2540, ())
    plan = progress.plan
    assert (plan.epoch, plan.skipped, plan.trained, plan.from_update) == (3, 0, 1270, 2540)
    assert plan.sentence == "epoch 2 is complete; training starts epoch 3 at its first batch"


def test_an_epoch_is_under_way(make_checkpoint):
    progress = progress_of(make_checkpoint(epoch=3, step=500, total_batches=1270))
    assert (progress.epoch, progress.step, progress.complete) == (3, 500, False)
    assert f"{progress.fraction:.1%}" == "39.4%"
    assert (progress.batches_done, progress.expected_updates) == (3040, 3040)
    plan = progress.plan
    assert (plan.epoch, plan.skipped, plan.trained, plan.from_update) == (3, 500, 770, 3040)
    assert plan.sentence == "epoch 3 continues: batches 0 to 499 are skipped, 500 to 1,269 are trained"


def test_finished_epochs_are_counted(make_checkpoint):
    progress = progress_of(make_checkpoint(epoch=3, step=500, total_batches=1270, updates=4310, global_step=False))
    assert (progress.epoch, progress.batches_done, progress.expected_updates) == (4, 4310, 4310)
    assert progress.notes == (
        "epoch 3 counts finished epochs: 4,310 batches agree with the other counters, the 3,040 of the usual reading do not",
    )
    assert (progress.plan.epoch, progress.plan.skipped) == (4, 500)


def test_epoch_0_under_way_counts_finished_epochs(make_checkpoint):
    progress = progress_of(make_checkpoint(epoch=0, step=4, total_batches=10, updates=4, global_step=4))
    assert (progress.epoch, progress.step, progress.batches_done) == (1, 4, 4)
    assert progress.plan.sentence == "epoch 1 continues: batches 0 to 3 are skipped, 4 to 9 are trained"


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (1, "epoch 3 continues: batch 0 is skipped, 1 to 9 are trained"),
        (8, "epoch 3 continues: batches 0 to 7 are skipped, 8 to 9 are trained"),
        (9, "epoch 3 continues: batches 0 to 8 are skipped, 9 is trained"),
    ],
)
def test_the_plan_in_words(step, words, make_checkpoint):
    assert progress_of(make_checkpoint(epoch=3, step=step)).plan.sentence == words


def test_recorded_accumulation(make_checkpoint):
    progress = progress_of(make_checkpoint(epoch=2, total_batches=1270, accumulation=4))
    assert (progress.accumulation, progress.batches_done, progress.expected_updates) == (4, 2540, 635)


@pytest.mark.parametrize("where", ["config", "args", "hparams"])
def test_accumulation_in_the_options(where, make_checkpoint):
    ck = make_checkpoint(
        total_batches=1000, updates=500, global_step=False, scheduler=None, extra={where: {"grad_accum": 4}}
    )
    assert progress_of(ck).expected_updates == 500
    ck = make_checkpoint(
        total_batches=1000, updates=500, global_step=False, scheduler=None, config={"gradient_accumulation_steps": 4}
    )
    assert progress_of(ck).accumulation == 4


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_accumulation_steps": "auto"},
        {"accumulate_grad_batches": None},
        {"grad_accum": {0: 4}},
        {"grad_accum": -1},
    ],
)
def test_what_options_say_otherwise_is_not_believed(options, make_checkpoint):
    assert progress_of(make_checkpoint(extra={"config": options})).accumulation == 1


def test_planned_ends(make_checkpoint):
    progress = progress_of(make_checkpoint(extra={"num_epochs": 5, "hparams": {"max_steps": 1000}}))
    assert (progress.planned_epochs, progress.planned_updates, progress.finished) == (5, 1000, False)


def test_no_counters_no_progress(make_checkpoint):
    ck = make_checkpoint(global_step=False)
    for key in ("epoch", "step", "total_batches"):
        ck.drop_key("training_state.pth", key)
    with pytest.raises(FactUnavailable, match="no progress is recorded") as caught:
        progress_of(ck)
    assert not caught.value.blocked


T = 1270
READINGS = [
    # epoch, step, recorded accumulation, global step | updates, last_epoch | batches, accumulation, expected updates
    ((2, 0, None, None), (None, None), (2540, 1, 2540)),
    ((2, 0, None, None), (2540, 2540), (2540, 1, 2540)),
    ((3, 500, None, None), (3040, None), (3040, 1, 3040)),
    ((3, 500, None, None), (4310, None), (4310, 1, 4310)),
    ((3, 500, None, None), (None, 4310), (4310, 1, 4310)),
    ((3, 500, None, None), (None, None), (3040, 1, 3040)),
    ((3, 500, None, None), (3700, None), (3040, 1, 3040)),  # neither fits
    ((3, 500, None, 3040), (4310, None), (3040, 1, 3040)),  # witnesses contradict each other
    ((3, 500, None, None), (None, 3), (3040, 1, 3040)),  # a scheduler that counts epochs knows nothing of batches
    ((3, 500, 4, None), (760, None), (3040, 4, 760)),
    ((3, 500, 4, None), (762, None), (3040, 4, 761)),  # ceil per epoch: 318 + 318 + 125
    ((3, 500, 4, None), (1077, None), (4310, 4, 1077)),
    ((2, 0, 4, None), (2540, None), (2540, 1, 2540)),  # step and total_batches count updates
    ((2, 0, None, 635), (635, None), (2540, 4, 635)),
    ((2, 0, None, None), (635, 635), (2540, 4, 635)),
    ((2, 0, None, None), (635, None), (2540, 1, 2540)),  # nobody confirms an accumulation
    ((2, 0, None, 2540), (635, 635), (2540, 1, 2540)),  # the global step denies it
    ((2, 0, None, 1000), (1000, 1000), (2540, 1, 2540)),  # 2.54 batches to an update
    ((3, 500, None, 1077), (1077, 4310), (4310, 4, 1077)),
]


@pytest.mark.parametrize(("counters", "witnesses", "wanted"), READINGS)
def test_readings(counters, witnesses, wanted):
    epoch, step, accumulation, global_step = counters
    found = by_epochs(Counters(epoch, step, T, global_step, accumulation), Witnesses(*witnesses))
    assert (found.batches, found.accumulation, found.expected(witnesses[0])) == wanted


UPDATES = [
    # epoch, step, global step, accumulation | updates, last_epoch | global step, expected updates
    ((None, None, 600, None), (600, None), (600, 600)),
    ((None, None, 600, None), (None, None), (600, 600)),
    ((None, None, 600, 40), (600, None), (600, 600)),  # nanoGPT: iterations are updates
    ((None, None, 600, 4), (150, None), (600, 150)),
    ((None, 600, None, None), (600, None), (600, 600)),
    ((2, 600, None, None), (600, None), (600, 600)),
    ((2, 600, None, None), (900, None), None),  # a step within the epoch, perhaps
    ((2, None, None, None), (900, None), None),
    ((None, None, 600, None), (150, 150), (600, 150)),
    ((None, None, 600, None), (150, None), (600, 600)),
]


@pytest.mark.parametrize(("counters", "witnesses", "wanted"), UPDATES)
def test_readings_without_epochs(counters, witnesses, wanted):
    epoch, step, global_step, accumulation = counters
    found = by_updates(Counters(epoch, step, None, global_step, accumulation), Witnesses(*witnesses))
    assert wanted == (found and (found.batches, found.expected(witnesses[0])))
