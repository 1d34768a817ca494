"""What the tests of member sources share: rules for a served IAM, and a clock that stands still."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from iam_bridge.demo.iam import DataSet, Group, Person, ServedIam, synthetic_people
from iam_bridge.demo.iam.datasets import SERVICE_CLIENTS
from iam_bridge.model.identity import Issuer
from iam_bridge.model.rules import ClientSettings, GroupRule, SourceRules

NOW = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)
SYNC_SECRET = "sync-secret"


def stand_still() -> datetime:
    return NOW


def write_secret(folder: Path, text: str = SYNC_SECRET) -> Path:
    path = folder / "sync.secret"
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def make_rules(
    issuer: str,
    *groups: str,
    kind: str = "indigo-iam",
    client_id: str = "sync-client",
    secret_file: Path | None = None,
    ca_file: Path | None = None,
    file: Path | None = None,
    trusted: tuple[str, ...] = (),
    timeout_s: float = 5.0,
    user: str = "nobody",
) -> SourceRules:
    return SourceRules(
        issuer=Issuer.parse(issuer),
        kind=kind,
        groups=tuple(GroupRule(path, None, True, False) for path in groups or ("hpc/users",)),
        client=ClientSettings(client_id, secret_file),
        ca_file=ca_file,
        file=file,
        trusted_attributes=frozenset(trusted),
        timeout_s=timeout_s,
        user=user,
    )


def served_rules(served: ServedIam, folder: Path, *groups: str, **changes: object) -> SourceRules:
    given: dict[str, object] = {"secret_file": write_secret(folder), "ca_file": served.ca_file, **changes}
    return make_rules(served.issuer, *groups, **given)  # type: ignore[arg-type]


def people_and_groups(people: int, groups: int) -> DataSet:
    """Make `people` synthetic members and `groups` groups in all; they share one group where there is any."""
    made = tuple(
        Group(f"group-{place:04d}", "hpc" if place == 0 else f"hpc/g{place:04d}", 0, 0, parent_id=None)
        for place in range(groups)
    )
    first = tuple(group.id for group in made[:1])
    everybody = tuple(
        Person(
            id=person.id,
            username=person.username,
            given_name=person.given_name,
            family_name=person.family_name,
            email=person.email,
            created_ms=person.created_ms,
            modified_ms=person.modified_ms,
            groups=first,
        )
        for person in synthetic_people(people).people
    )
    return DataSet(everybody, made, SERVICE_CLIENTS)
