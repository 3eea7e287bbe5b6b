"""What never held a training state is one finding of its own, not a file to copy from somewhere."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from ckpt_rules import CheckpointInvalid, Layout, Match, quick_verify_checkpoint, verify
from ckpt_rules_files.presence import NotResumable

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4, "vocab_size": 8}


def adapter(path):
    tensors = {
        f"base_model.model.q.lora_{half}.weight": torch.ones(shape) for half, shape in (("A", (2, 4)), ("B", (4, 2)))
    }
    save_file(tensors, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "target_modules": ["q"]}')


def pipeline(path):
    index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}
    (path / "model_index.json").write_text(json.dumps(index))
    (path / "unet").mkdir()
    (path / "unet" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    save_file({"w": torch.ones(2, 2)}, path / "unet" / "diffusion_pytorch_model.safetensors")


def sentences(path):
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "config_sentence_transformers.json").write_text("{}")
    (path / "config.json").write_text(json.dumps(CONFIG))
    save_file({"w": torch.ones(2, 2)}, path / "model.safetensors", metadata={"format": "pt"})


def llama(path):
    torch.save({"tok_embeddings.weight": torch.ones(8, 4)}, path / "consolidated.00.pth")
    (path / "params.json").write_text('{"dim": 4, "n_layers": 0, "vocab_size": 8}')


def shards(path):
    name = "shard-00001-model-00001-of-00001.safetensors"
    save_file({"w": torch.ones(2, 2)}, path / name)


def exported(path):
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "generation_config.json").write_text("{}")
    save_file({"w": torch.ones(2, 2)}, path / "model.safetensors", metadata={"format": "pt"})


def saved(path):
    (path / "config.json").write_text(json.dumps({**CONFIG, "transformers_version": "5.0.0"}))
    save_file({"w": torch.ones(2, 2)}, path / "model.safetensors", metadata={"format": "pt"})


def diffusion_model(path):
    (path / "config.json").write_text('{"_class_name": "UNet2DModel", "_diffusers_version": "0.42.1"}')
    save_file({"w": torch.ones(2, 2)}, path / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


FINAL = {
    adapter: "the directory holds an adapter and no training state",
    pipeline: "the directory holds a pipeline and no training state",
    sentences: "the directory holds a model and no training state",
    llama: "the directory holds weights and no training state",
    shards: "the directory holds weights and no training state",
    diffusion_model: (
        "the directory holds a model that was exported (diffusion_pytorch_model.safetensors) and no training state"
    ),
    exported: "the directory holds a model that was exported (generation_config.json) and no training state",
    saved: "the directory holds a model as save_pretrained writes it (config.json) and no training state",
}


@pytest.mark.parametrize("make", FINAL, ids=lambda make: make.__name__)
def test_it_is_a_finding_of_its_own(make, tmp_path, run_rule):
    make(tmp_path)
    found = run_rule(NotResumable(), tmp_path).assert_one(
        path=".", message=f"{FINAL[make]}, so training can't be resumed from it", severity="error"
    )
    assert "verify with the ruleset inference" in found.help
    assert "copy" not in found.help
    report = verify(tmp_path)
    rules = [f.rule for f in report.findings if f.severity == "error"]
    assert (report.exit_code, rules.count("files/not-resumable"), "files/missing-required" in rules) == (1, 1, False)
    assert report.reason.endswith(FINAL[make])
    assert "no layout" not in " ".join(n.message for n in report.notices)


@pytest.mark.parametrize("make", FINAL, ids=lambda make: make.__name__)
def test_it_is_asked_in_the_training_loop_and_not_where_weights_are_loaded(make, tmp_path):
    make(tmp_path)
    with pytest.raises(CheckpointInvalid, match="can't be resumed from it"):
        quick_verify_checkpoint(tmp_path)
    for ruleset in ("inference", "publish"):
        assert "files/not-resumable" not in {o.rule for o in verify(tmp_path, ruleset=ruleset).outcomes}


def test_without_the_rule_it_is_still_no_pass(tmp_path):
    adapter(tmp_path)
    report = verify(tmp_path, exclude="files/not-resumable")
    assert report.verdict == "unknown"
    assert "the directory holds an adapter and no training state" in report.reason


def test_a_save_passes(make_checkpoint, run_rule):
    run_rule(NotResumable(), make_checkpoint()).assert_passed()


def test_a_save_that_lost_its_state_is_asked_for_it(make_checkpoint):
    ck = make_checkpoint().remove("training_state.pth")
    errors = [(f.rule, f.place.path) for f in verify(ck.path).findings if f.severity == "error"]
    assert errors == [("files/missing-required", "training_state.pth")]


def test_a_layout_of_a_third_party_says_so_by_an_attribute(tmp_path, run_rule):
    class Export(Layout):
        name, title, resumable = "acme-export", "export of acme", False

        def recognise(self, checkpoint):
            return Match(99, ("acme",)) if checkpoint.listing.has_file("acme.json") else None

    (tmp_path / "acme.json").write_text("{}")
    run_rule(NotResumable(), tmp_path, layouts=[Export()]).assert_one(
        message="export of acme: no training state, so training can't be resumed from it"
    )


class TestConfiguration:
    """config.json of the plain layout, beside `training_state.pth`."""

    def test_without_it_training_can_not_be_resumed(self, make_checkpoint):
        ck = make_checkpoint().remove("config.json")
        errors = [(f.rule, f.place.path) for f in verify(ck.path).findings if f.severity == "error"]
        assert errors == [("files/missing-required", "config.json")]
        with pytest.raises(CheckpointInvalid, match=r"config\.json"):
            quick_verify_checkpoint(ck.path)

    @pytest.mark.parametrize("state_file", ["train_state.pt", "checkpoint.pt"])
    def test_near_variants_never_have_one(self, make_checkpoint, state_file):
        ck = make_checkpoint(state_file=state_file).remove("config.json")
        assert "config.json" not in {f.place.path for f in verify(ck.path).findings}

    def test_nor_has_one_file(self, make_checkpoint):
        ck = make_checkpoint(one_file=True)
        assert "config.json" not in {f.place.path for f in verify(ck.path).findings}


def test_a_save_of_a_run_that_lost_its_state_has_a_file_to_copy(tmp_path):
    save = tmp_path / "checkpoint-500"
    save.mkdir()
    saved(save)
    found = [f for f in verify(save).findings if f.severity == "error"]
    assert [(f.rule, f.place.path) for f in found] == [("files/missing-required", "training_state.pth")]
