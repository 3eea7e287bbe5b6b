"""What was made to harm, and what was damaged at random, is read to the last byte and reported: nothing crashes."""

from __future__ import annotations

import random
import shutil
from contextlib import suppress

import pytest

from ckpt_rules import Status, UsageError, stats, verify
from tests.hostile.clean import CLEAN
from tests.hostile.programs import MARKER
from tests.hostile.samples import HOSTILE

BY_NAME = {sample.name: sample for sample in HOSTILE}


def crashed(report):
    fatal = [n.message for n in report.notices if n.fatal]
    return fatal + [(o.rule, o.crash) for o in report.outcomes if o.status is Status.CRASHED]


def survives(folder):
    assert crashed(verify(folder, ruleset="deep")) == []
    with suppress(UsageError):  # that it holds no tensor
        stats(folder)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_hostile_file_is_read_to_its_end(name, tmp_path, monkeypatch):
    folder = BY_NAME[name].write(tmp_path / "checkpoint").parent
    monkeypatch.chdir(folder)
    survives(folder)
    assert not (folder / MARKER).exists()


@pytest.mark.slow
@pytest.mark.parametrize("sample", CLEAN, ids=lambda sample: sample.name)
def test_a_clean_file_is_not_reported(sample, tmp_path):
    try:
        folder = sample.write(tmp_path / "checkpoint").parent
    except ModuleNotFoundError as missing:
        pytest.skip(str(missing))
    found = verify(folder, ruleset="deep", select=["integrity/*", "numerics/*"], exclude="integrity/unsigned")
    assert [f.message for f in found.findings] == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_survived(make_checkpoint, seed, tmp_path):
    chosen = random.Random(seed)
    checkpoint = make_checkpoint(epoch=1, legacy=bool(seed % 2))
    damaged = tmp_path / "damaged"
    shutil.copytree(checkpoint.path, damaged)
    for file in damaged.iterdir():
        raw = bytearray(file.read_bytes())
        for _ in range(chosen.randint(1, 30)):
            raw[chosen.choice([chosen.randrange(len(raw)), chosen.randrange(300), -1 - chosen.randrange(300)])] = (
                chosen.randrange(256)
            )
        file.write_bytes(raw[: chosen.choice([len(raw), chosen.randrange(len(raw))])])
    survives(damaged)
