"""Saves with the real Orbax and Keras: `make_fixtures.py` writes tests/layouts/jax/fixtures anew; see `make fixtures`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

FIXTURES = Path(__file__).parent / "fixtures"


def orbax() -> None:
    import jax.numpy as jnp
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(FIXTURES / "orbax") as manager:
        for step in (1, 2):
            state = {"params": {"w": jnp.ones((4, 2)) * step}, "step": step}
            manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))


def keras() -> None:
    import keras as k
    import numpy as np

    model = k.Sequential([k.layers.Input((2,)), k.layers.Dense(2)])
    model.compile("adam", "mse")
    folder = FIXTURES / "keras"
    folder.mkdir()
    model.fit(np.ones((4, 2)), np.ones((4, 2)), epochs=2, verbose=0)
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")


if __name__ == "__main__":
    shutil.rmtree(FIXTURES, ignore_errors=True)
    FIXTURES.mkdir()
    orbax()
    keras()
