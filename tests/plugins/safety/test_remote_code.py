"""config/remote-code: text that names code to be run."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
import torch

from ckpt_rules import verify
from ckpt_rules_safety.remote_code import RemoteCode


@pytest.fixture
def put_json(tmp_path):
    """`put_json("config.json", value)`: a directory that holds this file."""

    def write(name, value):
        path = tmp_path / "ck" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
        return tmp_path / "ck"

    return write


def lambda_layer(function):
    return {"class_name": "Functional", "config": {"layers": [
        {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "l", "function": function}},
    ]}}  # fmt: skip


LAMBDA = {"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}
IN_KERAS = "config.layers.0.config.function.class_name"
NAMED = {
    "auto_map": ("config.json", {"auto_map": {"AutoModel": "modeling_x.Net"}}, "auto_map.AutoModel", "modeling_x.Net"),
    "auto_map of a repository": (
        "config.json",
        {"auto_map": {"AutoConfig": "who/x--configuration_x.Config"}},
        "auto_map.AutoConfig",
        "who/x--configuration_x.Config",
    ),
    "auto_map of a tokenizer": (
        "tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": [None, "tokenization_x.Tok"]}},
        "auto_map.AutoTokenizer.1",
        "tokenization_x.Tok",
    ),
    "a kernel": (
        "config.json",
        {"_attn_implementation_internal": "attacker/kernel"},
        "_attn_implementation_internal",
        "attacker/kernel",
    ),
    "a kernel of a part": (
        "config.json",
        {"text_config": {"_attn_implementation": "attacker/kernel@main:f"}},
        "text_config._attn_implementation",
        "attacker/kernel@main:f",
    ),
    "PEFT": (
        "adapter_config.json",
        {"auto_mapping": {"base_model_class": "X", "parent_library": "evil_pkg"}},
        "auto_mapping.parent_library",
        "evil_pkg",
    ),
    "sentence-transformers": (
        "modules.json",
        [{"idx": 0, "name": "0", "path": "", "type": "evil_mod.Thing"}],
        "0.type",
        "evil_mod.Thing",
    ),
    "an activation": (
        "1_Dense/config.json",
        {"in_features": 2, "activation_function": "evil_mod.f"},
        "activation_function",
        "evil_mod.f",
    ),
    "a chat template": (
        "tokenizer_config.json",
        {"chat_template": [{"name": "default", "template": ""}, {"name": "../../x", "template": ""}]},
        "chat_template.1.name",
        "../../x",
    ),
    "a Lambda layer": ("config.json", lambda_layer(LAMBDA), IN_KERAS, "__lambda__"),
    "a module of Python": (
        "config.json",
        {"class_name": "function", "module": "os", "config": "system"},
        "module",
        "os.system",
    ),
}


@pytest.mark.parametrize("what", NAMED)
def test_code_is_named_by(what, put_json, run_rule):
    path, value, key, code = NAMED[what]
    folder = put_json(path, value)
    found = run_rule(RemoteCode(), folder).assert_one(path=path, key=key, severity="warning", data={"code": code})
    assert found.message.startswith(f"{key} is {code!r}: ")
    run_rule(RemoteCode(allow=(code,)), folder).assert_passed()


def test_it_is_an_error_in_publish(put_json):
    folder = put_json("config.json", {"auto_map": {"AutoModel": "modeling_x.Net"}})
    severities = {
        name: [f.severity.value for f in verify(folder, ruleset=name).findings if f.rule == "config/remote-code"]
        for name in ("default", "quick", "inference", "publish")
    }
    assert severities == {"default": ["warning"], "quick": ["warning"], "inference": ["warning"], "publish": ["error"]}


HARMLESS = {
    "auto_map null": ("config.json", {"auto_map": None}),
    "auto_map empty": ("config.json", {"auto_map": {}}),
    "attention that transformers has": ("config.json", {"_attn_implementation": "flash_attention_2"}),
    "a PEFT adapter with a task": ("adapter_config.json", {"auto_mapping": None, "task_type": "CAUSAL_LM"}),
    "a PEFT adapter of transformers": (
        "adapter_config.json",
        {"auto_mapping": {"base_model_class": "LlamaModel", "parent_library": "transformers.models.llama.modeling_llama"}},
    ),
    "a PEFT adapter of a script": (
        "adapter_config.json",
        {"auto_mapping": {"base_model_class": "Net", "parent_library": "__main__"}},
    ),
    "the modules of sentence-transformers": (
        "modules.json",
        [
            {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
        ],
    ),
    "an activation of torch": ("2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Tanh"}),
    "an activation by its own name": ("config.json", {"activation_function": "gelu_new"}),
    "chat templates by name": ("tokenizer_config.json", {"chat_template": [{"name": "tool_use", "template": ""}]}),
    "layers of Keras": ("config.json", lambda_layer(None) | {"config": {"layers": [{"class_name": "Dense", "config": {}}]}}),
    "lists where none belong": ("config.json", [1, None]),
    "numbers where text belongs": ("config.json", {"auto_map": 3, "_attn_implementation": 5, "text_config": [None]}),
    "nothing where a dictionary belongs": ("modules.json", {"0": None}),
    "templates of the wrong kind": ("tokenizer_config.json", {"chat_template": [3, {"name": None}]}),
    "a mapping of the wrong kind": ("adapter_config.json", {"auto_mapping": ["x"]}),
}  # fmt: skip


@pytest.mark.parametrize("what", HARMLESS)
def test_it_is_silent_about(what, put_json, run_rule):
    run_rule(RemoteCode(), put_json(*HARMLESS[what])).assert_passed()


def test_what_sentence_transformers_writes_is_silent(tmp_path, run_rule):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import modules

    words = modules.WordEmbeddings if hasattr(modules, "WordEmbeddings") else None
    if words is None:
        pytest.skip("this version has no module that needs no network")
    bow = modules.BoW(vocab=["a", "b"])
    sentence_transformers.SentenceTransformer(modules=[bow, modules.Dense(2, 2)], device="cpu").save(
        str(tmp_path / "ck")
    )
    run_rule(RemoteCode(), tmp_path / "ck").assert_passed()


@pytest.mark.parametrize(
    ("values", "key", "code"),
    [
        ({"_instantiator": "os.system", "x": 1}, "_instantiator", "os.system"),
        ({"_class_path": "evil.Net"}, "_class_path", "evil.Net"),
        (
            {"_instantiator": "lightning.pytorch.cli.instantiate_module", "_class_path": "subprocess.Popen"},
            "_class_path",
            "subprocess.Popen",
        ),
    ],
)
def test_code_is_named_by_hyper_parameters(values, key, code, tmp_path, run_rule):
    torch.save({"state_dict": {}, "hyper_parameters": values}, tmp_path / "last.ckpt")
    run_rule(RemoteCode(), tmp_path).assert_one(path="last.ckpt", key=f"hyper_parameters.{key}", data={"code": code})


def test_what_the_command_line_of_lightning_writes_is_silent(tmp_path, run_rule):
    values = {
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
        "_class_path": "project.models.Net",
        "lr": 0.1,
    }
    torch.save({"state_dict": {}, "hyper_parameters": values}, tmp_path / "last.ckpt")
    torch.save({"state_dict": {}, "hyper_parameters": [1]}, tmp_path / "other.ckpt")
    run_rule(RemoteCode(), tmp_path).assert_passed()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_lambda_layer_in_a_keras_file(method, tmp_path, run_rule):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("config.json", json.dumps(lambda_layer(LAMBDA)))
        archive.writestr("model.weights.h5", b"")
    (tmp_path / "model.keras").write_bytes(stream.getvalue())
    run_rule(RemoteCode(), tmp_path).assert_one(path="model.keras", key=f"config.json: {IN_KERAS}")


def test_a_pipeline_whose_code_lies_in_the_checkpoint(put_json, run_rule):
    folder = put_json("model_index.json", {"_class_name": ["pipeline", "Mine"], "unet": ["diffusers", "UNet2DModel"]})
    run_rule(RemoteCode(), folder).assert_passed()
    (folder / "pipeline.py").write_text("")
    run_rule(RemoteCode(), folder).assert_one(path="model_index.json", key="_class_name", data={"code": "pipeline"})


def hdf5(config):
    """A model as Keras writes it: the configuration is one text, somewhere in the file."""
    return b"\x89HDF\r\n\x1a\n" + bytes(600) + json.dumps(config).encode() + bytes(3000)


def test_a_lambda_layer_in_an_hdf5_file(tmp_path, run_rule):
    (tmp_path / "model.h5").write_bytes(hdf5(lambda_layer(["4wEAAAA=", None, None])))
    key = "model_config: config.layers.0.class_name"
    run_rule(RemoteCode(), tmp_path).assert_one(path="model.h5", key=key, severity="warning", data={"code": "Lambda"})
    (tmp_path / "model.h5").write_bytes(hdf5({"class_name": "Functional", "config": {"layers": []}}))
    run_rule(RemoteCode(), tmp_path).assert_passed()


IN_YAML = {
    "a call": ("a: 1\nb: !!python/object/apply:os.system ['true']\n", "line 2", "os.system"),
    "a name": ("b: !!python/name:subprocess.Popen\n", "line 1", "subprocess.Popen"),
    "HyperPyYAML": ("x:\n  m: !new:os.system\n    command: ls\n", "line 2", "os.system"),
    "Hydra": ("model:\n  _target_: builtins.eval\n  _args_: ['1']\n", "line 2, _target_", "builtins.eval"),
    "a tag with an escape": ("a: !!python%2Fobject%2Fapply:os.system [x]\n", "line 1", "os.system"),
    "a tag with a handle": ("%TAG !p! tag:yaml.org,2002:python/\n---\na: !p!name:os.system\n", "line 3", "os.system"),
    "a type to be made": ("a: !!python/object/new:type {}\n", "line 1", "type"),
    "a second document": ("a: 1\n---\nb: !!python/object/apply:os.system [x]\n", "line 3", "os.system"),
    "a command line": ("model: {class_path: subprocess.run}\n", "line 1, class_path", "subprocess.run"),
    "before what is broken": ("a: !!python/object/new:os.system {}\nb: [\n", "line 1", "os.system"),
}


@pytest.mark.parametrize("what", IN_YAML)
def test_yaml_names_code(what, tmp_path, run_rule):
    text, key, code = IN_YAML[what]
    (tmp_path / "hparams.yaml").write_text(text)
    run_rule(RemoteCode(), tmp_path).assert_one(path="hparams.yaml", key=key, severity="warning", data={"code": code})


@pytest.mark.parametrize(
    "text",
    [
        "_target_: project.models.Net\nlr: 0.1\n",
        "a: !!python/tuple [1, 2]\nb: !!python/object/apply:pathlib.PosixPath [a]\n",
        "a: !!python/object:argparse.Namespace {lr: 1}\n",
        "m: !new:torch.nn.Linear\n  in_features: 3\nn: !ref <m>\n",
        "class_path: lightning.pytorch.Trainer\n",
        "python/ is a folder: [",
    ],
)
def test_yaml_that_trainers_write_is_silent(text, tmp_path, run_rule):
    (tmp_path / "config.yaml").write_text(text)
    run_rule(RemoteCode(), tmp_path).assert_passed()


def test_a_target_in_json(put_json, run_rule):
    folder = put_json("config.json", {"model": {"_target_": "os.system"}, "data": {"_target_": "project.Data"}})
    run_rule(RemoteCode(), folder).assert_one(path="config.json", key="model._target_", data={"code": "os.system"})


def test_a_target_in_json_of_any_name(put_json, run_rule):
    folder = put_json("hparams.json", {"parts": [{"a": {"_target_": "subprocess.run"}}, {"class_path": "project.Net"}]})
    key = "parts.0.a._target_"
    run_rule(RemoteCode(), folder).assert_one(path="hparams.json", key=key, data={"code": "subprocess.run"})


def test_a_program_that_generates(put_json, run_rule):
    folder = put_json("config.json", {"model_type": "llama"})
    path = folder / "custom_generate/generate.py"
    path.parent.mkdir()
    path.write_text("")
    run_rule(RemoteCode(), folder).assert_one(path="custom_generate/generate.py", severity="warning")
    path.rename(folder / "generate.py")
    run_rule(RemoteCode(), folder).assert_passed()
