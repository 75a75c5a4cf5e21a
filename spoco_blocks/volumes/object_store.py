"""Zarr on object stores and web servers: ``s3://BUCKET/KEY``, and ``http(s)://…`` for reading.

Endpoint, region and credentials come from where all programs look for them (AWS_… variables, ~/.aws, the machine's
role); without credentials S3 is asked anonymously. Requests are tried again by botocore (AWS_MAX_ATTEMPTS,
AWS_RETRY_MODE) and s3fs. An object appears whole or not at all, so a killed writer leaves nothing torn.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from spoco_blocks.errors import SpocoBlocksError, StoreError, VolumeError

# Other places that fsspec knows are opened as it opens them.
OURS = ("s3", "http", "https")
ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
# Seconds between attempts at a web server; its library has no retries of its own.
PAUSES_S = (0.1, 0.5, 2.0)
_opened: set[Any] = set()
CREDENTIALS = "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; AWS_ENDPOINT_URL where it is not Amazon's"


def is_remote(uri: str) -> bool:
    """Tell whether a URI names something that is not a path."""
    return "://" in uri


def zarr_store(uri: str) -> Any:
    """Give what Zarr opens for a URI: the path itself, or a store.

    Raises
    ------
    VolumeError
        When nothing here can reach such a place, or a package is missing for it.
    """
    if not is_remote(uri):
        return uri
    from zarr.storage import FsspecStore

    try:
        if uri.partition("://")[0] not in OURS:
            return FsspecStore.from_url(uri)
        files = _files(uri, asynchronous=True)
    except (ImportError, ValueError) as error:
        raise VolumeError(
            f"{uri}: cannot be reached from here ({error}). Install what it needs, for s3:// and https:// with: "
            "pip install 'spoco-blocks[s3]'; or copy the volume to a local path."
        ) from None
    _opened.add(files)
    # Without leave to list a bucket, what is not there is answered as what is forbidden. With credentials that would
    # hide wrong ones, and unreadable chunks would be zeros.
    absent = (*ABSENT, PermissionError) if getattr(files, "anon", False) else ABSENT
    return FsspecStore(files, path=files._strip_protocol(uri).rstrip("/"), allowed_exceptions=absent)


def _files(uri: str, *, asynchronous: bool) -> Any:
    import fsspec

    scheme = uri.partition("://")[0]
    if scheme == "s3":
        return _s3_files(asynchronous)
    if scheme in OURS:
        return _web_files()(asynchronous=asynchronous)
    return fsspec.filesystem(scheme, asynchronous=asynchronous)


def _s3_files(asynchronous: bool) -> Any:
    from s3fs import S3FileSystem

    # They tell where they found credentials, and in detail what they sign requests with.
    for library in ("botocore", "aiobotocore", "s3fs"):
        logging.getLogger(library).setLevel(logging.WARNING)
    # One request for an object: several would ask for its size first, and are not tried again when they break off.
    return S3FileSystem(anon=_is_anonymous(), asynchronous=asynchronous, max_concurrency=1, use_listings_cache=False)


@cache
def _is_anonymous() -> bool:
    """Tell whether nobody gave credentials; asked once per process, since it may take a second."""
    from botocore.session import Session

    return Session().get_credentials() is None


@cache
def _web_files() -> Any:
    from aiohttp import ClientError, ClientResponseError
    from fsspec.implementations.http import HTTPFileSystem

    class WebFiles(HTTPFileSystem):  # type: ignore[misc]
        """Web server that is asked again, may ignore ranges, and says 403 of what is not there, as S3 does."""

        async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
            for pause in (*PAUSES_S, None):
                try:
                    return _ranged(await super()._cat_file(url, start=start, end=end, **options), start, end)
                except (ClientError, TimeoutError) as error:
                    status = error.status if isinstance(error, ClientResponseError) else None
                    if status == 403:
                        raise FileNotFoundError(url) from error
                    if pause is None or not (status is None or status == 429 or status >= 500):
                        raise
                    await asyncio.sleep(pause)
            raise AssertionError

    return WebFiles


def _ranged(found: bytes, start: int | None, end: int | None) -> bytes:
    """Give the part that was asked for, also when the server gave the whole."""
    if start is None:
        return found
    if start < 0:
        return found[start:]
    return found if end is None or len(found) <= end - start else found[start:end]


@atexit.register
def _close() -> None:
    """Close connections, which are complained of where a process ends with open ones."""
    with suppress(Exception):
        from zarr.core.sync import sync

        for files in _opened:
            sync(_closing(files), timeout=1)


async def _closing(files: Any) -> None:
    if (client := getattr(files, "_s3", None)) is not None:
        await client.close()
    if (session := getattr(files, "_session", None)) is not None:
        await session.close()


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Put what goes wrong at a remote place inside into a sentence; nothing at a local path.

    Raises
    ------
    StoreError
        When it does not answer, refuses, or has no such bucket.
    """
    if not is_remote(uri):
        yield
        return
    try:
        yield
    except (SpocoBlocksError, FileExistsError):
        raise
    except PermissionError as error:
        raise StoreError(
            f"{uri}: access was refused ({error}). Expected credentials that are allowed to read it, or to write where "
            f"results go ({CREDENTIALS})."
        ) from error
    except FileNotFoundError as error:
        raise StoreError(f"{uri}: not there, or gone meanwhile ({error}). Check bucket and key.") from error
    except _faults() as error:
        raise StoreError(
            f"{uri}: the store did not answer as expected, however often it was asked ({type(error).__name__}: "
            f"{error}). What is done is kept: run the same command again when it answers, with more patience "
            f"(AWS_MAX_ATTEMPTS=10), or fewer workers. Are address and credentials right ({CREDENTIALS})?"
        ) from error


@cache
def _faults() -> tuple[type[Exception], ...]:
    found: list[type[Exception]] = [OSError, TimeoutError]
    try:
        from aiohttp import ClientError as WebError
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return tuple(found)
    return (*found, WebError, BotoCoreError, ClientError)


def remove_tree(uri: str) -> None:
    """Remove a store with all that is in it; one that is not there is no error."""
    if not is_remote(uri):
        shutil.rmtree(uri, ignore_errors=True)
        return
    with reaching(uri):
        files = _files(uri, asynchronous=False)
        if files.exists(uri):
            files.rm(uri, recursive=True)


def stored_bytes(uri: str) -> int:
    """Give the bytes that a store takes; 0 where there is none."""
    if not is_remote(uri):
        return sum(path.stat().st_size for path in Path(uri).rglob("*") if path.is_file())
    with reaching(uri):
        return int(sum(found["size"] for found in _files(uri, asynchronous=False).find(uri, detail=True).values()))
