"""Who is a member: sources that list an issuer's people, and the choice of one by the settings."""

from __future__ import annotations

from iam_bridge.errors import SettingsError
from iam_bridge.iam.http import Session
from iam_bridge.iam.members.file import FileMembers, read_people_file
from iam_bridge.iam.members.indigo import IndigoMembers
from iam_bridge.iam.secrets import read_secret
from iam_bridge.model.rules import SourceRules
from iam_bridge.ports import Clock, MemberSource


def source_of(rules: SourceRules, *, clock: Clock) -> MemberSource:
    """Make the source that the settings name.

    Everything that lies on disk (secret, CA file, people file, modules) is read here and nothing later, so that the
    process may lower its rights between this call and `fetch_members`. Raises SettingsError or SourceUnavailable.
    """
    if rules.kind == "file":
        if rules.file is None:
            raise SettingsError(f"the source of {rules.issuer} is a file, and none is named", hint="set members.file")
        return FileMembers(rules, raw=read_people_file(rules.file), clock=clock)
    if rules.kind != "indigo-iam":
        raise SettingsError(f"{rules.kind} is no kind of source", hint="indigo-iam or file")
    if rules.client is None or rules.client.secret_file is None:
        hint = "set members.client with id and secret_file"
        raise SettingsError(f"the source of {rules.issuer} names no client with a secret", hint=hint)
    session = Session(ca_file=rules.ca_file)
    session.prepare(str(rules.issuer))
    return IndigoMembers(rules, secret=read_secret(rules.client.secret_file), session=session, clock=clock)
