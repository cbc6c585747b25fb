"""Answers requests: from a header and a payload to a result and an answer's payload. No sockets, no faults."""

from __future__ import annotations

import errno
import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from asyncbackup.sheep import records
from asyncbackup.sheep.cluster import ClusterState
from asyncbackup.sheep.objects import Objects
from asyncbackup.sheep.release import Release
from asyncbackup.sheep.vdis import Wanted
from asyncbackup.sheep.volumes import Refused
from asyncbackup.wire.attributes import Attribute
from asyncbackup.wire.constants import (
    EPOCH_LOG_SIZES,
    NAME_SIZE,
    VDI_BITMAP_SIZE,
    Opcode,
    Result,
)
from asyncbackup.wire.messages import (
    Bytes,
    NodeReply,
    ObjectBody,
    ObjectReply,
    RequestHeader,
    VdiBody,
    VdiReply,
    unpack_name,
)
from asyncbackup.wire.nodes import NODE_ENTRY_SIZE
from asyncbackup.wire.vdi_ids import first_id

OBJECT_WRITES: Final = frozenset({Opcode.CREATE_AND_WRITE_OBJ, Opcode.WRITE_OBJ})
OBJECT_REQUESTS: Final = OBJECT_WRITES | {
    Opcode.READ_OBJ,
    Opcode.READ_PEER,
    Opcode.REMOVE_OBJ,
    Opcode.DISCARD_OBJ,
    Opcode.EXIST,
}

MAX_OTHER_PAYLOAD: Final = 1 << 20
"""Bytes of payload taken with a request that writes no object: 131072 oids of OIDS_EXIST, names, …"""

_OF_ALL_NODES: Final = frozenset(
    {
        Opcode.NEW_VDI,
        Opcode.DEL_VDI,
        Opcode.DEL_VDI_OLD,
        Opcode.GET_VDI_INFO,
        Opcode.LOCK_VDI,
        Opcode.RELEASE_VDI,
        Opcode.GET_VDI_ATTR,
    }
)
"""Requests that a cluster carries out together: one node that hangs holds them up."""
_CHANGES: Final = OBJECT_WRITES | {Opcode.REMOVE_OBJ, Opcode.DISCARD_OBJ}

_NO_BODY: Final = bytes(28)
_AFTER_COPIES: Final[dict[int, slice[int, int, None]]] = {
    Opcode.NEW_VDI: slice(13, 16),
    **dict.fromkeys(OBJECT_WRITES, slice(17, 20)),
}
_NONE: Final = slice(0, 0)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """``body``: the 28 bytes of the response header that depend on the opcode."""

    result: Result = Result.SUCCESS
    body: bytes = _NO_BODY
    payload: Bytes = b""


@dataclass(frozen=True, slots=True)
class _Call:
    header: RequestHeader
    payload: memoryview


class Service:
    """The answers of one node of a cluster."""

    def __init__(self, cluster: ClusterState, node: int = 0) -> None:
        """Answer for the node with index ``node``."""
        self._cluster = cluster
        self._release = cluster.release
        self._config = cluster.config
        self._volumes = cluster.volumes
        self._attributes = cluster.attributes
        self._store = cluster.members[node].store
        self._objects = Objects(cluster.replicas, cluster.volumes, self._store)
        self._handlers: dict[int, Callable[[_Call], Answer]] = {
            Opcode.READ_OBJ: self._read,
            Opcode.READ_PEER: self._read_replica,
            Opcode.WRITE_OBJ: self._write,
            Opcode.CREATE_AND_WRITE_OBJ: self._create,
            Opcode.REMOVE_OBJ: self._remove,
            Opcode.DISCARD_OBJ: self._discard,
            Opcode.EXIST: self._exist,
            Opcode.OIDS_EXIST: self._oids_exist,
            Opcode.NEW_VDI: self._new_vdi,
            Opcode.DEL_VDI: self._delete_vdi,
            Opcode.DEL_VDI_OLD: self._delete_vdi,
            Opcode.GET_VDI_INFO: self._vdi_info,
            Opcode.LOCK_VDI: self._vdi_info,
            Opcode.RELEASE_VDI: lambda _: Answer(),
            Opcode.FLUSH_VDI: lambda _: Answer(Result.INVALID_PARMS),  # obsolete: tells clients not to ask again
            Opcode.GET_VDI_ATTR: self._attribute,
            Opcode.READ_VDIS: self._read_vdis,
            Opcode.READ_DEL_VDIS: self._read_vdis,
            Opcode.GET_VDI_COPIES: self._vdi_states,
            Opcode.GET_NODE_LIST: self._node_list,
            Opcode.GET_CLUSTER_DEFAULT: self._cluster_default,
            Opcode.CLUSTER_INFO: self._cluster_info,
            Opcode.STAT_CLUSTER: self._stat_cluster,
            Opcode.STAT_SHEEP: self._stat_sheep,
            Opcode.STAT_RECOVERY: lambda _: Answer(payload=bytes(records.RECOVERY_STATE_SIZE)),
            Opcode.STAT: lambda _: Answer(payload=bytes(records.STATISTICS_SIZE)),
        }

    @property
    def epoch(self) -> int:
        """The epoch that the cluster is in."""
        return self._cluster.membership.epoch

    @property
    def forwarded_reads(self) -> int:
        """Reads of objects that the node had to get from another one."""
        return self._objects.forwarded_reads

    def wants(self, header: RequestHeader) -> bool:
        """Tell whether a request's payload is of use: known opcode, and as long as it may be."""
        if header.opcode in OBJECT_WRITES:
            return self._objects.has_room(ObjectBody.unpack(header.body), header.payload_length)
        return header.opcode in self._handlers and header.payload_length <= MAX_OTHER_PAYLOAD

    def must_wait(self, header: RequestHeader) -> bool:
        """Tell whether a request cannot be served now, because it takes another node that hangs."""
        if not any(member.is_stalled for member in self._cluster.members):
            return False
        if header.opcode not in OBJECT_REQUESTS:
            return header.opcode in _OF_ALL_NODES
        oid = ObjectBody.unpack(header.body).oid
        holders = self._cluster.replicas.holders(oid)
        if header.opcode in _CHANGES:
            return any(member.is_stalled for member in holders)
        is_forwarded = header.opcode == Opcode.READ_OBJ and not self._objects.has_replica(oid)
        return is_forwarded and any(member.is_stalled for member in holders[:1])

    def answer(self, header: RequestHeader, payload: memoryview) -> Answer:
        """Serve a request whose payload is complete, or empty if it was not wanted. Never raises.

        The answer's payload is at most as long as the client can take.
        """
        try:
            answer = self._serve(header, payload)
        except Refused as refusal:
            return Answer(refusal.result)
        except OSError as error:
            _log.exception("request with opcode 0x%02x failed", header.opcode)
            return Answer(Result.NO_SPACE if error.errno in {errno.ENOSPC, errno.EDQUOT} else Result.EIO)
        except Exception:  # noqa: BLE001 -- whatever goes wrong in here, the server goes on
            _log.exception("request with opcode 0x%02x failed", header.opcode)
            return Answer(Result.SYSTEM_ERROR)
        return answer if len(answer.payload) <= header.data_length else Answer(Result.BUFFER_SMALL)

    def _serve(self, header: RequestHeader, payload: memoryview) -> Answer:
        if not self._release.accepts(header.opcode, header.proto_ver):
            return Answer(Result.VER_MISMATCH)
        handler = self._handlers.get(header.opcode)
        if handler is None or not self._release.knows(header.opcode) or len(payload) != header.payload_length:
            return Answer(Result.INVALID_PARMS)
        if self._release.value.wide_copies and any(header.body[_AFTER_COPIES.get(header.opcode, _NONE)]):
            return Answer(Result.INVALID_PARMS)
        return handler(_Call(header, payload))

    def _read(self, call: _Call) -> Answer:
        extent = self._objects.read(ObjectBody.unpack(call.header.body), call.header.data_length)
        if self._release.trims(call.header.proto_ver):
            extent = extent.trimmed()
        return Answer(body=ObjectReply(offset=extent.offset).pack(), payload=extent.data)

    def _read_replica(self, call: _Call) -> Answer:
        """Read what this node has itself. As between nodes, both have to be in the same epoch."""
        if call.header.epoch != self.epoch:
            is_old = call.header.epoch < self.epoch
            return Answer(Result.OLD_NODE_VER if is_old else Result.NEW_NODE_VER)
        extent = self._objects.read_replica(ObjectBody.unpack(call.header.body), call.header.data_length)
        return Answer(body=ObjectReply(offset=extent.offset).pack(), payload=extent.data)

    def _write(self, call: _Call) -> Answer:
        self._objects.write(ObjectBody.unpack(call.header.body), call.payload)
        return Answer()

    def _create(self, call: _Call) -> Answer:
        self._objects.create(ObjectBody.unpack(call.header.body), call.header.flags, call.payload)
        return Answer()

    def _remove(self, call: _Call) -> Answer:
        self._objects.remove(ObjectBody.unpack(call.header.body).oid)
        return Answer()

    def _discard(self, call: _Call) -> Answer:
        self._objects.discard(ObjectBody.unpack(call.header.body).oid)
        return Answer()

    def _exist(self, call: _Call) -> Answer:
        exists = self._objects.has_replica(ObjectBody.unpack(call.header.body).oid)
        return Answer(Result.SUCCESS if exists else Result.NO_OBJ)

    def _oids_exist(self, call: _Call) -> Answer:
        """Send the missing ones among the oids back."""
        oids = struct.unpack(f"<{len(call.payload) // 8}Q", call.payload)
        missing = [oid for oid in oids if not self._objects.has_replica(oid)]
        result = Result.NO_OBJ if missing else Result.SUCCESS
        return Answer(result, payload=struct.pack(f"<{len(missing)}Q", *missing))

    def _new_vdi(self, call: _Call) -> Answer:
        if len(call.payload) != NAME_SIZE:
            return Answer(Result.INVALID_PARMS)
        new = self._volumes.new(unpack_name(call.payload), VdiBody.unpack(call.header.body))
        return Answer(body=_vdi_reply(new))

    def _delete_vdi(self, call: _Call) -> Answer:
        vdi_id = self._volumes.delete(_wanted(call))
        return Answer(body=VdiReply(vdi_id).pack())

    def _vdi_info(self, call: _Call) -> Answer:
        return Answer(body=_vdi_reply(self._volumes.find(_wanted(call))))

    def _attribute(self, call: _Call) -> Answer:
        """Find, make or delete an attribute. Its VDI must be there, or the snapshot that the header names."""
        try:
            asked = Attribute.unpack(call.payload)
        except ValueError:
            return Answer(Result.INVALID_PARMS)
        state = self._volumes.find(Wanted(asked.name, asked.tag, VdiBody.unpack(call.header.body).snapid))
        header = self._volumes.header(state.vdi_id)
        asked = replace(asked, time=header.create_time if header else 0)
        # A snapshot changes the working VDI's id, so attributes go by the id that follows from the name.
        vdi_id = first_id(asked.name)
        attr_id = self._attributes.handle(vdi_id, asked, call.header.flags)
        return Answer(body=VdiReply(vdi_id, attr_id, self._volumes.state(vdi_id).copies).pack())

    def _read_vdis(self, call: _Call) -> Answer:
        if call.header.data_length != VDI_BITMAP_SIZE:
            return Answer(Result.INVALID_PARMS)
        of_deleted = call.header.opcode == Opcode.READ_DEL_VDIS
        return Answer(payload=(self._volumes.deleted if of_deleted else self._volumes.in_use).pack())

    def _vdi_states(self, _: _Call) -> Answer:
        version = self._release.value.internal_version
        return Answer(payload=b"".join(state.pack_for(version) for state in self._volumes.states()))

    def _node_list(self, _: _Call) -> Answer:
        nodes = self._cluster.membership.nodes
        entries = records.pack_node_list(self._release.value.internal_version, nodes)
        return Answer(body=NodeReply(nr_nodes=len(nodes)).pack(), payload=entries)

    def _cluster_default(self, _: _Call) -> Answer:
        return Answer(body=records.pack_cluster_default(self._config.copies, self._config.block_size_shift))

    def _cluster_info(self, _: _Call) -> Answer:
        version = self._release.value.internal_version
        config, epoch = self._config, self._cluster.membership.epochs[-1]
        info = records.pack_cluster_info(version, config.ctime, config.copies, config.block_size_shift, epoch)
        return Answer(payload=info)

    def _stat_cluster(self, call: _Call) -> Answer:
        """Send the log of epochs, the newest ones that the client has room for."""
        version, config = self._release.value.internal_version, self._config
        (room,) = struct.unpack_from("<I", call.header.body, 24)
        is_new = self._release is Release.V1_0
        size = EPOCH_LOG_SIZES[version] + (room * NODE_ENTRY_SIZE if is_new else 0)
        most = call.header.data_length // size
        epochs = self._cluster.membership.epochs[-most:] if most else []
        if not is_new:
            return Answer(payload=records.pack_epoch_log_for(version, config.ctime, config.copies, epochs))
        if room and any(len(epoch.nodes) > room for epoch in epochs):
            return Answer(Result.BUFFER_SMALL)
        return Answer(payload=records.pack_epoch_log(config.ctime, config.copies, epochs, room))

    def _stat_sheep(self, _: _Call) -> Answer:
        space = self._store.space()
        return Answer(body=NodeReply(store_size=space.size, store_free=space.size - space.used).pack())


def _wanted(call: _Call) -> Wanted:
    """Read name, tag and snapshot id. Raises Refused unless the payload is a name, or a name and a tag."""
    if len(call.payload) not in {NAME_SIZE, 2 * NAME_SIZE}:
        raise Refused(Result.INVALID_PARMS)
    name, tag = (unpack_name(call.payload[start : start + NAME_SIZE]) for start in (0, NAME_SIZE))
    return Wanted(name, tag, VdiBody.unpack(call.header.body).snapid)


def _vdi_reply(state: records.VdiState) -> bytes:
    return VdiReply(state.vdi_id, copies=state.copies, block_size_shift=state.block_size_shift).pack()
