from __future__ import annotations

import grp
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobsvc.cli import main
from jobsvc.storage.state import link_key, token_file


def create(*words: object) -> Result:
    return CliRunner().invoke(main, ["secrets", "create", *map(str, words)], env={"JOBSVC_SECRETS_DIR": ""})


def test_directory_has_what_the_service_needs(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "secrets"
    result = create("--secrets-dir", folder)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"{folder}/tokens.json: created\n{folder}/link.key: created\n"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert token_file.load(folder / "tokens.json", shared=True) == ()
    key = link_key.load_shared(folder / "link.key")
    assert key.hex() not in result.output


def test_existing_files_are_kept(tmp_path: Path) -> None:
    create("--secrets-dir", tmp_path)
    token_file.create(tmp_path / "tokens.json", "alice", shared=True)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = create("--secrets-dir", tmp_path)
    assert result.stderr == f"{tmp_path}/tokens.json: exists, kept\n{tmp_path}/link.key: exists, kept\n"
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("by_name", [True, False])
def test_group_can_read_the_directory_and_its_files(by_name: bool, tmp_path: Path) -> None:  # noqa: FBT001
    group = os.getegid()
    create("--secrets-dir", tmp_path / "s", "--group", grp.getgrgid(group).gr_name if by_name else group)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o750
    modes = {
        path.name: (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid)
        for path in tmp_path.glob("s/[!.]*")
    }
    assert modes == {"tokens.json": (0o640, group), "link.key": (0o640, group)}


def test_directory_is_required(tmp_path: Path) -> None:
    result = create()
    assert result.exit_code == 2
    assert "--secrets-dir is missing" in result.stderr


def test_unknown_group_is_wrong_use(tmp_path: Path) -> None:
    result = create("--secrets-dir", tmp_path, "--group", "no-such-group")
    assert result.exit_code == 2
    assert "there is no group 'no-such-group'" in result.stderr


def test_unusable_key_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "link.key").write_bytes(b"wrong")
    (tmp_path / "link.key").chmod(0o600)
    result = create("--secrets-dir", tmp_path)
    assert result.exit_code == 2
    assert f"{tmp_path}/link.key: not 32 bytes in hex" in result.stderr
    assert (tmp_path / "link.key").read_bytes() == b"wrong"


def test_directory_that_cannot_be_created_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = create("--secrets-dir", tmp_path / "file" / "secrets")
    assert result.exit_code == 2
    assert "Not a directory" in result.stderr
