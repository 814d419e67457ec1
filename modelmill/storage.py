"""Files by URL: Parquet history and model packages, on a local folder or anything that fsspec speaks.

A file appears under its name whole or not at all: it is written under a temporary name, flushed to the disk, and
renamed. Names are relative to the storage's URL and use `/`.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import IO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from modelmill.errors import SettingsError

TEMPORARY = ".tmp-"
PIECE = 1 << 20
"""Bytes that are read at a time where a file is not wanted whole."""


class Storage:
    """The files below one URL, such as `file:///data` or `s3://bucket/prefix`.

    Raises:
        SettingsError: for a URL that no installed file system speaks.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self.files, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise SettingsError(
                f"storage {url!r} cannot be used: {error}; expected a URL such as file:///data"
            ) from None
        self.root = str(root).rstrip("/")
        self.local = isinstance(self.files, LocalFileSystem)

    def path(self, name: str) -> str:
        """The path of `name` for the file system `self.files`."""
        return f"{self.root}/{name}"

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A file to write that becomes `name` when the block ends, durably; on an error nothing is left."""
        target = self.path(name)
        folder, base = posixpath.split(target)
        changed = [folder]
        if self.local:
            while not os.path.isdir(changed[-1]):
                changed.append(posixpath.dirname(changed[-1]))
        self.files.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/{TEMPORARY}{uuid.uuid4().hex}-{base}"
        try:
            with self.files.open(temporary, "wb") as file:
                yield file
                file.flush()
                if self.local:
                    os.fsync(file.fileno())
            if self.local:
                os.replace(temporary, target)
                for path in changed:
                    _sync_folder(path)
            else:
                self.files.mv(temporary, target)
        except BaseException:
            if self.files.exists(temporary):
                self.files.rm(temporary)
            raise

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file."""
        with self.writing(name) as file:
            file.write(content)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: where it does not exist.
        """
        content: bytes = self.files.cat_file(self.path(name))
        return content

    def sha256(self, name: str) -> str:
        """The SHA-256 of a file in hexadecimal, without holding the whole of it in memory.

        Raises:
            FileNotFoundError: where it does not exist.
        """
        digest = hashlib.sha256()
        with self.files.open(self.path(name), "rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
        return digest.hexdigest()

    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            FileNotFoundError: where it does not exist.
        """
        return int(self.files.size(self.path(name)))

    def remove(self, name: str) -> None:
        """Remove a file; it is all the same if it is not there."""
        with suppress(FileNotFoundError):
            self.files.rm_file(self.path(name))

    def remove_temporary(self, folder: str, before: datetime) -> int:
        """Remove the unfinished files below `folder` that were last written to before then; return how many."""
        if not self.files.exists(self.path(folder)):
            return 0
        self.files.invalidate_cache(self.path(folder))
        removed = 0
        for path in self.files.find(self.path(folder)):
            if posixpath.basename(str(path)).startswith(TEMPORARY):
                with suppress(FileNotFoundError):  # finished meanwhile
                    if self.files.modified(path) < before:
                        self.files.rm_file(path)
                        removed += 1
        return removed

    def remove_older(self, folder: str, before: datetime) -> int:
        """Remove the files below `folder` that were last written to before then; return how many."""
        if not self.files.exists(self.path(folder)):
            return 0
        self.files.invalidate_cache(self.path(folder))
        removed = 0
        for path in self.files.find(self.path(folder)):
            with suppress(FileNotFoundError):
                if self.files.modified(path) < before:
                    self.files.rm_file(path)
                    removed += 1
        return removed

    def names(self, folder: str, suffix: str) -> list[str]:
        """Names of all finished files below `folder` that end with `suffix`, in order."""
        if not self.files.exists(self.path(folder)):
            return []
        self.files.invalidate_cache(self.path(folder))
        found = (str(path)[len(self.root) + 1 :] for path in self.files.find(self.path(folder)))
        return sorted(n for n in found if n.endswith(suffix) and not posixpath.basename(n).startswith(TEMPORARY))


def _sync_folder(folder: str) -> None:
    """Make what was created or renamed in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
