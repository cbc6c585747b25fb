"""Reads what age encrypted, in order. Nothing decrypted is kept anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from anyio import to_thread

from asyncbackup.errors import NotDecrypted
from asyncbackup.format.age import ARMOR, Header, decode_header
from asyncbackup.format.decoder import Damage
from asyncbackup.storage.age_keys import load_pyrage, read_identities
from asyncbackup.storage.filtered import FilteredSource
from asyncbackup.storage.source import Source
from asyncbackup.storage.stepping import Reader, Stepping, Writer

LAYER: Final = "age"

_MAX_HEADER: Final = 64 << 10
_MAX_STANZAS: Final = 512
"""Limits of a header. The library looks at all of it again for each part that it reads: a long one costs seconds."""


async def open_age(inner: Source, identity_files: Sequence[str]) -> FilteredSource:
    """Give a source, not yet entered, for what ``inner``, which was entered, holds encrypted.

    Raises KeyUnusable, ExtraMissing, SourceMissing and SourceUnreadable for the files of identities, and NotDecrypted
    if there is none. Reading raises NotDecrypted if no identity fits.
    """
    if not identity_files:
        raise NotDecrypted(inner.name, "this is encrypted with age", lacks_identity=True)
    identities = await to_thread.run_sync(read_identities, identity_files)
    return FilteredSource(inner, LAYER, lambda: _Decryption(inner.name, identities))


class _Decryption:
    """Decrypts with ``identities``. It is a ``Filter``."""

    def __init__(self, name: str, identities: Sequence[Any]) -> None:
        self._name = name
        self._pyrage = pyrage = load_pyrage()

        def decrypt(reader: Reader, writer: Writer) -> None:
            pyrage.decrypt_io(reader, writer, identities)

        self._decryption = Stepping("decryption", decrypt)
        self._header: Header | None = None
        self._fed = 0
        self._given = 0

    def feed(self, data: memoryview) -> None:
        if self._header is None:
            self._header = self._read_header(bytes(data[:_MAX_HEADER]))
        self._fed += len(data)
        if data:
            self._decryption.feed([data])
        else:
            self._decryption.end_input()

    def _read_header(self, beginning: bytes) -> Header:
        if beginning.startswith(ARMOR):
            raise NotDecrypted(self._name, "this is armored, so the program age has to decrypt it")
        header = decode_header(beginning)
        if header is None and len(beginning) < _MAX_HEADER:
            raise Damage(len(beginning), "the file ends here, in the header of age")
        if header is None or len(header.stanzas) > _MAX_STANZAS:
            raise Damage(0, f"expected a header of age of at most {_MAX_HEADER} bytes for {_MAX_STANZAS} recipients")
        if header.has_passphrase:
            raise NotDecrypted(self._name, "this is encrypted with a passphrase, for which this does not ask")
        return header

    def take(self) -> bytes | None:
        try:
            content = self._decryption.take()
        except self._pyrage.DecryptError as error:
            raise self._explain(error) from None
        except OSError as error:
            raise Damage(self._offset, f"this is not what age wrote, or not all of it ({error})") from None
        self._given += len(content or b"")
        return content

    def _explain(self, error: Exception) -> Exception:
        if "No matching keys" not in str(error):
            return Damage(0, f"this begins as a file of age, but is none ({error})")
        assert self._header is not None, "it was read before"
        return NotDecrypted(self._name, "none of the identities opens this", self._header.recipients())

    @property
    def _offset(self) -> int:
        """Where the bytes stand that were to be decrypted next."""
        assert self._header is not None, "it was read before"
        return min(self._fed, self._header.offset_of(self._given))

    def close(self) -> None:
        self._decryption.close()
