"""Every sample, and every sample that lacks one of its files, is taken for what it was, and found guilty of what it was."""

from __future__ import annotations

import pytest
import yaml

from tests.cases.snapshot import ARCHIVES, WRITTEN, gather, seen

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("archive", [*ARCHIVES, "fixtures"])
def test_nothing_is_taken_for_anything_else(archive, tmp_path):
    expected = yaml.safe_load(WRITTEN.read_text(encoding="utf-8"))[archive]
    gather(archive, tmp_path)
    found = seen(tmp_path)
    assert found.keys() == expected.keys()
    changed = [save for save in found if found[save] != expected[save]]
    assert not changed, {save: (expected[save], found[save]) for save in changed[:5]}
