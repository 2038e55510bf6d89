"""Agents on the Hugging Face hub: one file of a pinned revision is downloaded, and nothing of it is executed.

The address of another hub can be given by the environment variable HF_ENDPOINT, and a token by HF_TOKEN.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodels.core.errors import UserError
from worldmodels.core.files import disk_errors, write_json
from worldmodels.core.storage.blobs import CacheSettings

ORIGIN_FILE = "origin.json"
"""Beside an agent that was downloaded from a hub: where it came from."""
LARGEST_AGENT = 1 << 30
"""Bytes of the largest agent that is downloaded; a usual one has about ten million."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SECONDS = 20.0


@dataclass(frozen=True)
class HubName:
    """The name of an agent on the hub: OWNER/NAME, and the branch, tag or commit, by default "main"."""

    repo: str
    revision: str = "main"

    @classmethod
    def of(cls, text: str) -> "HubName":
        """The name in ``OWNER/NAME[@REVISION]``, with or without ``hf://``; else a :class:`UserError`."""
        repo, at, revision = re.sub(r"^hf:/{1,2}", "", text).partition("@")
        name = cls(repo, revision if at else "main")
        odd = ".." in text or "--" in repo or repo.endswith((".", "-", ".git"))
        if odd or not _NAME.fullmatch(repo) or not _REVISION.fullmatch(name.revision):
            raise UserError(f"expected an agent on the hub as OWNER/NAME or OWNER/NAME@REVISION, got {text!r}")
        return name

    def __str__(self) -> str:
        return f"hf://{self.repo}@{self.revision}"


def downloaded(text: str, file_name: str) -> Path:
    """The local copy of one file of a repository, in a folder for its commit, with ``origin.json`` beside it.

    text: as for :meth:`HubName.of`. Raises :class:`UserError` if the repository, revision or file does not exist, if
    the file is too large, if it is not what the hub says, or if the hub cannot be reached.
    """
    name, api = HubName.of(text), _api()
    with _said(str(name)):
        about = api.model_info(name.repo, revision=name.revision, files_metadata=True, timeout=_SECONDS)
    commit = str(about.sha)
    if not _COMMIT.fullmatch(commit):
        raise UserError(f"{name}: the hub names no commit for this revision; nothing is downloaded")
    found = [one for one in about.siblings or () if one.rfilename == file_name]
    if not found:
        raise UserError(f"{name} holds no agent: it has no {file_name}; pickled files are never downloaded")
    size, sha256 = found[0].size, found[0].lfs.sha256 if found[0].lfs is not None else None
    if not isinstance(size, int) or not 0 < size <= LARGEST_AGENT:
        limit = f"expected at most {LARGEST_AGENT >> 20:,} MiB"
        raise UserError(f"{name}: {file_name} is too large or of unknown size ({size} bytes), {limit}")
    folder = CacheSettings.of_environment().folder / "hub" / name.repo.replace("/", "--") / commit
    path = folder / file_name
    if not (path.is_file() and path.stat().st_size == size and (folder / ORIGIN_FILE).is_file()):
        with disk_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
        with _said(str(name)):
            digest = _stream(api, HubName(name.repo, commit), file_name, (size, sha256), path)
        origin = {"hub": name.repo, "revision": commit, "asked_for": name.revision, "file": file_name, "sha256": digest}
        write_json(folder / ORIGIN_FILE, origin)
    return path


def _stream(api: Any, name: HubName, file_name: str, about: tuple[int, str | None], target: Path) -> str:
    """Download a file to ``target``, which appears when it is complete and verified; returns its SHA-256.

    about: its bytes, and its SHA-256 if the hub says it.
    """
    import huggingface_hub
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    url = huggingface_hub.hf_hub_url(name.repo, file_name, revision=name.revision, endpoint=api.endpoint)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    (size, sha256), digest, done = about, hashlib.sha256(), 0
    options = {"headers": build_hf_headers(), "follow_redirects": True, "timeout": _SECONDS}
    try:
        with huggingface_hub.get_session().stream("GET", url, **options) as response, open(temporary, "wb") as file:
            if response.status_code != 200:
                response.read()
            hf_raise_for_status(response)
            for piece in response.iter_bytes(1 << 20):
                done += len(piece)
                if done > size:
                    break
                digest.update(piece)
                with disk_errors(target):
                    file.write(piece)
        if done != size:
            raise UserError(f"{name}: {file_name} has not the {size:,} bytes that the hub says; it is not used")
        if sha256 not in (None, digest.hexdigest()):
            raise UserError(f"{name}: {file_name} was damaged on the way: its checksum is not the hub's; run again")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return digest.hexdigest()


def upload(text: str, files: Mapping[str, bytes | Path], message: str, private: bool) -> str:
    """Publish files in one commit of a repository, which is created if need be; returns the commit.

    files: contents or local files by their names. Raises :class:`UserError` without a token that may do so.
    """
    import io

    name, api = HubName.of(text), _api()
    import huggingface_hub

    with _said(str(name)):
        if huggingface_hub.get_token() is None:
            raise UserError(
                f"cannot publish {name.repo} without a token of the hub: set HF_TOKEN, or run: hf auth login"
            )
        api.create_repo(name.repo, private=private, exist_ok=True)
        operations = [
            huggingface_hub.CommitOperationAdd(
                path_in_repo=path, path_or_fileobj=io.BytesIO(data) if isinstance(data, bytes) else str(data)
            )
            for path, data in files.items()
        ]
        result = api.create_commit(name.repo, operations, commit_message=message, revision=name.revision)
    return str(result.oid)


def _api() -> Any:
    try:
        import huggingface_hub
        from huggingface_hub.utils import disable_progress_bars
    except ImportError:
        raise UserError('the hub needs the package huggingface_hub: pip install "worldmodels[hub]"') from None
    disable_progress_bars()
    return huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="worldmodels")


@contextlib.contextmanager
def _said(name: str) -> Iterator[None]:
    """Turn what the library raises into one line."""
    from huggingface_hub import errors

    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except errors.GatedRepoError:
        raise UserError(f"{name} needs the consent of its owner: ask for it on its page, then set HF_TOKEN") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"there is no {name} on the hub, or it is private; correct the name, or set HF_TOKEN to a token that may "
            "read it"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{name} has no such revision; expected a branch, a tag or a commit after @") from None
    except errors.EntryNotFoundError as error:
        raise UserError(f"{name} lacks a file: {_line(error)}") from None
    except errors.HFValidationError as error:
        raise UserError(f"{name} is no name of the hub: {_line(error)}") from None
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise UserError(f"no access to {name}: set HF_TOKEN to a token with the right to do this") from None
        raise UserError(f"the hub refused {name}: {_line(error)}") from None
    except Exception as error:  # of the network, and answers that are not those of a hub
        raise UserError(f"cannot reach {name}: {type(error).__name__}: {_line(error)}; run again later") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
