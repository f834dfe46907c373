from __future__ import annotations

import errno
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from stores import manifest, random_columns

from datasets import sources as sources_module
from datasets.errors import UserError
from datasets.sources import Source, find_source, prepare_store

CONTENT = b"official bytes"


class Reader:
    """Counts how often it converts; fails as told."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, path):
        self.calls += 1
        if path.is_file() and path.read_bytes().startswith(b"bad"):
            raise UserError(f"{path}: not the official format; download it again")
        columns, _ = random_columns(np.random.default_rng(self.calls), 20)
        return columns, manifest()


@pytest.fixture
def setting(tmp_path):
    root, cache, reader = tmp_path / "data", tmp_path / "cache", Reader()
    root.mkdir()
    best = Source("best-*.bin", "the official file", "https://example.org/a", reader, hashlib.sha256(CONTENT).hexdigest())
    other = Source("folder", "the official folder", "https://example.org/b", reader)

    def prepare(**options):
        return prepare_store("toy", root, cache, (best, other), filed_as="toy", **options)

    return root, cache, reader, prepare


def test_a_missing_file_says_what_to_get_from_where_and_where_to_put_it(setting):
    root, cache, reader, prepare = setting
    with pytest.raises(UserError) as raised:
        prepare()
    lines = str(raised.value).splitlines()
    assert lines[0].startswith(f"toy: no data in {root}.")
    assert lines[1:] == [
        f"  {root}/best-*.bin",
        "      the official file; linked from https://example.org/a",
        f"  {root}/folder",
        "      the official folder; linked from https://example.org/b",
    ]
    assert reader.calls == 0
    assert not cache.exists()


def test_a_missing_root_reads_the_same(tmp_path):
    source = Source("x", "the file", "https://example.org", Reader())
    with pytest.raises(UserError, match=r"toy: no data in .*nowhere"):
        find_source("toy", tmp_path / "nowhere", (source,))


def test_the_first_form_found_is_converted_once_and_recorded(setting):
    root, cache, reader, prepare = setting
    (root / "folder").mkdir()
    (root / "best-2.bin").write_bytes(CONTENT)
    first, second = prepare(), prepare()
    assert reader.calls == 1
    assert first.folder == second.folder
    assert first.folder.parent == cache
    assert first.manifest.source == {
        "file": "best-2.bin",
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "bytes": len(CONTENT),
        "page": "https://example.org/a",
    }


def test_a_folder_is_a_source_too(setting):
    root, _, _, prepare = setting
    (root / "folder").mkdir()
    (root / "folder" / "part").write_bytes(b"12345")
    assert prepare().manifest.source == {"file": "folder", "sha256": None, "bytes": 5, "page": "https://example.org/b"}


def test_a_changed_file_is_converted_anew(setting):
    root, _, reader, prepare = setting
    path = root / "best-1.bin"
    path.write_bytes(CONTENT)
    first = prepare()
    os.utime(path, ns=(1, 1))
    second = prepare()
    assert reader.calls == 2
    assert first.folder != second.folder


def test_a_file_that_the_official_one_names_belongs_to_it(tmp_path):
    names, network, reader = tmp_path / "names.txt", tmp_path / "a", Reader()
    names.write_text("a b")
    network.write_text("first")
    source = Source("names.txt", "", "", reader, files=lambda path: [path.parent / x for x in path.read_text().split()])

    def converted():
        before = reader.calls
        for _ in range(2):
            prepare_store("toy", tmp_path, tmp_path / "cache", (source,), filed_as="toy")
        return reader.calls - before

    assert converted() == 1
    stamp = network.stat().st_mtime_ns
    network.write_text("other content")
    os.utime(network, ns=(stamp, stamp))
    assert converted() == 1
    os.utime(network, ns=(1, 1))
    assert converted() == 1
    (tmp_path / "b").write_text("was missing")
    assert converted() == 1
    (tmp_path / "b").unlink()
    assert converted() == 0


def test_a_path_may_be_written_in_any_way(tmp_path, monkeypatch):
    """Relative, absolute and through a link it is the same file, and so are those that it names."""
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for name in ("names.txt", "a"):
        (tmp_path / "data" / name).write_text("a")
    monkeypatch.chdir(tmp_path)
    reader = Reader()
    source = Source("names.txt", "", "", reader, files=lambda path: [path.parent / "a"])
    for root in (tmp_path / "data", Path("data"), Path("link"), Path("data/../link")):
        prepare_store("toy", root, tmp_path / "cache", (source,), filed_as="toy")
    assert reader.calls == 1


def test_a_cache_that_cannot_be_written_is_the_users_error(setting):
    root, cache, _, prepare = setting
    (root / "best-1.bin").write_bytes(CONTENT)
    cache.write_text("a file, not a folder")
    with pytest.raises(UserError, match=r"cache: cannot be written or locked .File exists.; choose another folder"):
        prepare()


def test_processes_that_want_the_same_store_convert_it_once(setting):
    """Each opens the lock file for itself, as another process or host does."""
    root, _, reader, prepare = setting
    (root / "best-1.bin").write_bytes(CONTENT)
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: prepare(), range(4)))
    assert reader.calls == 1
    assert len({store.folder for store in stores}) == 1


def test_a_store_that_is_there_needs_no_writing(setting, monkeypatch):
    root, _, reader, prepare = setting
    (root / "best-1.bin").write_bytes(CONTENT)
    prepare()
    monkeypatch.setattr(sources_module, "FileLock", None)
    prepare()
    assert reader.calls == 1


def test_a_wrong_checksum_is_refused_unless_told_otherwise(setting):
    root, cache, reader, prepare = setting
    (root / "best-1.bin").write_bytes(b"altered")
    got, published = hashlib.sha256(b"altered").hexdigest()[:16], hashlib.sha256(CONTENT).hexdigest()[:16]
    with pytest.raises(UserError, match=rf"best-1.bin: sha256 {got}... is not the published {published}.*--no-checksum"):
        prepare()
    assert reader.calls == 0
    assert not list(cache.glob("toy*"))
    assert prepare(checksum=False).manifest.source["sha256"].startswith(got)


def test_an_unreadable_file_is_the_users_error(setting, monkeypatch):
    root, _, _, prepare = setting
    (root / "best-1.bin").write_bytes(CONTENT)

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(sources_module.pooch, "file_hash", refuse)
    with pytest.raises(UserError, match=r"best-1.bin: cannot be read .Permission denied."):
        prepare()


def test_invalid_content_leaves_no_store(setting):
    root, cache, _, prepare = setting
    (root / "best-1.bin").write_bytes(b"bad")
    with pytest.raises(UserError, match=r"not the official format"):
        prepare(checksum=False)
    assert not list(cache.glob("toy*"))


def test_a_full_disk_leaves_no_store_and_the_next_attempt_works(setting, monkeypatch):
    root, cache, reader, prepare = setting
    (root / "best-1.bin").write_bytes(CONTENT)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pa.RecordBatchFileWriter, "write_table", full)
        with pytest.raises(UserError, match=r"could not be written .No space left on device."):
            prepare()
    assert not list(cache.glob("toy*"))
    assert len(prepare()) == 20
    assert reader.calls == 2


def test_a_full_disk_leaves_the_store_of_the_previous_file_usable(setting, monkeypatch):
    root, cache, _, prepare = setting
    path = root / "best-1.bin"
    path.write_bytes(CONTENT)
    stamp = path.stat().st_mtime_ns
    before = prepare()
    os.utime(path, ns=(1, 1))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pa.RecordBatchFileWriter, "write_table", full)
    with pytest.raises(UserError, match=r"could not be written"):
        prepare()
    assert [folder.name for folder in cache.glob("toy*")] == [before.folder.name]
    os.utime(path, ns=(stamp, stamp))
    assert prepare().manifest.fingerprint == before.manifest.fingerprint


def test_a_store_of_an_older_schema_is_converted_anew(setting, monkeypatch):
    root, _, reader, prepare = setting
    (root / "best-1.bin").write_bytes(CONTENT)
    with monkeypatch.context() as patch:
        patch.setattr(sources_module, "SCHEMA_VERSION", 0)
        old = prepare()
    stale = json.loads((old.folder / "manifest.json").read_text()) | {"schema_version": 0}
    (old.folder / "manifest.json").write_text(json.dumps(stale))
    assert prepare().manifest.schema_version == 1
    assert reader.calls == 2
