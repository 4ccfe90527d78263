"""Files for one user alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.private_file import make_private


def test_a_new_file_is_empty_and_for_its_owner(tmp_path: Path) -> None:
    """Whatever the umask allows."""
    before = os.umask(0)
    try:
        make_private(tmp_path / "new")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").read_bytes() == b""


def test_a_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    """Its content, its mode, and the locks that this process has on it."""
    file = tmp_path / "old"
    file.write_bytes(b"content")
    file.chmod(0o640)
    make_private(file)
    assert file.read_bytes() == b"content"
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    """Nobody makes folders in passing."""
    with pytest.raises(FileNotFoundError):
        make_private(tmp_path / "nowhere" / "file")
