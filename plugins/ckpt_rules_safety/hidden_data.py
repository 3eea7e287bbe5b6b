"""safetensors/hidden-data: what a header carries that no tensor needs."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, Place, Problem, Rule


class HiddenData(Rule):
    """A safetensors header contains something that no loader shows.

    ## What it checks
    Entries that are in the header twice (loaders use the last); fields of entries that the format does not define; more
    than 4 kB of white space after the JSON. The library accepts all three. It refuses bytes after or between the
    tensors, and `weights/broken-safetensors` reports them. Metadata may be of any length and is not a finding.

    ## Why it matters
    Two readers may see different tensors under one name, and anything can be hidden in the rest of the file.

    ## How to repair
    Load the file and save it again with the safetensors library; take it from another source if you can't tell who wrote
    it.
    """

    id = "safetensors/hidden-data"
    tags = frozenset({"safety"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each such thing."""
        for entry in checkpoint.files.of_format("safetensors"):
            for fault in checkpoint.files.safetensors(entry.path).problems:
                if fault.code == "hidden":
                    yield Problem(
                        message=fault.message,
                        place=Place(path=entry.path, tensor=fault.where, offset=fault.offset),
                        help="load it and save it again with the safetensors library",
                        data={"code": fault.code},
                    )
