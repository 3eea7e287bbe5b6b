"""integrity/signature: signatures that model-signing itself makes and verifies, offline, with keys made on the spot."""

from __future__ import annotations

import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from model_signing import hashing, signing

from ckpt_rules import UsageError, seal, verify
from ckpt_rules_integrity.digests import DigestDiffers
from ckpt_rules_integrity.signatures import Signature


def write_pair(folder, name):
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / f"{name}.pem").write_bytes(pem)
    (folder / f"{name}.pub").write_bytes(public)
    return str(folder / f"{name}.pem"), str(folder / f"{name}.pub")


@pytest.fixture
def ours(tmp_path):
    return write_pair(tmp_path, "ours")


@pytest.fixture
def rsa_key(tmp_path):
    private = rsa.generate_private_key(65537, 2048)
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (tmp_path / "rsa.pem").write_bytes(private.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    public = private.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "rsa.pub").write_bytes(public)
    return str(tmp_path / "rsa.pub")


@pytest.fixture
def signed(make_checkpoint, ours):
    checkpoint = make_checkpoint()
    seal(checkpoint, sign_key=ours[0])
    return checkpoint


def test_what_was_signed_with_the_key_passes(signed, ours, run_rule):
    run_rule(Signature(key=ours[1]), signed).assert_passed()
    run_rule(DigestDiffers(), signed).assert_passed()


def test_a_checkpoint_is_signed_by_its_relative_path_too(make_checkpoint, ours, run_rule, monkeypatch):
    checkpoint = make_checkpoint()
    monkeypatch.chdir(checkpoint.path.parent)
    seal(checkpoint.path.name, sign_key=ours[0])
    run_rule(Signature(key=ours[1]), checkpoint.path.name).assert_passed()
    run_rule(Signature(key=ours[1]), checkpoint).assert_passed()


def test_what_is_sealed_and_signed_anew_passes(signed, ours, run_rule):
    signed.append("config.json", b" ")
    seal(signed, sign_key=ours[0], force=True)
    run_rule(Signature(key=ours[1]), signed).assert_passed()
    run_rule(DigestDiffers(), signed).assert_passed()


def test_a_signature_does_not_outlive_its_seal(signed, ours, run_rule):
    seal(signed, force=True, algorithm="sha256")
    run_rule(Signature(key=ours[1]), signed).assert_one(path="model.sig", message="ckpt-rules.seal.json changed")


def test_what_git_and_the_hub_keep_needs_no_signature(make_checkpoint, ours, run_rule):
    checkpoint = make_checkpoint()
    (checkpoint / ".gitattributes").write_text("x")
    seal(checkpoint, sign_key=ours[0])
    (checkpoint / ".gitattributes").write_text("y")
    (checkpoint / ".cache/huggingface/download").mkdir(parents=True)
    (checkpoint / ".cache/huggingface/download/config.json.metadata").write_text("x")
    run_rule(Signature(key=ours[1]), checkpoint).assert_passed()


def test_in_the_cache_of_the_hub_links_are_followed(signed, ours, run_rule, tmp_path):
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(signed.path.iterdir())):
        (blobs / str(number)).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    run_rule(Signature(key=ours[1]), snapshot).assert_passed()
    (snapshot / "config.json").resolve().write_text("{}")
    run_rule(Signature(key=ours[1]), snapshot).assert_one(path="model.sig", message="config.json changed")


def test_a_link_to_a_directory_is_neither_signed_nor_trusted(signed, ours, tmp_path, run_rule):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "evil.py").write_text("x")
    (signed / "code").symlink_to(tmp_path / "code")
    run_rule(Signature(key=ours[1]), signed).assert_one(
        path="model.sig", message="code is a link to a directory, and its contents can't be signed"
    )
    with pytest.raises(UsageError, match="is sealed, but can't be signed: code is a link to a directory"):
        seal(signed, sign_key=ours[0], force=True)


def test_what_lies_past_a_limit_is_not_trusted(signed, ours, tmp_path):
    ruleset = tmp_path / "few.yaml"
    ruleset.write_text(
        f"extends: [deep]\nlimits: {{entries: 4}}\nrules: {{integrity/signature: {{options: {{key: {ours[1]}}}}}}}\n"
    )
    (outcome,) = verify(signed, ruleset=ruleset, select=["integrity/signature"]).outcomes
    assert (outcome.status, outcome.blocked_by) == ("skipped", ".")
    assert outcome.reason.startswith("not everything could be listed: there are more than 4")


@pytest.mark.parametrize("file", ["model.safetensors", "ckpt-rules.seal.json"])
def test_a_file_that_changed_since_is_named(signed, ours, run_rule, file):
    signed.flip_bit(file, 300)
    run_rule(Signature(key=ours[1]), signed).assert_one(
        path="model.sig", severity="error", message=f"model.sig does not match the files: {file} changed"
    )


def test_a_file_that_appeared_is_named(signed, ours, run_rule):
    (signed / "evil.py").write_text("x")
    run_rule(Signature(key=ours[1]), signed).assert_one(path="model.sig", message="files: evil.py appeared")


def test_a_file_that_vanished_is_named(signed, ours, run_rule):
    signed.remove("config.json")
    run_rule(Signature(key=ours[1]), signed).assert_one(path="model.sig", message="files: config.json vanished")


def test_the_signature_of_somebody_else_does_not_hold(make_checkpoint, tmp_path, ours, run_rule):
    checkpoint = make_checkpoint()
    seal(checkpoint, sign_key=write_pair(tmp_path, "theirs")[0])
    run_rule(Signature(key=ours[1]), checkpoint).assert_one(path="model.sig", message="Key mismatch")


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", "\x00\x01"])
def test_a_damaged_signature_does_not_hold_either(signed, ours, run_rule, text):
    (signed / "model.sig").write_text(text)
    run_rule(Signature(key=ours[1]), signed).assert_one(
        path="model.sig", message="model.sig does not match the files: "
    )


def test_an_unsigned_checkpoint_is_an_error_for_who_asks(make_checkpoint, ours, run_rule):
    run_rule(Signature(key=ours[1]), make_checkpoint()).assert_one(
        path="model.sig", message="the checkpoint is not signed: there is no model.sig"
    )


def test_without_a_key_it_is_skipped(signed, run_rule):
    run_rule(Signature(), signed).assert_skipped("the ruleset gives no public key")


def test_a_key_that_can_not_be_read_blocks_the_rule(signed, run_rule):
    run_rule(Signature(key="nowhere.pub"), signed).assert_skipped("the public key nowhere.pub can't be used")


def test_a_signature_over_shards_is_understood(make_checkpoint, ours, run_rule):
    checkpoint = make_checkpoint()
    hashed = hashing.Config().use_shard_serialization(shard_size=1000).set_ignored_paths(paths=["model.sig"])
    config = signing.Config().use_elliptic_key_signer(private_key=ours[0]).set_hashing_config(hashed)
    config.sign(checkpoint.path, checkpoint / "model.sig")
    run_rule(Signature(key=ours[1]), checkpoint).assert_passed()
    checkpoint.flip_bit("model.safetensors", 300)
    run_rule(Signature(key=ours[1]), checkpoint).assert_one(
        path="model.sig", message="model.safetensors:0:1000 changed"
    )


def test_signatures_of_the_model_signing_command_are_understood(make_checkpoint, ours, run_rule):
    checkpoint = make_checkpoint()
    command = [sys.executable, "-m", "model_signing", "sign", "key", "--private_key", ours[0]]
    subprocess.run(
        [*command, "--signature", str(checkpoint / "model.sig"), str(checkpoint.path)], check=True, capture_output=True
    )
    run_rule(Signature(key=ours[1]), checkpoint).assert_passed()


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("nowhere.pem", "can't be read: no such file"),
        ("ours.pub", "can't be used: "),
        ("rsa.pem", "can't be used: it lies on no elliptic curve"),
    ],
)
def test_a_private_key_that_can_not_be_used_is_told_before_anything_is_written(
    make_checkpoint, ours, rsa_key, tmp_path, key, why
):
    checkpoint = make_checkpoint()
    with pytest.raises(UsageError, match=why):
        seal(checkpoint, sign_key=tmp_path / key)
    assert sorted(p.name for p in checkpoint.path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "training_state.pth",
    ]


def test_a_public_key_on_no_elliptic_curve_blocks_the_rule(signed, rsa_key, run_rule):
    run_rule(Signature(key=rsa_key), signed).assert_skipped("can't be used: it is not an elliptic-curve key")


def test_without_the_extra_the_rule_is_skipped_and_nothing_is_sealed(
    signed, ours, make_checkpoint, run_rule, monkeypatch
):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    run_rule(Signature(key=ours[1]), signed).assert_skipped("install ckpt-rules[signing]")
    checkpoint = make_checkpoint()
    with pytest.raises(UsageError, match=r"install ckpt-rules\[signing\]"):
        seal(checkpoint, sign_key=ours[0])
    assert not (checkpoint / "ckpt-rules.seal.json").exists()
