"""integrity/signature: signatures that model-signing itself makes and verifies, offline, with keys made on the spot."""

from __future__ import annotations

import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ckpt_rules import UsageError, seal
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
def signed(make_checkpoint, ours):
    checkpoint = make_checkpoint()
    seal(checkpoint, sign_key=ours[0])
    return checkpoint


def test_what_was_signed_with_the_key_passes(signed, ours, run_rule):
    run_rule(Signature(key=ours[1]), signed).assert_passed()
    run_rule(DigestDiffers(), signed).assert_passed()


@pytest.mark.parametrize("file", ["model.safetensors", "ckpt-rules.seal.json"])
def test_a_file_that_changed_since_is_named(signed, ours, run_rule, file):
    signed.flip_bit(file, 300)
    run_rule(Signature(key=ours[1]), signed).assert_one(
        path="model.sig", severity="error", message=f"model.sig does not hold for the files: {file} changed"
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
        path="model.sig", message="model.sig does not hold for the files: "
    )


def test_an_unsigned_checkpoint_is_an_error_for_who_asks(make_checkpoint, ours, run_rule):
    run_rule(Signature(key=ours[1]), make_checkpoint()).assert_one(
        path="model.sig", message="the checkpoint is not signed: there is no model.sig"
    )


def test_without_a_key_it_is_skipped(signed, run_rule):
    run_rule(Signature(), signed).assert_skipped("the ruleset gives no public key")


def test_a_key_that_can_not_be_read_blocks_the_rule(signed, run_rule):
    run_rule(Signature(key="nowhere.pub"), signed).assert_skipped("the public key nowhere.pub can't be used")


def test_signatures_of_the_model_signing_command_are_understood(make_checkpoint, ours, run_rule):
    checkpoint = make_checkpoint()
    command = [sys.executable, "-m", "model_signing", "sign", "key", "--private_key", ours[0]]
    subprocess.run(
        [*command, "--signature", str(checkpoint / "model.sig"), str(checkpoint.path)], check=True, capture_output=True
    )
    run_rule(Signature(key=ours[1]), checkpoint).assert_passed()


@pytest.mark.parametrize(
    ("key", "why"), [("nowhere.pem", "can't be read: no such file"), ("ours.pub", "can't be used: ")]
)
def test_a_private_key_that_can_not_be_used_is_told(make_checkpoint, ours, tmp_path, key, why):
    checkpoint = make_checkpoint()
    with pytest.raises(UsageError, match=why):
        seal(checkpoint, sign_key=tmp_path / key)
    assert not (checkpoint / "model.sig").exists()
