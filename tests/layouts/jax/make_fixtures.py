"""Saves with the real Orbax and Keras: `make_fixtures.py` writes tests/layouts/jax/fixtures again; see `make fixtures`.

fixtures/backup/resumed.json says what Keras did when it resumed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

FIXTURES = Path(__file__).parent / "fixtures"


def orbax() -> None:
    import jax.numpy as jnp
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(FIXTURES / "orbax") as manager:
        for step in (1, 2):
            state = {"params": {"w": jnp.ones((4, 2)) * step}, "step": step}
            manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))


def orbax_items() -> None:
    """Several items, of which one is JSON, with an array that is sharded over two devices."""
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(FIXTURES / "items") as manager:
        args = ocp.args.Composite(state=ocp.args.StandardSave(sharded()), data=ocp.args.JsonSave({"epoch": 1}))
        manager.save(3, args=args)


def orbax_zarr() -> None:
    """Without items, and without OCDBT."""
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer(use_ocdbt=False) as checkpointer:
        checkpointer.save(FIXTURES / "zarr" / "4", sharded())


def orbax_large() -> None:
    """Arrays that lie in files of data, zarr 2 and 3, each in two chunks."""
    import numpy as np
    import orbax.checkpoint as ocp

    values = np.random.default_rng(0).standard_normal((2, 24, 24)).astype(np.float32)
    for name, three in (("large", False), ("zarr3", True)):
        for step in (5, 6):
            handler = ocp.PyTreeCheckpointHandler(use_zarr3=three)
            tree = {"params": {"w": values * step}, "step": step}
            args = ocp.args.PyTreeSave(
                tree, save_args={"params": {"w": ocp.SaveArgs(chunk_byte_size=2_400)}, "step": ocp.SaveArgs()}
            )
            ocp.Checkpointer(handler).save(FIXTURES / name / str(step), args=args)


def ocdbt() -> None:
    """A tree of several levels, which Orbax's large nodes have only with a great many arrays; each value is its key again."""
    import tensorstore as ts

    for name, compression in (("packed", {"id": "zstd"}), ("plain", None)):
        config = {"max_decoded_node_bytes": 400, "max_inline_value_bytes": 12, "compression": compression}
        base = f"file://{FIXTURES}/ocdbt/{name}/"
        store = ts.KvStore.open({"driver": "ocdbt", "base": base, "config": config}).result()
        for step in range(2):
            with ts.Transaction() as transaction:
                for number in range(step * 30, step * 30 + 30):
                    key = f"layer.{number:02}/" + "0." * (number % 5) + "0"
                    store.with_transaction(transaction)[key] = key.encode()


def sharded() -> dict[str, object]:
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    rows = NamedSharding(Mesh(jax.devices(), ("x",)), PartitionSpec("x"))
    return {"params": {"w": jax.device_put(jnp.arange(8.0).reshape(4, 2) + 1, rows)}, "step": 3}


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


def keras_backup() -> None:
    """BackupAndRestore after an epoch, within one, and at the last batch of one; each run is cut off and resumed.

    What it did is a list of epoch, batch, the optimizer's updates and the learning rate, as each batch begins.
    """
    import keras as k
    import numpy as np

    class Seen(k.callbacks.Callback):
        def __init__(self, stop=None):
            super().__init__()
            self.stop, self.rows = stop, []

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_begin(self, batch, logs=None):
            if (self.epoch, batch) == self.stop:
                raise InterruptedError
            optimizer = self.model.optimizer
            self.rows.append([self.epoch, batch, int(optimizer.iterations), float(optimizer.learning_rate)])

    def fit(folder, frequency, seen):
        model = k.Sequential([k.layers.Input((2,)), k.layers.Dense(1)])
        model.compile(k.optimizers.SGD(k.optimizers.schedules.ExponentialDecay(0.1, 1, 0.9)), "mse")
        backup = k.callbacks.BackupAndRestore(folder, save_freq=frequency)
        model.fit(np.ones((10, 2)), np.ones((10, 1)), 2, epochs=4, verbose=0, callbacks=[backup, seen])

    found = {}
    for name, frequency, stop in (("epoch", "epoch", (2, 2)), ("within", 4, (2, 4)), ("last", 5, (1, 2))):
        unbroken, resumed, folder = Seen(stop), Seen(), FIXTURES / "backup" / name
        with contextlib.suppress(InterruptedError):
            fit(folder, frequency, unbroken)
        with tempfile.TemporaryDirectory() as work:  # Keras removes its backup at the end
            fit(shutil.copytree(folder, Path(work) / name), frequency, resumed)
        found[name] = {"unbroken": unbroken.rows, "resumed": resumed.rows[:6]}
    (FIXTURES / "backup" / "resumed.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    shutil.rmtree(FIXTURES, ignore_errors=True)
    FIXTURES.mkdir()
    orbax()
    orbax_items()
    orbax_zarr()
    orbax_large()
    ocdbt()
    keras()
    keras_backup()
