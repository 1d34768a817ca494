"""The login daemon, asked over its socket what it asks nothing of anybody for: who root is."""

from __future__ import annotations

import os
import socket
import struct
import time

from iam_bridge.cli.doctor.host import Host
from iam_bridge.errors import BridgeError
from iam_bridge.model.rules import LoginSettings
from iam_bridge.policy.doctor import Check, DaemonFacts, judge_daemon
from pam_module.wire import FrameReader, Phase, Request, Status, encode_request, parse_reply

TIMEOUT_S = 3.0  # the module waits 2 s in most phases
_CREDENTIALS = struct.Struct("3i")  # ucred of unix(7): pid, uid, gid


def check_daemon(host: Host, login: LoginSettings) -> Check:
    """Judge the daemon by who it is and what it answers."""
    return judge_daemon(str(login.socket), _ask(login, host.uid_of(login.user)))


def _ask(login: LoginSettings, wanted_uid: int | None) -> DaemonFacts:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(TIMEOUT_S)
            client.connect(str(login.socket))
            raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            _, peer_uid, _ = _CREDENTIALS.unpack(raw)
            if os.geteuid() not in login.peers or peer_uid != wanted_uid:
                return DaemonFacts(peer_uid=peer_uid, wanted_uid=wanted_uid)
            start = time.perf_counter()
            says_foreign = _who_is_root(client)
            took = time.perf_counter() - start
    except PermissionError:
        return DaemonFacts(is_forbidden=True)
    except TimeoutError:
        return DaemonFacts(problem=f"no answer within {TIMEOUT_S:.0f} s")
    except OSError as error:
        return DaemonFacts(problem=str(error.strerror or error))
    except BridgeError as error:
        return DaemonFacts(problem=error.message)
    return DaemonFacts(peer_uid=peer_uid, wanted_uid=wanted_uid, says_foreign=says_foreign, took_s=took)


def _who_is_root(client: socket.socket) -> bool:
    client.sendall(encode_request(Request(Phase.WHO, os.getpid(), "root", service="iam-bridge-doctor", nss_uid=0)))
    reader = FrameReader()
    while True:
        data = client.recv(65536)
        if not data:
            raise BridgeError("it hung up before it had answered")
        frames = reader.feed(data)
        if frames:
            return parse_reply(frames[0]).status is Status.FOREIGN
