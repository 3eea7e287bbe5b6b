"""Trains a language model with fairseq's own command, saves and resumes: `train_fairseq.py` writes fixtures/fairseq; see `make fixtures`.

The package is fairseq-fixed: fairseq itself does not run on Python 3.11. One run saves within an epoch and at its end, and its files are
resumed by the same command; resumed.json holds the batch that was trained first.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock

from written import FIXTURES, write_seen

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # fairseq loads as older torch did

from fairseq.trainer import Trainer
from fairseq_cli import preprocess, train

LINES, KEPT = 40, ("checkpoint_1_3.pt", "checkpoint1.pt", "checkpoint_2_7.pt", "checkpoint_last.pt")
MODEL = (
    "--arch transformer_lm --decoder-embed-dim 4 --decoder-input-dim 4 --decoder-output-dim 4 --decoder-ffn-embed-dim 4 "
    "--decoder-layers 1 --decoder-attention-heads 1"
)
UPDATES = (
    "--optimizer adam --lr 0.01 --lr-scheduler inverse_sqrt --warmup-updates 4 --max-epoch 2 --tokens-per-sample 8"
)
SAVING = "--save-interval-updates 1 --batch-size 4 --no-progress-bar --cpu --disable-validation --seed 1"


class Stopped(Exception):
    pass


def command(main, *words: str) -> None:
    with mock.patch.object(sys, "argv", ["fairseq", *words]):
        main()


def data_in(work: Path) -> Path:
    text = work / "text"
    text.write_text("".join(f"{i} {i + 1} {i + 2}\n" for i in range(LINES)))
    command(
        preprocess.cli_main,
        "--only-source",
        "--trainpref",
        str(text),
        "--destdir",
        str(work / "data"),
        "--workers",
        "1",
    )
    return work / "data"


def run(data: Path, saves: Path, *more: str) -> None:
    words = f"--task language_modeling {MODEL} {UPDATES} {SAVING}".split()
    command(train.cli_main, str(data), *words, "--save-dir", str(saves), *more)


def watched(data: Path, saves: Path, *more: str, stops: bool) -> list[dict[str, object]]:
    """The batches of three epochs: the epoch, how many of it came before, the updates done, the learning rate."""
    seen: list[dict[str, object]] = []
    iterators = []
    build, train = Trainer.get_train_iterator, Trainer.train_step

    def building(trainer, *args, **options):
        iterators.append(build(trainer, *args, **options))
        return iterators[-1]

    def step(trainer, samples, raise_oom=False):
        items = [int(i) for sample in samples for i in sample["id"]]
        where = {"epoch": iterators[-1].epoch, "before": iterators[-1].iterations_in_epoch - 1}
        seen.append({**where, "items": items, "updates": trainer.get_num_updates(), "lr": trainer.get_lr()})
        if stops:
            raise Stopped
        return train(trainer, samples, raise_oom)

    with mock.patch.object(Trainer, "get_train_iterator", building), mock.patch.object(Trainer, "train_step", step):
        try:
            run(data, saves, "--max-epoch", "3", *more)
        except Stopped:
            return seen
    return seen


def resumed(data: Path, saves: Path, file: str, unbroken: list[dict[str, object]]) -> dict[str, object]:
    """The batch that is trained first, and the items of each batch of an unbroken run, by the epoch."""
    (first,) = watched(data, saves.parent / "again", "--restore-file", str(saves / file), stops=True)
    return {**first, "unbroken": [batch["items"] for batch in unbroken if batch["epoch"] == first["epoch"]]}


def main() -> None:
    shutil.rmtree(FIXTURES / "fairseq", ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        data, saves = data_in(work), work / "saves"
        run(data, saves)
        target = FIXTURES / "fairseq" / "run"
        target.mkdir(parents=True)
        unbroken = watched(data, work / "unbroken", stops=False)
        for file in KEPT:
            shutil.copy2(saves / file, target)
        write_seen("fairseq", "run", {file: resumed(data, saves, file, unbroken) for file in KEPT})


if __name__ == "__main__":
    main()
