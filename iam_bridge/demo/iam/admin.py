"""`POST /-/COMMAND`: the test's own door into a served IAM, guarded by a random token.

Each command is a method of `EmbeddedIam`; the JSON body holds its arguments by name.  Requests here are
neither counted nor struck by faults.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iam_bridge.demo.iam.directory import UnknownRecord
from iam_bridge.demo.iam.faults import Fault
from iam_bridge.demo.iam.keys import SigningKey
from iam_bridge.demo.iam.records import Group, Person
from iam_bridge.demo.iam.state import EmbeddedIam
from iam_bridge.demo.iam.wire import Refusal, answer_json, iam_of


def _counters(iam: EmbeddedIam) -> dict[str, int]:
    return iam.log.by_path()


def _switch(iam: EmbeddedIam, **attributes: Any) -> None:
    """Set the switches that `EmbeddedIam` documents as attributes."""
    plain = {"version", "default_profile", "include_authn_info", "suspended_tokens_stay_active"}
    lists = {"include_attributes", "include_labels"}
    known = plain | lists
    if unknown := attributes.keys() - known:
        raise ValueError(f"no switch {', '.join(sorted(unknown))}: there are {', '.join(sorted(known))}")
    for name, value in attributes.items():
        setattr(iam, name, frozenset(value) if name in lists else value)


def _person(iam: EmbeddedIam, person: str) -> Person:
    return iam.person(person)


def _add_person(iam: EmbeddedIam, attributes: Mapping[str, str] | None = None, **fields: Any) -> Person:
    return iam.add_person(**fields, attributes=tuple((attributes or {}).items()))


COMMANDS: dict[str, Callable[..., Any]] = {
    "mint": EmbeddedIam.mint,
    "mint-for-client": EmbeddedIam.mint_for_client,
    "mint-id-token": EmbeddedIam.mint_id_token,
    "revoke": EmbeddedIam.revoke,
    "person": _person,
    "add-person": _add_person,
    "suspend": EmbeddedIam.suspend,
    "restore": EmbeddedIam.restore,
    "remove": EmbeddedIam.remove,
    "rename": EmbeddedIam.rename,
    "create-group": EmbeddedIam.create_group,
    "remove-group": EmbeddedIam.remove_group,
    "add-to-group": EmbeddedIam.add_to_group,
    "remove-from-group": EmbeddedIam.remove_from_group,
    "rotate-keys": EmbeddedIam.rotate_keys,
    "fault": EmbeddedIam.fault,
    "clear-faults": EmbeddedIam.clear_faults,
    "switch": _switch,
    "counters": _counters,
    "reset-counters": EmbeddedIam.reset_counters,
}


def present(iam: EmbeddedIam, result: Any) -> Any:
    """Make JSON of what a command returned."""
    match result:
        case Person():
            paths = [group.path for group in iam.groups_of(result)]
            return {"id": result.id, "username": result.username, "active": result.active, "groups": paths}
        case Group():
            return {"id": result.id, "path": result.path}
        case SigningKey():
            return {"kid": result.kid}
        case Fault():
            return {"kind": str(result.kind), "path": result.path}
        case _:
            return result


async def command(request: Request) -> Response:
    """Run one administrative command."""
    expected = f"Bearer {request.app.state.admin_token}"
    if not hmac.compare_digest(request.headers.get("authorization", "").encode(), expected.encode()):
        raise Refusal(401, {"error": "unauthorized"})
    iam, name = iam_of(request), request.path_params["command"]
    if name not in COMMANDS:
        raise Refusal(404, {"error": f"no command {name!r}: there are {', '.join(COMMANDS)}"})
    try:
        arguments = json.loads(await request.body() or b"{}")
        if not isinstance(arguments, dict):
            raise Refusal(400, {"error": "the body must be a JSON object of arguments"})
        result = COMMANDS[name](iam, **arguments)
    except UnknownRecord as unknown:
        raise Refusal(404, {"error": str(unknown)}) from unknown
    except (ValueError, TypeError) as wrong:
        raise Refusal(400, {"error": f"{name}: {wrong}"}) from wrong
    return answer_json({"result": present(iam, result)})


ROUTES = [Route("/-/{command}", command, methods=["POST"])]
