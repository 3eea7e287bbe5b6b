"""What lies in files of random states: each damaged as cases from runs were."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.plugins.training.contents import changed, one


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ({"cpu": torch.zeros(5055, dtype=torch.uint8)}, "cpu", "'cpu' is a uint8 tensor of shape [5055], where a uint8 tensor of 5,056 bytes"),
        ({"cpu": torch.zeros(5056)}, "cpu", "'cpu' is a float32 tensor of shape [5056]"),
        ({"cpu": None}, "cpu", "'cpu' is None"),
        ({"python": (3, tuple(range(624)), None)}, "python", "'python' holds 624 numbers, where the state of python's generator has 625"),
        ({"python": (3, 4)}, "python", "'python' has 2 parts"),
        ({"python": 7}, "python", "'python' is a number"),
        ({"numpy": ("MT19937", np.zeros(600, "u4"), 3, 0, 0.0)}, "numpy", "'numpy' holds 600 numbers, where the state of numpy's generator has 624"),
        ({"numpy": ("PCG64",)}, "numpy", "'numpy' does not begin with 'MT19937'"),
        ({"numpy": ()}, "numpy", "'numpy' does not begin with 'MT19937'"),
        ({"python": (6, (0,) * 624 + (1,), None)}, "python", "'python' begins with 6, where the state of python's generator begins with its version, 3"),
        ({"python": ("x", (0,) * 624 + (1,), None)}, "python", "'python' begins with 'x'"),
        ({"python": (3, (0,) * 624 + (625,), None)}, "python", "'python' says that number 625 of 624 is next"),
        ({"python": (3, (0,) * 623 + (1 << 32, 1), None)}, "python", "holds something other than whole numbers of 32 bits"),
        ({"python": (3, (0,) * 624 + (1,), "x")}, "python", "'python' ends with 'x', where python's generator keeps None or a float"),
        ({"numpy": ("MT19937", np.ones(624, "u4"), 3, 0)}, "numpy", "'numpy' ends before the last number of the state"),
        ({"numpy": ("MT19937", np.ones(624, "u4"), 10**30, 0, 0.0)}, "numpy", f"'numpy' says that number {10**30} of 624 is next"),
        ({"numpy": ("MT19937", np.ones(624, "u4"), None, 0, 0.0)}, "numpy", "'numpy' says that number None of 624 is next"),
        ({"numpy": ("MT19937", torch.ones(2, 3), 3, 0, 0.0)}, "numpy", "'numpy' holds a float32 tensor of shape [2, 3], where the 624 numbers of numpy's generator belong"),
        ({"numpy": ("MT19937", None, 3, 0, 0.0)}, "numpy", "'numpy' holds None, where the 624 numbers of numpy's generator belong"),
        ({"numpy": ("MT19937", np.ones(624, "u4"), 3, 10**30, 0.0)}, "numpy", "where numpy's generator keeps 0 or 1"),
        ({"cpu": torch.zeros(5056, dtype=torch.uint8)}, "cpu", "'cpu' begins with the numbers 0, 0 and 0 after the seed, which torch refuses"),
        ({"numpy": ("MT19937", np.ones(624, "u4"), 3, {}, 0.0)}, "numpy", "'numpy' has a dictionary where the state of numpy's generator ends with two numbers"),
        ({"numpy": ("MT19937", np.ones(624, "u4"), 3, 0, None)}, "numpy", "'numpy' has None where the state of numpy's generator ends with two numbers"),
        ({"cuda": torch.zeros(3, dtype=torch.uint8)}, "cuda", "'cuda' is a uint8 tensor of shape [3], where a uint8 tensor of 16 bytes or more"),
    ],
)  # fmt: skip
def test_random_states_of_the_trainer(change, key, said, saved):
    one(saved("rng_state.pth", changed(**change)), "error", "rng/bad-state", "rng_state.pth", key, said)


def test_random_state_files_of_the_trainer(saved):
    found = saved("rng_state.pth", lambda _: {})
    one(found, "error", "rng/bad-state", "rng_state.pth", None, "rng_state.pth holds no state of any generator")


def test_what_torch_refuses_is_refused_here():
    with pytest.raises(RuntimeError, match="Invalid mt19937 state"):
        torch.set_rng_state(torch.zeros(5056, dtype=torch.uint8))


def test_a_position_that_is_written_as_a_float_does_no_harm(saved):
    state = ("MT19937", np.ones(624, "u4"), 6.0, 0, 0.0)
    np.random.RandomState().set_state(state)
    assert saved("rng_state.pth", changed(numpy=state)) == []


def test_a_dimension_more_does_no_harm(saved):
    assert saved("rng_state.pth", changed(cpu=torch.get_rng_state().unsqueeze(0))) == []


@pytest.mark.parametrize("legacy", [False, True, None])
def test_spellings_of_numpys_state_are_fine(legacy, saved):
    form = ("MT19937", [1] * 624, 3) if legacy is None else np.random.get_state(legacy=legacy)  # noqa: NPY002
    assert [f for f in saved("rng_state.pth", changed(numpy=form)) if f[1] == "rng/bad-state"] == []


def test_the_trainer_always_writes_random_states(saved):
    found = saved("rng_state.pth", lambda _: ...)
    one(
        found,
        "warning",
        "rng/missing",
        "rng_state.pth",
        None,
        "there is no rng_state.pth: shuffling and dropout differ",
    )


def test_one_generator_is_missing(saved):
    found = saved("rng_state.pth", changed(numpy=...))
    one(
        found,
        "warning",
        "rng/bad-state",
        "rng_state.pth",
        "numpy",
        "'numpy' is missing, where the state of numpy's generator",
    )


def test_another_files_content_in_a_random_state_file(saved):
    found = saved("rng_state.pth", lambda _: {"base_lrs": [0.1], "last_epoch": 3})
    one(
        found, "error", "rng/bad-state", "rng_state.pth", None, "looks like the state_dict of a learning-rate scheduler"
    )


def test_accelerate_only_logs_random_states(accelerated):
    name = "random_states_0.pkl"
    one(
        accelerated(name, lambda _: {}),
        "warning",
        "rng/bad-state",
        name,
        None,
        "holds no state of any generator; the trainer only logs",
    )
    found = accelerated(name, lambda _: {"T_max": 20, "base_lrs": [0.01], "last_epoch": 6, "_step_count": 7})
    one(found, "warning", "rng/bad-state", name, None, "looks like the state_dict of a learning-rate scheduler")
