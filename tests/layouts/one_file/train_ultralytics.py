"""Trains a YOLO with ultralytics, saves and resumes: `train_ultralytics.py` writes fixtures/ultralytics; see `make fixtures`.

`interrupted` is what lies there when training dies after two of four epochs; `finished` is what a run leaves, stripped. All is
ultralytics' own, but for torchvision, of which nothing is needed but one function (stand_in.py).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from stand_in import stand_in_for_torchvision
from written import FIXTURES, write_seen

os.environ |= {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": tempfile.mkdtemp()}
stand_in_for_torchvision()

import cv2
import numpy as np
from ultralytics import YOLO

IMAGES, SIDE, EPOCHS, DIES_AFTER = 8, 32, 4, 2
MODEL = """nc: 1
reg_max: 1
backbone:
  - [-1, 1, Conv, [4, 3, 2]]
  - [-1, 1, Conv, [4, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
head:
  - [[2], 1, Detect, [nc]]
"""
TRAINING = {"imgsz": SIDE, "batch": 4, "workers": 0, "device": "cpu", "plots": False, "amp": False, "verbose": False}


class Interrupted(Exception):
    pass


def data_in(work: Path) -> Path:
    """Bright squares on dark ground, and where they are."""
    random = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (work / kind / "train").mkdir(parents=True)
    for number in range(IMAGES):
        image = np.full((SIDE, SIDE, 3), 20, np.uint8)
        left, top = (int(v) for v in random.integers(4, 16, 2))
        image[top : top + 12, left : left + 12] = 200
        cv2.imwrite(str(work / "images" / "train" / f"{number}.png"), image)
        box = [(left + 6) / SIDE, (top + 6) / SIDE, 12 / SIDE, 12 / SIDE]
        (work / "labels" / "train" / f"{number}.txt").write_text(f"0 {' '.join(map(str, box))}\n")
    path = work / "data.yaml"
    path.write_text(f"path: {work}\ntrain: images/train\nval: images/train\nnames: {{0: box}}\n")
    (work / "tiny.yaml").write_text(MODEL)
    return path


def die(trainer) -> None:
    if trainer.epoch + 1 == DIES_AFTER:
        raise Interrupted


def train(work: Path, name: str, *, epochs: int, dies: bool) -> Path:
    model = YOLO(work / "tiny.yaml")
    if dies:
        model.add_callback("on_model_save", die)
    where = {"project": str(work / "runs"), "name": name, "exist_ok": True, "save_period": 1}
    with suppress(Interrupted):
        model.train(data=str(work / "data.yaml"), epochs=epochs, **where, **TRAINING)
    return work / "runs" / name / "weights"


def resumed(file: Path, data: Path, *, by_path: bool = False) -> dict[str, object]:
    """The first batch that is trained, its epoch counted from 0, and the learning rate of each group; or why there is none.

    by_path: whether the file is named as the one to resume, instead of `resume=True`
    """
    seen: list[dict[str, object]] = []

    def look(trainer) -> None:
        rates = [group["lr"] for group in trainer.optimizer.param_groups]
        updates = {int(s["step"]) for s in trainer.optimizer.state.values()} or {0}
        seen.append({"epoch": trainer.epoch, "updates": updates.pop(), "lr": rates})
        raise Interrupted

    model = YOLO(file)
    model.add_callback("on_train_batch_start", look)
    try:
        model.train(resume=str(file) if by_path else True, data=str(data), **TRAINING)
    except Interrupted:
        return seen[0]
    except AssertionError as error:
        return {"refused": str(error).partition("\n")[0].replace(str(file), file.name)}
    raise SystemExit(f"{file} was neither resumed nor refused")


def main() -> None:
    shutil.rmtree(FIXTURES / "ultralytics", ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        os.chdir(work)
        data = data_in(work)
        interrupted = train(work, "interrupted", epochs=EPOCHS, dies=True)
        finished = train(work, "finished", epochs=1, dies=False)
        for weights, kept in {
            interrupted: ("last.pt", "best.pt"),
            finished: ("last.pt", "best.pt", "epoch0.pt"),
        }.items():
            target = FIXTURES / "ultralytics" / weights.parent.name
            target.mkdir(parents=True)
            for file in kept:
                shutil.copy2(weights / file, target)
            seen = {file: resumed(weights / file, data) for file in kept}
            if weights == finished:
                seen["last.pt by its path"] = resumed(weights / "last.pt", data, by_path=True)
            write_seen("ultralytics", target.name, seen)


if __name__ == "__main__":
    main()
