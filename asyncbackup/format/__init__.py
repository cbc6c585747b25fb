"""Backup files, sans-IO: records, and the two dialects that frame them.

All integers are little-endian. A record is a 16-byte header and its data:

=========  =====  ==============================================================================
field      type   meaning
=========  =====  ==============================================================================
idx        u32    data object index
offset     u32    bytes trimmed from the object's head, a multiple of 512
length     u32    bytes of data that follow, a multiple of 512, > 0, offset + length <= object size
reserved   u32    0
=========  =====  ==============================================================================

Records stand in strictly ascending order of idx; an object whose two contents are equal has none.

``collie`` (2012): a 16-byte header, the records, end of file. The header is version u32 1, magic u32 0x11921192,
record count u32, reserved u32 0. It is written last: a file that starts with 16 zero bytes was never finished.

``dog`` (0.5.1 to 1.0): an 8-byte header (the same version and magic), the records, and an end marker: a record header
with idx 0xffffffff and all else 0. It is a stream: nothing is patched.
"""

from asyncbackup.format.dialect import Dialect
from asyncbackup.format.record import RecordHeader

__all__ = ["Dialect", "RecordHeader"]
