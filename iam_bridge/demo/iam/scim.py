"""`/scim`: users and groups page by page, in IAM's JSON, without its order.

Reading only.  Pages hold at most 100 rows, empty lists and nulls are absent, dates carry the
server's own offset, and a row costs nothing until its page is asked for.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iam_bridge.demo.iam.directory import UnknownRecord
from iam_bridge.demo.iam.faults import FaultKind
from iam_bridge.demo.iam.records import Group, Label, Person
from iam_bridge.demo.iam.state import EmbeddedIam
from iam_bridge.demo.iam.wire import SCIM_TYPE, Refusal, answer_json, check_bearer, iam_of, strikes_of

PAGE_CAP = 100
LOCAL = timezone(timedelta(hours=1))
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
INDIGO_USER = "urn:indigo-dc:scim:schemas:IndigoUser"
INDIGO_GROUP = "urn:indigo-dc:scim:schemas:IndigoGroup"
LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
Json = dict[str, Any]


def format_date(ms: int) -> str:
    """Write epoch milliseconds as IAM does: `2026-01-21T15:30:36.508+01:00`."""
    return datetime.fromtimestamp(ms / 1000, LOCAL).isoformat(timespec="milliseconds")


def without_empty(fields: Mapping[str, Any]) -> Json:
    """Leave out what Jackson's NON_EMPTY leaves out: null, empty text, empty lists and objects."""
    return {name: value for name, value in fields.items() if value is not None and value not in ("", [], {})}


def _meta(iam: EmbeddedIam, record: Person | Group, kind: str) -> Json:
    return {
        "created": format_date(record.created_ms),
        "lastModified": format_date(record.modified_ms),
        "location": _location(iam, kind, record.id),
        "resourceType": kind,
    }


def _location(iam: EmbeddedIam, kind: str, record_id: str) -> str:
    return f"{iam.issuer.rstrip('/')}/scim/{kind}s/{record_id}"


def _labels(labels: Sequence[Label]) -> list[Json]:
    return [without_empty({"prefix": label.prefix, "name": label.name, "value": label.value}) for label in labels]


def show_user(iam: EmbeddedIam, person: Person, *, detail: bool) -> Json:
    """Write one user; `detail` adds what lists omit (pemEncodedCertificate)."""
    return {
        "id": person.id,
        "meta": _meta(iam, person, "User"),
        "schemas": [USER, INDIGO_USER],
        "userName": person.username,
        **without_empty(
            {
                "name": without_empty(
                    {"givenName": person.given_name, "familyName": person.family_name, "formatted": person.name}
                ),
                "displayName": person.username,
                "active": person.active,
                "emails": [{"type": "work", "value": person.email, "primary": True}] if person.email else [],
                "groups": [
                    {"display": group.path, "value": group.id, "$ref": _location(iam, "Group", group.id)}
                    for group in iam.groups_of(person)
                ],
            }
        ),
        INDIGO_USER: _show_indigo_user(iam, person, detail=detail),
    }


def _show_indigo_user(iam: EmbeddedIam, person: Person, *, detail: bool) -> Json:
    created, modified = format_date(person.created_ms), format_date(person.modified_ms)
    return without_empty(
        {
            "oidcIds": [{"issuer": linked.provider, "subject": linked.subject} for linked in person.oidc_ids],
            "samlIds": [
                {"idpId": linked.provider, "userId": linked.subject, "attributeId": linked.attribute}
                for linked in person.saml_ids
            ],
            "sshKeys": [
                {
                    "display": key.display,
                    "primary": key.primary,
                    "value": key.value,
                    "fingerprint": base64.b64encode(hashlib.sha256(key.value.encode()).digest()).decode(),
                    "created": created,
                    "lastModified": modified,
                }
                for key in person.ssh_keys
            ],
            "certificates": [
                without_empty(
                    {
                        "primary": index == 0,
                        "subjectDn": certificate.subject_dn,
                        "issuerDn": certificate.issuer_dn,
                        "display": certificate.subject_dn,
                        "pemEncodedCertificate": certificate.pem if detail else None,
                        "hasProxyCertificate": False,
                    }
                )
                for index, certificate in enumerate(person.certificates)
            ],
            "labels": _labels([label for label in person.labels if label.name in iam.include_labels]),
            "attributes": [
                {"name": name, "value": value} for name, value in person.attributes if name in iam.include_attributes
            ],
            "aupSignatureTime": None if person.aup_signed_ms is None else format_date(person.aup_signed_ms),
            "endTime": None if person.end_time_ms is None else format_date(person.end_time_ms),
            "serviceAccount": person.service_account,
        }
    )


def show_group(iam: EmbeddedIam, group: Group) -> Json:
    """Write one group; members are asked for apart."""
    parent = None
    if group.parent_id is not None:
        above = iam.group(group.parent_id)
        parent = {"display": above.path, "value": above.id, "$ref": _location(iam, "Group", above.id)}
    extension = {"parentGroup": parent, "description": group.description, "labels": _labels(group.labels)}
    return {
        "id": group.id,
        "meta": _meta(iam, group, "Group"),
        "schemas": [GROUP, INDIGO_GROUP],
        "displayName": group.path,
        INDIGO_GROUP: without_empty(extension),
    }


# ---- paging --------------------------------------------------------------------------------------


def _integer(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    try:
        return default if text is None else int(text)
    except ValueError as wrong:
        detail = f"Invalid value for parameter {name}"
        raise Refusal(400, {"status": "400", "detail": detail, "schemas": [ERROR]}) from wrong


def _window(request: Request) -> tuple[int, int]:
    """Read startIndex (from 1; less means 1) and count (0 to 100; more is cut without a word)."""
    start = max(_integer(request, "startIndex", 1), 1)
    return start, min(max(_integer(request, "count", PAGE_CAP), 0), PAGE_CAP)


def _wanted(request: Request) -> frozenset[str]:
    text = request.query_params.get("attributes", "")
    return frozenset(part.strip() for part in text.replace(".", ",").split(",")) - {""}


def _project(row: Json, wanted: frozenset[str]) -> Json:
    if not wanted:
        return row
    return {name: value for name, value in row.items() if name in wanted or name in {"id", "schemas"}}


def _shift(request: Request) -> int:
    strike = strikes_of(request).get(FaultKind.PAGE_DRIFT)
    return strike.turn * strike.fault.number if strike else 0


def _answer_page(request: Request, *, start: int, count: int, total: int, rows: list[Json]) -> Response:
    strikes = strikes_of(request)
    if strike := strikes.get(FaultKind.LYING_TOTAL):
        total += strike.fault.number
    shown = len(rows)
    if FaultKind.DUPLICATE_ID in strikes and shown > 1:
        rows[-1] = rows[0]
    if strike := strikes.get(FaultKind.SHORT_PAGE):
        rows = rows[: max(shown - strike.fault.number, 0)]
    body: Json = {"totalResults": total}
    if count:
        body |= {"itemsPerPage": shown, "startIndex": start}
    return answer_json({**body, "schemas": [LIST], "Resources": rows}, kind=SCIM_TYPE)


# ---- endpoints -----------------------------------------------------------------------------------


async def list_users(request: Request) -> Response:
    """Answer `GET /scim/Users`."""
    check_bearer(request, "scim:read")
    iam, (start, count), wanted = iam_of(request), _window(request), _wanted(request)
    total, people = iam.people_page(start - 1, count, shift=_shift(request))
    rows = [_project(show_user(iam, person, detail=False), wanted) for person in people]
    return _answer_page(request, start=start, count=count, total=total, rows=rows)


async def list_groups(request: Request) -> Response:
    """Answer `GET /scim/Groups`."""
    check_bearer(request, "scim:read")
    iam, (start, count), wanted = iam_of(request), _window(request), _wanted(request)
    total, groups = iam.groups_page(start - 1, count, shift=_shift(request))
    rows = [_project(show_group(iam, group), wanted) for group in groups]
    return _answer_page(request, start=start, count=count, total=total, rows=rows)


async def one_user(request: Request) -> Response:
    """Answer `GET /scim/Users/{id}`."""
    check_bearer(request, "scim:read")
    iam, person_id = iam_of(request), request.path_params["id"]
    person = iam.find_person(person_id)
    if person is None:
        raise _not_found("user", person_id)
    return answer_json(_project(show_user(iam, person, detail=True), _wanted(request)), kind=SCIM_TYPE)


async def one_group(request: Request) -> Response:
    """Answer `GET /scim/Groups/{id}`."""
    check_bearer(request, "scim:read")
    return answer_json(show_group(iam_of(request), _group(request)), kind=SCIM_TYPE)


async def list_members(request: Request) -> Response:
    """Answer `GET /scim/Groups/{id}/members`: value, full name and reference, no user name, no `active`."""
    check_bearer(request, "scim:read")
    iam, (start, count) = iam_of(request), _window(request)
    members = iam.members(_group(request).id)
    rows = [
        {"display": person.name, "value": person.id, "$ref": _location(iam, "User", person.id)}
        for person in members[start - 1 : start - 1 + count]
    ]
    return _answer_page(request, start=start, count=count, total=len(members), rows=rows)


async def list_subgroups(request: Request) -> Response:
    """Answer `GET /scim/Groups/{id}/subgroups`."""
    check_bearer(request, "scim:read")
    iam, (start, count) = iam_of(request), _window(request)
    groups = iam.subgroups(_group(request).id)
    rows = [
        {"display": group.path, "value": group.id, "$ref": _location(iam, "Group", group.id)}
        for group in groups[start - 1 : start - 1 + count]
    ]
    return _answer_page(request, start=start, count=count, total=len(groups), rows=rows)


def _group(request: Request) -> Group:
    group_id = request.path_params["id"]
    try:
        group = iam_of(request).group(group_id)
    except UnknownRecord as unknown:
        raise _not_found("group", group_id) from unknown
    if group.id != group_id:
        raise _not_found("group", group_id)
    return group


def _not_found(kind: str, record_id: str) -> Refusal:
    return Refusal(404, {"status": "404", "detail": f"No {kind} mapped to id '{record_id}'", "schemas": [ERROR]})


ROUTES = [
    Route("/scim/Users", list_users),
    Route("/scim/Users/{id}", one_user),
    Route("/scim/Groups", list_groups),
    Route("/scim/Groups/{id}", one_group),
    Route("/scim/Groups/{id}/members", list_members),
    Route("/scim/Groups/{id}/subgroups", list_subgroups),
]
