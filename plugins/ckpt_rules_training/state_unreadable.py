"""state/unreadable: files that can be opened but not understood."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule
from ckpt_rules_training.soundness import is_sound

_READ_BY_LOADERS = re.compile(
    r".*config\.json"  # transformers, diffusers, PEFT
    r"|.*\.index\.json"  # of shards, as huggingface_hub writes them
    r"|.*state.*\.json"  # the transformers Trainer, and scripts
    r"|(?:args|hparams|model_args|train_args|progress)\.json"  # scripts
    r"|params\.json"  # Llama and Mistral, as their authors release them
    r"|special_tokens_map\.json"  # tokenizers of transformers
    r"|config_sentence_transformers\.json"
)
_TOKENIZER = "tokenizer.json"  # of tokenizers, which takes long to parse where it is large
_LARGE = 4 << 20
_LISTS = frozenset({"modules.json"})  # of sentence-transformers


class UnreadableState(Rule):
    """The training state or a configuration can't be parsed, or is not a dictionary.

    ## What it checks
    Every JSON file that a loader reads (`config.json`, `*_config.json`, `*.index.json`, `trainer_state.json` and the
    like, those that the layout requires, and a `tokenizer.json` of up to 4 MiB) must parse and contain a dictionary,
    and so must the training state's torch file. Damage to the torch file itself is reported by
    `weights/broken-torch-file`.

    ## Why it matters
    A save that was interrupted, or a full disk, leaves half a JSON file. Loaders then fail with a parser error that
    does not name the checkpoint; some trainers silently start from scratch instead.

    ## How to repair
    Restore the file from the previous save, or from another copy. `config.json` can be written again from the code that
    built the model. A training state that is not a dictionary was not written by the trainer.
    """

    id = "state/unreadable"
    tags = frozenset({"resume", "load"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file."""
        required = {name for requirement in checkpoint.requirements for name in requirement.names}
        for entry in checkpoint.files.of_format("json"):
            wanted = _READ_BY_LOADERS.fullmatch(entry.name) or (entry.name == _TOKENIZER and entry.size <= _LARGE)
            if entry.path in required or wanted:
                yield from _json_problems(checkpoint, entry.path)
        yield from _state_problems(checkpoint)


def _json_problems(checkpoint: Checkpoint, path: str) -> Iterator[Problem]:
    try:
        file = checkpoint.files.json(path)
    except FactUnavailable:
        return  # it can't be opened: files/unreadable says so
    severity = checkpoint.layout.severity_of_damage(path)
    fatal = next((p for p in file.problems if p.fatal), None)
    if fatal:
        place, data = Place(path=path, offset=fatal.offset), {"code": fatal.code}
        message = f"{path} can't be parsed: {fatal.message}"
        yield Problem(message=message, place=place, help=_HELP, severity=severity, data=data)
    elif not isinstance(file.value, Mapping) and path not in _LISTS:
        kind = type(file.value).__name__
        message = f"{path} holds a JSON value of type {kind}, expected a dictionary"
        yield Problem(message=message, place=Place(path=path), help=_HELP, severity=severity, data={"type": kind})


def _state_problems(checkpoint: Checkpoint) -> Iterator[Problem]:
    try:
        checkpoint.state  # noqa: B018 - asked for its complaint
    except FactUnavailable as absent:
        if absent.blocked and absent.path and not absent.path.endswith(".json") and is_sound(checkpoint, absent.path):
            yield Problem(message=absent.reason, place=Place(path=absent.path), help=_HELP)


_HELP = "restore it from another copy or from the previous save"
