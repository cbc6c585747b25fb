from __future__ import annotations

from asyncbackup.client.versions import Versions
from asyncbackup.wire.messages import node_list, vdi_info

ALL = [Versions(internal) for internal in (0x0A, 0x09, 0x08, 0x07, 0x06, 0x05, None)]


def test_what_depends_on_the_release() -> None:
    assert [each.may_trim for each in ALL] == [False, False, True, True, False, False, True]
    assert [each.takes_object_sizes for each in ALL] == [True, False, False, False, False, False, True]
    assert [each.takes_copy_policies for each in ALL] == [True, True, True, False, False, False, True]
    assert [each.deletes_as_of_old for each in ALL] == [False, False, False, False, True, True, False]


def test_the_older_version_is_used_for_public_requests_alone() -> None:
    versions = Versions(0x07)
    before = versions.for_message(vdi_info("disk"))

    versions.use_older()

    assert (before, versions.for_message(vdi_info("disk")), versions.for_message(node_list(80))) == (2, 1, 0x07)
