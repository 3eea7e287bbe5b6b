"""Lightning's files whose parts were emptied: it restores nothing from them, and does not say so."""

from __future__ import annotations

import pytest
import torch

from ckpt_rules import verify

NAMES = ("ready", "started", "processed", "completed")


def count(total, current, names=NAMES):
    return {"total": dict.fromkeys(names, total), "current": dict.fromkeys(names, current)}


def saved(path, *, batches=6, last=3, scheduled=True, **changes):
    """As Lightning 2.6 writes it after two epochs, of a model that was trained for as many batches."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 100) if scheduled else None
    for _ in range(batches):
        optimizer.zero_grad()
        model(torch.randn(2, 4)).sum().backward()
        optimizer.step()
        if scheduler:
            scheduler.step()
    two = ("ready", "completed")
    steps = {"step": count(batches, last, two), "zero_grad": count(batches, last, ("ready", "started", "completed"))}
    loop = {
        "state_dict": {},
        "epoch_loop.state_dict": {"_batches_that_stepped": batches},
        "epoch_loop.batch_progress": {**count(batches, last), "is_last_batch": True},
        "epoch_loop.scheduler_progress": count(batches if scheduled else 0, last if scheduled else 0, two),
        "epoch_loop.automatic_optimization.state_dict": {},
        "epoch_loop.automatic_optimization.optim_progress": {"optimizer": steps},
        "epoch_loop.manual_optimization.state_dict": {},
        "epoch_loop.manual_optimization.optim_step_progress": count(0, 0, two),
        "epoch_progress": count(2, 2),
    }
    whole = {
        "epoch": 2,
        "global_step": batches,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {f"layer.{name}": value for name, value in model.state_dict().items()},
        "loops": {"fit_loop": loop},
        "callbacks": {},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [scheduler.state_dict()] if scheduler else [],
    }
    file = path / "epoch=1-step=6.ckpt"
    torch.save(changes.get("root", {**whole, **changes}), file)
    return found(file)


def found(path):
    report = verify(path)
    assert not [o.crash.traceback for o in report.outcomes if o.crash]
    return [(f.severity.value, f.rule, f.place.key, f.message) for f in report.findings if f.severity.value != "info"]


def test_what_lightning_writes_is_fine(tmp_path):
    assert saved(tmp_path) == []
    assert saved(tmp_path, scheduled=False) == []


@pytest.mark.parametrize(
    ("changes", "rule", "key", "said"),
    [
        ({"optimizer_states": []}, "optimizer/missing", "optimizer_states", "optimizer_states is empty, although 6 optimizer steps were made"),
        ({"lr_schedulers": []}, "scheduler/missing", "lr_schedulers", "lr_schedulers is empty, although schedulers have made 6 steps"),
        ({"lr_schedulers": [{}]}, "scheduler/missing", "lr_schedulers[0]", "'lr_schedulers[0]' is an empty dictionary"),
        ({"loops": {}}, "state/missing-field", "loops", "'loops' in the training state is empty: Lightning starts again at epoch 0"),
        ({"loops": {"fit_loop": {}}}, "state/missing-field", "loops.fit_loop", "'loops.fit_loop' in the training state is empty"),
        ({"loops": {"fit_loop": None}}, "state/missing-field", "loops.fit_loop", "'loops.fit_loop' in the training state is missing"),
        ({"loops": [1]}, "state/missing-field", "loops", "'loops' in the training state is [1]"),
    ],
)  # fmt: skip
def test_emptied(changes, rule, key, said, tmp_path):
    errors = [f for f in saved(tmp_path, **changes) if f[0] == "error"]
    assert len(errors) == 1, errors
    assert errors[0][1:3] == (rule, key)
    assert errors[0][3].startswith(said)


@pytest.mark.parametrize("root", [[], [1, 2], {}, None, 3])
def test_a_file_that_holds_nothing_of_it(root, tmp_path):
    rules = {f[1] for f in saved(tmp_path, root=root) if f[0] == "error"}
    assert rules & {"state/unreadable", "state/missing-field"}


@pytest.mark.parametrize(("name", "length"), [("bias", 1), ("bias", 3), ("weight", 5)])
def test_a_weight_of_another_length(name, length, tmp_path):
    weights = {"layer.weight": torch.zeros(2, 4), "layer.bias": torch.zeros(2)}
    weights[f"layer.{name}"] = torch.zeros(*weights[f"layer.{name}"].shape[:-1], length)
    score = {"ModelCheckpoint": {"best_model_score": torch.tensor(1.0)}}  # a number beside the weights is not a weight
    errors = saved(tmp_path, state_dict=weights, callbacks=score)
    assert [f[:3] for f in errors] == [
        ("error", "optimizer/param-mismatch", f"optimizer_states[0].state[{['weight', 'bias'].index(name)}]")
    ]


def test_one_batch_too_many(tmp_path):
    ((severity, rule, key, message),) = saved(tmp_path, batches=7, scheduled=False)
    assert (severity, rule) == ("warning", "progress/counters-disagree")
    assert key == "loops.fit_loop.epoch_loop.batch_progress.total"
    assert message.startswith(
        "7 batches were fetched in 2 epochs, of which the last had 3: a resume has trained one batch too"
    )


@pytest.mark.parametrize("value", [{}, {0: {"step": 3}}, 3, "text"])
def test_a_weight_that_is_no_tensor(tmp_path, value):
    weights = {**torch.nn.Linear(4, 2).state_dict(prefix="layer."), "layer._extra_state": {"any": 1}}
    assert "weights/not-float" not in [f[1] for f in saved(tmp_path, state_dict=weights)]
    told = saved(tmp_path, state_dict={**weights, "other.weight": torch.ones(2), "layer.bias": value})
    (one,) = [f for f in told if f[1] == "weights/not-float"]
    assert (one[0], one[2]) == ("error", "state_dict")
    assert one[3].startswith("layer.bias is ")
    assert "expected a tensor: load_state_dict fails on it" in one[3]
