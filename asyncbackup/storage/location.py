"""Tells the URLs of object stores from paths. Pure: nobody knows what is there."""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple
from urllib.parse import unquote

MEMORY: Final = "memory"
"""The scheme of a store in the memory of this program, which its caller hands in."""

SCHEMES: Final = ("s3", "gs", "az", MEMORY)

_FILE: Final = "file"
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_LOCAL_HOSTS: Final = ("", "localhost")


class ObjectLocation(NamedTuple):
    """An object, or a folder of them if ``key`` is empty or ends with a slash. A key is taken as it stands."""

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"

    def beside(self, suffix: str) -> ObjectLocation:
        """Give the location of an object that belongs to this one."""
        return self._replace(key=self.key + suffix)

    def hidden(self, suffix: str) -> ObjectLocation:
        """Give the location of what stands beside this object for a while: lists leave it out."""
        folder, slash, name = self.key.rpartition("/")
        return self._replace(key=f"{folder}{slash}.{name}{suffix}")


def find_object(name: object) -> ObjectLocation | None:
    """Give what a URL of an object store names; None for anything else, such as a path."""
    match = _URL.fullmatch(name) if isinstance(name, str) else None
    if match is None or match[1].lower() not in SCHEMES:
        return None
    bucket, _, key = match[2].partition("/")
    return ObjectLocation(match[1].lower(), bucket, key)


def fault_of_url(name: str | os.PathLike[str]) -> str | None:
    """Say why a URL can name neither an object, nor a folder of them, nor a file; None if it can, and for a path."""
    match = _URL.fullmatch(os.fspath(name))
    if match is None:
        return None
    scheme = match[1].lower()
    if scheme == _FILE:
        host = match[2].partition("/")[0]
        return None if host in _LOCAL_HOSTS else "a file:// URL names a file of this machine, as file:///PATH"
    if scheme not in SCHEMES:
        return f"expected a path or a URL with s3://, gs://, az:// or file://, got one with {scheme}://"
    location = find_object(os.fspath(name))
    assert location is not None
    return _fault_of_bucket(location) or _fault_of_key(location.key)


def fault_of_object(location: ObjectLocation) -> str | None:
    """Say why no object can have this name; None if one can."""
    if fault := _fault_of_bucket(location) or _fault_of_key(location.key):
        return fault
    if not location.key or location.key.endswith("/"):
        return "names a folder: name an object in it"
    return None


def to_path(name: str) -> str:
    """Give the path that a file:// URL means, and anything else as it is."""
    match = _URL.fullmatch(name)
    if match is None or match[1].lower() != _FILE:
        return name
    return "/" + unquote(match[2].partition("/")[2])


def _fault_of_bucket(location: ObjectLocation) -> str | None:
    if "@" in location.bucket:
        # What stands before it may be a password, so no message shows it.
        snapshot = "" if location.key else f"; name a snapshot in a bucket as {location.scheme}://BUCKET/@SNAPSHOT"
        return f"a URL has no place for keys and passwords: the environment has{snapshot}"
    if not _BUCKET.fullmatch(location.bucket):
        return f"expected {location.scheme}://BUCKET/NAME"
    return None


def _fault_of_key(key: str) -> str | None:
    parts = key.removesuffix("/").split("/") if key else []
    if any(part in ("", ".", "..") for part in parts):
        return "no part of an object's name between slashes can be empty, `.` or `..`"
    if any(ord(letter) < 0x20 or ord(letter) == 0x7F for letter in key):
        return "no object has control characters in its name"
    try:
        key.encode()
    except UnicodeEncodeError:
        return "an object's name is Unicode"
    return None
