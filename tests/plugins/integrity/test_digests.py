"""integrity/digest and integrity/unsigned: files against a seal, lists of checksums and what the hub noted."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time

import pytest

from ckpt_rules import seal, verify
from ckpt_rules_integrity.digests import DigestDiffers, Unsigned

SEAL = "ckpt-rules.seal.json"


@pytest.fixture
def sealed(make_checkpoint):
    checkpoint = make_checkpoint()
    seal(checkpoint)
    return checkpoint


class TestSeal:
    def test_what_was_sealed_passes(self, sealed, run_rule):
        run_rule(DigestDiffers(), sealed).assert_passed()

    @pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
    @pytest.mark.parametrize("offset", [0, 100, -1], ids=["length of the header", "header", "last weight"])
    def test_any_bit_that_flips_is_seen(self, sealed, run_rule, offset, algorithm):
        seal(sealed, algorithm=algorithm, force=True)
        size = (sealed / "model.safetensors").stat().st_size
        sealed.flip_bit("model.safetensors", offset % size)
        found = run_rule(DigestDiffers(), sealed).assert_one(
            path="model.safetensors", message=f"the file's {algorithm} digest is ", severity="error"
        )
        assert found.message.endswith(f"the content of its {size:,} bytes has changed")
        assert found.data["source"] == SEAL
        assert found.data["digest"] != found.data["expected"]

    def test_another_size_is_told_with_both(self, sealed, run_rule):
        size = (sealed / "config.json").stat().st_size
        sealed.append("config.json", b"  ")
        run_rule(DigestDiffers(), sealed).assert_one(
            path="config.json",
            message=f"the file has {size + 2:,} bytes, but had {size:,} when it was sealed",
            data={"size": size + 2, "expected_size": size},
        )

    def test_a_file_that_vanished_is_named(self, sealed, run_rule):
        sealed.remove("config.json")
        run_rule(DigestDiffers(), sealed).assert_one(
            path="config.json", message="the file is missing", severity="error"
        )

    def test_files_that_appeared_are_a_warning(self, sealed, run_rule):
        (sealed / "notes.txt").write_text("x")
        run_rule(DigestDiffers(), sealed).assert_one(
            path="notes.txt",
            message="1 file was not present when the checkpoint was sealed: notes.txt",
            severity="warning",
        )

    @pytest.mark.parametrize("name", ["model.sig", f"{SEAL}.sig", f"{SEAL}.asc"])
    def test_a_signature_of_the_seal_is_no_stranger(self, sealed, run_rule, name):
        (sealed / name).write_text("x")
        run_rule(DigestDiffers(), sealed).assert_passed()

    def test_what_git_and_the_hub_keep_is_no_stranger(self, sealed, run_rule):
        for path in (".git/HEAD", ".gitattributes", ".cache/huggingface/download/config.json.lock"):
            (sealed / path).parent.mkdir(parents=True, exist_ok=True)
            (sealed / path).write_text("x")
        run_rule(DigestDiffers(), sealed).assert_passed()

    def test_a_directory_in_the_place_of_a_file_is_told(self, sealed, run_rule):
        sealed.remove("config.json")
        (sealed / "config.json").mkdir()
        run_rule(DigestDiffers(), sealed).assert_one(
            path="config.json", message=f"this is a directory, but {SEAL} lists a file", severity="error"
        )

    def test_a_file_past_a_limit_is_not_called_gone(self, sealed, tmp_path):
        ruleset = tmp_path / "few.yaml"
        ruleset.write_text("extends: [deep]\nlimits: {entries: 2}\n")
        report = verify(sealed, ruleset=ruleset, select=["integrity/digest"])
        (outcome,) = report.outcomes
        assert (outcome.status, outcome.findings, outcome.blocked_by) == ("skipped", (), ".")
        assert outcome.reason.startswith("2 of the 3 files could not be checked: there are more than 2")

    def test_of_a_file_that_two_sources_know_one_finding_is_made(self, sealed, run_rule):
        digest = hashlib.sha256((sealed / "model.safetensors").read_bytes()).hexdigest()
        (sealed / "SHA256SUMS").write_text(f"{digest}  model.safetensors\n")
        seal(sealed, force=True)
        sealed.flip_bit("model.safetensors", 300)
        run_rule(DigestDiffers(), sealed).assert_one(path="model.safetensors", data={"source": SEAL})

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("{", "line 1, column 2"),
            ("[]", "the whole: input should be a valid dictionary"),
            (
                '{"version": 2, "tool": "x", "created": "2030-01-01T00:00:00Z", "layout": "x", "files": {}}',
                "version: input should be 1",
            ),
            (
                '{"tool": "x", "created": "2030-01-01T00:00:00Z", "layout": "x", "files": {"a": {"size": -1, "digest": ""}}}',
                "files.a.size:",
            ),
            (
                '{"tool": "x", "created": "2030-01-01T00:00:00Z", "layout": "x", "files": {"a": {"size": 1, "digest": "%s"}}}'
                % ("0" * 63),
                "files.a.digest:",
            ),
        ],
    )
    def test_a_seal_that_can_not_be_read_is_the_finding(self, sealed, run_rule, text, why):
        sealed.replace(SEAL, text)
        result = run_rule(DigestDiffers(), sealed)
        (found,) = result.findings
        assert found.place.path == SEAL
        assert found.message.startswith("the seal can't be read: ")
        assert why in found.message

    def test_keys_of_a_later_version_are_let_be(self, sealed, run_rule):
        sealed.set_key(SEAL, "colour", "green")
        run_rule(DigestDiffers(), sealed).assert_passed()


class TestSha256sums:
    @pytest.mark.parametrize("flags", [[], ["--tag"], ["--binary"]])
    @pytest.mark.parametrize("name", ["SHA256SUMS", "sha256sum.txt", "weights.sha256"])
    def test_what_sha256sum_writes_is_understood(self, make_checkpoint, run_rule, flags, name):
        checkpoint = make_checkpoint()
        command = ["sha256sum", *flags, "model.safetensors", "config.json"]
        text = subprocess.run(command, cwd=checkpoint.path, capture_output=True, text=True, check=True).stdout
        (checkpoint / name).write_text(text)
        run_rule(DigestDiffers(), checkpoint).assert_passed()
        checkpoint.flip_bit("model.safetensors", 300)
        run_rule(DigestDiffers(), checkpoint).assert_one(
            path="model.safetensors", data={"source": name, "algorithm": "sha256"}
        )

    def test_a_digest_alone_is_that_of_the_file_beside_it(self, make_checkpoint, run_rule):
        checkpoint = make_checkpoint()
        (checkpoint / "model.safetensors.sha256").write_text("0" * 64 + "\n")
        run_rule(DigestDiffers(), checkpoint).assert_one(path="model.safetensors", data={"expected": "0" * 64})

    def test_names_outside_of_the_checkpoint_are_not_followed(self, make_checkpoint, run_rule):
        checkpoint = make_checkpoint()
        (checkpoint / "SHA256SUMS").write_text(f"{'0' * 64}  ../secret\n{'0' * 64}  /etc/passwd\nnot a line\n")
        run_rule(DigestDiffers(), checkpoint).assert_skipped("nothing to compare the files with")

    def test_a_digest_alone_without_a_file_beside_it_says_nothing(self, make_checkpoint, run_rule):
        checkpoint = make_checkpoint()
        (checkpoint / "model.sha256").write_text("0" * 64 + "\n")
        run_rule(DigestDiffers(), checkpoint).assert_skipped("nothing to compare the files with")

    @pytest.mark.parametrize("flags", [[], ["--tag"]])
    def test_names_that_sha256sum_escapes_are_understood(self, make_checkpoint, run_rule, flags):
        checkpoint = make_checkpoint()
        names = ["back\\slash", "back\\nslash", "new\nline"]
        for name in names:
            (checkpoint / name).write_text(name)
        command = ["sha256sum", *flags, *names]
        text = subprocess.run(command, cwd=checkpoint.path, capture_output=True, text=True, check=True).stdout
        (checkpoint / "SHA256SUMS").write_text(text)
        run_rule(DigestDiffers(), checkpoint).assert_passed()
        (checkpoint / "back\\nslash").write_text("other")
        run_rule(DigestDiffers(), checkpoint).assert_one(path="back\\nslash", data={"source": "SHA256SUMS"})

    def test_lines_may_end_as_on_windows(self, make_checkpoint, run_rule):
        checkpoint = make_checkpoint()
        (checkpoint / "SHA256SUMS").write_bytes(b"0" * 64 + b" *config.json\r\n")
        run_rule(DigestDiffers(), checkpoint).assert_one(path="config.json", data={"expected": "0" * 64})

    def test_what_a_list_says_of_itself_does_not_count(self, make_checkpoint, run_rule):
        checkpoint = make_checkpoint()
        command = "touch SHA256SUMS && sha256sum * > SHA256SUMS"
        subprocess.run(command, shell=True, cwd=checkpoint.path, check=True)
        assert "  SHA256SUMS" in (checkpoint / "SHA256SUMS").read_text()
        run_rule(DigestDiffers(), checkpoint).assert_passed()

    def test_a_list_in_a_directory_may_have_been_written_from_the_top(self, make_checkpoint, run_rule):
        checkpoint = make_checkpoint()
        (checkpoint / "extra").mkdir()
        (checkpoint / "extra/notes.txt").write_text("x")
        (checkpoint / "extra/SHA256SUMS").write_text(f"{hashlib.sha256(b'x').hexdigest()}  extra/notes.txt\n")
        run_rule(DigestDiffers(), checkpoint).assert_passed()
        (checkpoint / "extra/notes.txt").write_text("y")
        run_rule(DigestDiffers(), checkpoint).assert_one(path="extra/notes.txt", data={"source": "extra/SHA256SUMS"})

    def test_a_name_that_is_not_there_is_told(self, make_checkpoint, run_rule):
        checkpoint = make_checkpoint()
        (checkpoint / "SHA256SUMS").write_text(f"{'0' * 64}  model-00002.safetensors\n")
        run_rule(DigestDiffers(), checkpoint).assert_one(
            path="model-00002.safetensors", message="the file is missing, although SHA256SUMS lists it"
        )


class TestHub:
    @pytest.fixture
    def downloaded(self, make_checkpoint):
        """A checkpoint as `hf download --local-dir` leaves it: by SHA-256 what is large, by git's digest the rest."""
        checkpoint = make_checkpoint()
        notes = checkpoint / ".cache/huggingface/download"
        notes.mkdir(parents=True)
        data = (checkpoint / "config.json").read_bytes()
        etags = {
            "config.json": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
            "model.safetensors": hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest(),
        }
        for name, etag in etags.items():
            (notes / f"{name}.metadata").write_text(f"{'c' * 40}\n{etag}\n{time.time()}\n")
        return checkpoint

    def test_a_download_passes(self, downloaded, run_rule):
        run_rule(DigestDiffers(), downloaded).assert_passed()

    @pytest.mark.parametrize(("file", "algorithm"), [("config.json", "git-sha1"), ("model.safetensors", "sha256")])
    def test_a_bit_that_flipped_on_the_disk_is_an_error(self, downloaded, run_rule, file, algorithm):
        before = (downloaded / file).stat()
        downloaded.flip_bit(file, 200)
        os.utime(downloaded / file, ns=(before.st_atime_ns, before.st_mtime_ns))
        run_rule(DigestDiffers(), downloaded).assert_one(path=file, severity="error", data={"algorithm": algorithm})

    def test_a_file_that_was_edited_later_is_a_warning(self, downloaded, run_rule):
        downloaded.flip_bit("config.json", 200)
        os.utime(downloaded / "config.json", (time.time() + 60, time.time() + 60))
        run_rule(DigestDiffers(), downloaded).assert_one(
            path="config.json", severity="warning", message="; it was written after the download"
        )

    def test_links_into_the_cache_are_named_by_their_digest(self, make_checkpoint, run_rule, tmp_path):
        checkpoint = make_checkpoint()
        data = (checkpoint / "model.safetensors").read_bytes()
        blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
        blobs.mkdir(parents=True)
        snapshot.mkdir(parents=True)
        blob = blobs / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        (snapshot / "model.safetensors").symlink_to(f"../../blobs/{blob.name}")
        run_rule(DigestDiffers(), snapshot).assert_passed()
        blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        run_rule(DigestDiffers(), snapshot).assert_one(path="model.safetensors", data={"expected": blob.name})


class TestUnsigned:
    def test_a_checkpoint_that_nothing_vouches_for_is_noted(self, make_checkpoint, run_rule):
        run_rule(Unsigned(), make_checkpoint()).assert_one(severity="info", message="covers the 3 files")

    def test_a_sealed_one_passes(self, sealed, run_rule):
        run_rule(Unsigned(), sealed).assert_passed()

    def test_a_broken_seal_is_left_to_the_other_rule(self, sealed, run_rule):
        run_rule(Unsigned(), sealed.replace(SEAL, "{")).assert_passed()
