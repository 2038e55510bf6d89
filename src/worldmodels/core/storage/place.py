"""A folder at a URL, by fsspec: bounded reads, whole writes, and errors of one line that say what to do.

Credentials are found by the libraries themselves, in the environment and in their own configuration files. The JSON in
the environment variable WORLDMODELS_STORAGE_OPTIONS is passed to them, such as {"endpoint_url": "http://host:9000"}.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from worldmodels.core.errors import UserError
from worldmodels.core.files import disk_errors

_BUCKETS = {
    "s3": ("s3fs", 'pip install "worldmodels[buckets]"'),
    "s3a": ("s3fs", 'pip install "worldmodels[buckets]"'),
    "gs": ("gcsfs", "pip install gcsfs"),
    "gcs": ("gcsfs", "pip install gcsfs"),
    "az": ("adlfs", "pip install adlfs"),
    "abfs": ("adlfs", "pip install adlfs"),
    "abfss": ("adlfs", "pip install adlfs"),
}
_WEB = {name: ("aiohttp", 'pip install "worldmodels[buckets]"') for name in ("http", "https")}
_PACKAGES = {**_BUCKETS, **_WEB, "memory": ("fsspec", "pip install fsspec")}
"""For each kind of URL, the package that reads it and how to install that."""
_OPTIONS = "WORLDMODELS_STORAGE_OPTIONS"
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://?(?=[^/])(.*)", re.DOTALL)
"""With a single slash too, because that is what remains of a URL in a path."""
_PIECE = 16 << 20
"""Bytes that are asked for at once."""


def is_url(name: object) -> bool:
    """Whether a name is a URL: that of a bucket, of a web server, or of an agent on a hub."""
    return _URL.match(str(name)) is not None and str(name).partition(":")[0] not in ("", "file")


def plain_path(name: str | Path) -> Path:
    """The path of a local folder, which may be a file:// URL."""
    return Path(re.sub(r"^file:/{1,2}(?=/)", "", str(name)))


class Place:
    """A folder at a URL of a bucket (s3://, gs://, az://), of a web server (only to read) or in memory (for tests).

    Names are relative to the folder, with slashes. Raises :class:`UserError` for other URLs, for packages that are not
    installed, and for whatever prevents reading or writing.
    """

    def __init__(self, url: str | Path) -> None:
        match = _URL.match(str(url))
        if match is None or match[1] not in _PACKAGES:
            kinds = ", ".join(f"{name}://" for name in _PACKAGES if name != "memory")
            raise UserError(f"expected a folder or a URL that begins with one of {kinds}, got {str(url)!r}")
        self._scheme, path = match[1], match[2].rstrip("/")
        self.url = f"{self._scheme}://{path}"
        if "?" in path or "#" in path or ".." in path.split("/"):
            raise UserError(f"expected the URL of a folder without ?, # and .., got {self.url}")
        self._fs = _filesystem(self._scheme, os.environ.get(_OPTIONS, ""))
        self._root = self.url if self._scheme in _WEB else path

    def __truediv__(self, name: str) -> "Place":
        """A folder in this one."""
        return Place(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    @property
    def writable(self) -> bool:
        """Whether files can be written here."""
        return self._scheme not in _WEB

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @contextlib.contextmanager
    def _said(self, name: str) -> Iterator[None]:
        """Turn what the libraries raise into one line."""
        where = f"{self.url}/{name}" if name else self.url
        try:
            yield
        except (UserError, KeyboardInterrupt):
            raise
        except FileNotFoundError as error:
            if str(error).lower().startswith(("the specified bucket", "the specified container")):
                bucket = self._root.partition("/")[0]
                raise UserError(
                    f"there is no bucket {bucket} for {where}; correct the URL, or create the bucket"
                ) from None
            raise Missing(f"there is no {where}") from None
        except Exception as error:  # every library has its own kinds
            raise UserError(_reason(where, error)) from None

    def read(self, name: str, limit: int) -> bytes:
        """The content of a file of at most ``limit`` bytes. Raises :class:`Missing` if there is none."""
        with self._said(name):
            pieces, size = [], 0
            for piece in self._pieces(name, limit + 1):
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    raise UserError(f"{self.url}/{name} is too large: more than {limit:,} bytes; it is not read")
            return b"".join(pieces)

    def _pieces(self, name: str, most: int, size: int | None = None) -> Iterator[bytes]:
        """At least the first ``most`` bytes of a file, a piece at a time; ``size``: of the file, if it is known."""
        if self._scheme in _WEB:  # a server may ignore ranges and lengths
            with self._fs.open(self._path(name), "rb", block_size=0) as file:
                while piece := file.read(1 << 20):
                    yield piece
            return
        size = min(most, int(self._fs.info(self._path(name))["size"])) if size is None else size
        for start in range(0, size, _PIECE):
            yield self._fs.cat_file(self._path(name), start=start, end=min(start + _PIECE, size))

    def download(self, name: str, size: int, target: Path) -> str:
        """Write the first ``size`` bytes of a file to ``target``, which is replaced; returns their SHA-256.

        Nothing else is written if the file is longer, and an error says so.
        """
        digest, done = hashlib.sha256(), 0
        with self._said(name):
            with disk_errors(target):
                file = open(target, "wb")  # noqa: SIM115
            with file:
                pieces = self._pieces(name, size, size) if size else iter(())
                for piece in pieces:
                    done += len(piece)
                    if done > size:
                        raise Changed(f"{self.url}/{name} is longer than the {size:,} bytes that its manifest says")
                    digest.update(piece)
                    with disk_errors(target):
                        file.write(piece)
        return digest.hexdigest()

    def upload(self, source: Path, name: str) -> None:
        """Write a local file here; it is visible when it is complete."""
        self._check_writable()
        with self._said(name):
            if not source.is_file():  # the library would say that the bucket has no such file
                raise UserError(f"{source} has gone while it was copied; run the same command again")
            self._fs.put_file(str(source), self._path(name))

    def write(self, name: str, data: bytes) -> None:
        """Write a small file here, all at once."""
        self._check_writable()
        with self._said(name):
            self._fs.pipe_file(self._path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file unless there is one; returns whether it was written. Two processes cannot both succeed."""
        self._check_writable()
        with self._said(name):
            try:
                self._fs.pipe_file(self._path(name), data, mode="create")
            except FileExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        self._check_writable()
        with self._said(name), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        with self._said(name):
            return bool(self._fs.exists(self._path(name)))

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there, or if the server does not say."""
        with self._said(name):
            try:
                return int(self._fs.info(self._path(name))["size"])
            except (FileNotFoundError, TypeError, KeyError):
                return None

    def sizes(self) -> dict[str, int]:
        """Bytes of every file below this folder, by its name, as the bucket lists them."""
        prefix = self._root.strip("/") + "/"
        with self._said(""):
            try:
                found = self._fs.find(self._root, detail=True)
            except FileNotFoundError:
                return {}
        names = {str(path).lstrip("/"): int(about.get("size") or 0) for path, about in found.items()}
        return {path.removeprefix(prefix): size for path, size in names.items() if path.startswith(prefix)}

    def folders(self) -> list[str]:
        """Names of the folders in this one, in order; of names that no folder here may have, none."""
        with self._said(""):
            try:
                found = self._fs.ls(self._root, detail=True)
            except FileNotFoundError:
                return []
        names = {str(one["name"]).rstrip("/").rpartition("/")[2] for one in found if one.get("type") == "directory"}
        return sorted(name for name in names if name and not name.startswith(".") and name.isprintable())

    def _check_writable(self) -> None:
        if not self.writable:
            raise UserError(
                f"nothing can be written to {self.url}: a web server is only read; use a bucket or a folder"
            )


class Missing(UserError):
    """A file that is not there."""


class Changed(UserError):
    """A file that is not what its manifest says."""


@cache
def _filesystem(scheme: str, options: str) -> Any:
    try:
        given = json.loads(options) if options else {}
    except ValueError:
        given = None
    if not isinstance(given, dict):
        # What it holds is not shown, because that may be a secret.
        raise UserError(
            f'expected JSON such as {{"endpoint_url": "http://host:9000"}} in {_OPTIONS}, got something else'
        )
    import fsspec

    package, install = _PACKAGES[scheme]
    try:
        kind = fsspec.get_filesystem_class(scheme)
        return kind(**{"use_listings_cache": False, **(given if scheme in _BUCKETS else {})})
    except ImportError:
        raise UserError(f"{scheme}:// URLs need the package {package}: {install}") from None
    except TypeError as error:
        raise UserError(f"{_OPTIONS} holds an option that {package} does not have: {error}") from None
    except Exception as error:  # of gcsfs and adlfs, which look for credentials at once
        raise UserError(_reason(f"{scheme}://", error)) from None


def _reason(where: str, error: Exception) -> str:
    kind = type(error).__name__
    text = " ".join(str(error).split())[:200] or kind
    if "Credential" in kind or "credential" in text or "Token" in kind:
        return (
            f"no access to {where}: no credentials were found; set those of the bucket's provider in the environment "
            "or in its configuration file (for s3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws)"
        )
    if isinstance(error, PermissionError):
        return f"no access to {where}: {text}; check the credentials and the rights of their owner"
    return f"cannot reach {where}: {kind}: {text}; what is finished stays, and the same command goes on when it is back"
