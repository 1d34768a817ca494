"""What is not as it should be: ledger, store, name service, homes, members and bans laid side by side.

Pure: facts in, findings out, each with what to do about it. Nothing here changes anything, and a site in good order
has no finding; so what a site may well want (a shell that the person chose, an expiry date ahead) is none.
"""

from __future__ import annotations

from collections.abc import Iterator

from iam_bridge.model.account import Account, GroupName, lock_words
from iam_bridge.model.change import AdoptAccount, Change, CreateAccount, CreateGroup, kind_of
from iam_bridge.model.rules import AccountRules, LoginRules
from iam_bridge.model.state import StoreUser
from iam_bridge.policy.findings import AuditFacts, AuditFinding

LOCKED_EXPIRY = "1"
GROUPS_OF_NFS = 16  # RFC 5531, appendix A: AUTH_SYS carries "gids<16>"
DAY_S = 86400
RUN = "iam-bridge provision run"
BY_HAND = "find out who changed it, and set it back by hand"


def _of(account: Account, code: str, what: str, todo: str) -> AuditFinding:
    return AuditFinding(code, account.name.text, account.uid, what, todo)


def audit(facts: AuditFacts, rules: AccountRules, login: LoginRules) -> tuple[AuditFinding, ...]:
    """Give every finding: first what concerns all, then account by account in the order of their numbers."""
    found = [
        *facts.elsewhere,
        *_audit_sources(facts, login),
        *_audit_orphans(facts, rules),
        *_audit_strays(facts, rules),
    ]
    blind = _is_blind(facts)
    if blind:
        found.append(
            AuditFinding(
                "nss-blind",
                "",
                0,
                f"the host's name service knows none of the {len(facts.ledger.accounts)} accounts",
                "let passwd and group in /etc/nsswitch.conf name the store (files or extrausers)",
            )
        )
    for account in sorted(facts.ledger.accounts.values(), key=lambda account: account.uid):
        found += _audit_row(account, facts)
        found += [] if blind else _audit_host(account, facts)
        found += _audit_home(account, facts, rules)
        found += _audit_life(account, facts)
    found += _audit_groups(facts)
    found += _audit_plan(facts)
    return tuple(found)


def _audit_sources(facts: AuditFacts, login: LoginRules) -> Iterator[AuditFinding]:
    if facts.ledger.stopped:
        yield AuditFinding(
            "stopped", "", 0, f"no number is given: {facts.ledger.stopped}", "iam-bridge ledger reconcile"
        )
    for source in facts.sources:
        who = source.issuer.url
        if source.taken_at is None:
            yield AuditFinding("list-missing", who, 0, "no complete list of its members was ever seen", RUN)
            continue
        age_s = int((facts.now - source.taken_at).total_seconds())
        if age_s >= login.members_deny_s:
            what = f"its last complete list is {age_s // 60} minutes old, so its people are denied every login"
            yield AuditFinding("list-stale", who, 0, what, RUN)
        elif age_s >= login.members_warn_s:
            what = f"its last complete list is {age_s // 60} minutes old (login.members.warn)"
            yield AuditFinding("list-ageing", who, 0, what, f"see that the timer runs: {RUN}")
        if source.reason:
            what = f"the last attempt gave no complete list: {source.reason}"
            yield AuditFinding("list-incomplete", who, 0, what, f"try again: {RUN}")


def _audit_orphans(facts: AuditFacts, rules: AccountRules) -> Iterator[AuditFinding]:
    ours = {account.uid: account.name.text for account in facts.ledger.accounts.values()}
    names = {account.name.text for account in facts.ledger.accounts.values()}
    users = {(user.name, user.uid) for user in facts.store.users.values()}
    users |= {(user.name, user.uid) for user in facts.host_users.values()}
    for name, uid in sorted(users):
        if uid in ours and ours[uid] != name:
            what = f"it has uid {uid}, which is {ours[uid]}'s"
            yield AuditFinding("uid-shared", name, uid, what, f"give {name} another uid, or remove it")
        elif uid not in ours and uid in rules.uids and name not in names:
            what = f"uid {uid} is in our range, and the ledger never gave it: every login is denied"
            todo = "take it over (iam-bridge map adopt), give it a uid outside the range, or remove it"
            yield AuditFinding("orphan", name, uid, what, todo)


def _audit_strays(facts: AuditFacts, rules: AccountRules) -> Iterator[AuditFinding]:
    ours = {account.uid: account for account in facts.ledger.accounts.values()}
    for path, owner in facts.strays:
        if owner in ours:
            what = f"it belongs to {ours[owner].name} (uid {owner}), whose home is {ours[owner].home}"
            yield AuditFinding("leftover", path, owner, what, "move what is needed into the home, and remove it")
        elif owner in rules.uids:
            what = f"it belongs to uid {owner} of our range, and no account has that number"
            yield AuditFinding("no-owner", path, owner, what, "chown or remove it; the number is not given again by us")


def _is_blind(facts: AuditFacts) -> bool:
    """Tell whether the name service does not look into the store at all: one finding then, not one per account."""
    names = {account.name.text for account in facts.ledger.accounts.values()}
    return bool(names) and not names & facts.host_users.keys()


def _audit_row(account: Account, facts: AuditFacts) -> Iterator[AuditFinding]:
    """Compare an account with its rows in the store."""
    user = facts.store.users.get(account.name.text)
    if user is None:
        todo = "restore the row that was there" if account.adopted else RUN
        yield _of(account, "row-missing", "the store has no passwd row of that name", todo)
        return
    if user.uid != account.uid:
        yield _of(account, "uid-drift", f"the store says uid {user.uid}, the ledger {account.uid}", BY_HAND)
        return
    if user.gid != account.gid:
        todo = f"usermod -g {account.gid} {account.name}"
        yield _of(account, "gid-drift", f"the store says gid {user.gid}, the ledger {account.gid}", todo)
    if user.home != account.home:
        todo = f"usermod -d {account.home} {account.name}"
        yield _of(account, "home-drift", f"the store says home {user.home}, the ledger {account.home}", todo)
    if user.shell not in (account.shell, *facts.shells):
        what = f"the shell is {user.shell}, neither the one given nor one of /etc/shells"
        yield _of(account, "shell-drift", what, f"usermod -s {account.shell} {account.name}")
    yield from _audit_expiry(account, user, facts)


def _audit_expiry(account: Account, user: StoreUser, facts: AuditFacts) -> Iterator[AuditFinding]:
    expiry = user.expiry
    if expiry is None:
        todo = "restore it, or the account has nowhere to be locked" if account.adopted else RUN
        yield _of(account, "shadow-missing", "the store has no shadow row of that name", todo)
    elif not account.is_open:
        if expiry != LOCKED_EXPIRY:
            what = f"locked in the ledger ({lock_words(account.locks)}), and its expiry field says {expiry!r}"
            yield _of(account, "lock-missing", what, RUN)
    elif account.name in facts.ledger.saved_expiry and expiry == LOCKED_EXPIRY:
        yield _of(account, "lock-left", "open in the ledger, and our lock still stands in shadow", RUN)
    elif expiry and (not expiry.isdecimal() or int(expiry) <= facts.now.timestamp() // DAY_S):
        what = f"open in the ledger, and shadow refuses it: its expiry field says {expiry!r}, which we did not write"
        todo = f"if nobody wants that: usermod -e '' {account.name}; else: iam-bridge map lock {account.name}"
        yield _of(account, "expiry-not-ours", what, todo)


def _audit_host(account: Account, facts: AuditFacts) -> Iterator[AuditFinding]:
    """Compare an account with what the name service answers, which is what every program of the host goes by."""
    host = facts.host_users.get(account.name.text)
    if host is None:
        todo = "see passwd in /etc/nsswitch.conf, and the caches: nscd -i passwd, sss_cache -E"
        yield _of(account, "nss-missing", "the host's name service does not know it: every login is denied", todo)
    elif host.uid != account.uid:
        what = f"the host's name service says uid {host.uid}, the ledger {account.uid}: every login is denied"
        yield _of(account, "nss-uid", what, "another directory has the name: see the order in /etc/nsswitch.conf")
    elif host.gid != account.gid:
        what = f"the host's name service says gid {host.gid}, the ledger {account.gid}"
        yield _of(account, "nss-gid", what, "another directory has the name: see the order in /etc/nsswitch.conf")
    if (count := facts.group_counts.get(account.name.text, 0)) > GROUPS_OF_NFS:
        what = f"it is in {count} groups, and NFS with AUTH_SYS carries {GROUPS_OF_NFS}"
        yield _of(account, "many-groups", what, "map fewer groups, or let the NFS server look groups up itself")


def _audit_home(account: Account, facts: AuditFacts, rules: AccountRules) -> Iterator[AuditFinding]:
    home = facts.homes.get(account.name)
    if home is None:
        if account.adopted:
            yield _of(account, "home-missing", f"{account.home} is not there", "restore it from a backup")
        elif not rules.make_homes:
            return  # a file server, or the first login, makes it
        elif account.name in facts.ledger.homes_due:
            yield _of(account, "home-due", f"{account.home} could not be made yet", f"see what it says: {RUN}")
        else:
            todo = f"restore it from a backup, or: install -d -m 700 -o {account.uid} -g {account.gid} {account.home}"
            yield _of(account, "home-missing", f"{account.home} is not there any more", todo)
    elif home.kind != "folder":
        word = "a symbolic link" if home.kind == "link" else "no folder"
        yield _of(account, "home-no-folder", f"{account.home} is {word}", "put the folder itself there")
    elif home.owner != account.uid:
        what = f"{account.home} belongs to uid {home.owner}"
        yield _of(account, "home-owner", what, "find out whose it is before you chown it")
    elif home.mode & 0o022:
        what = f"others may write in {account.home} (mode {home.mode:04o}): sshd refuses its keys"
        yield _of(account, "home-open", what, f"chmod go-w {account.home}")


def _audit_life(account: Account, facts: AuditFacts) -> Iterator[AuditFinding]:
    """Look for what goes on although the account is locked, and for what waits."""
    closed = not account.is_open or account.subject in facts.banned
    count = facts.running.get(account.uid, 0)
    if closed and count:
        why = "banned" if account.subject in facts.banned else f"locked ({lock_words(account.locks)})"
        yield _of(account, "still-running", f"it is {why}, and {count} processes run", f"{RUN} ends them")
    if closed and (files := facts.later.get(account.name)):
        what = f"it is locked, and could start something by {', '.join(files)}"
        yield _of(account, "starts-later", what, "remove them if that must not be")


def _audit_groups(facts: AuditFacts) -> Iterator[AuditFinding]:
    ours = {account.name.text: account for account in facts.ledger.accounts.values()}
    for group, gid in sorted(facts.ledger.groups.items()):
        standing = facts.store.groups.get(group.text)
        if standing is None:
            yield AuditFinding("group-missing", group.text, 0, "the store has no such group", RUN)
            continue
        if standing.gid != gid:
            what = f"the store says gid {standing.gid}, the ledger {gid}"
            yield AuditFinding("group-drift", group.text, 0, what, f"groupmod -g {gid} {group}")
        for name in sorted(standing.members & ours.keys()):
            if group not in ours[name].groups:
                yield _of(ours[name], "member-no-right", f"in the group {group} without a right to it", RUN)
        yield from _audit_rights(group, standing.members, facts)


def _audit_rights(group: GroupName, members: frozenset[str], facts: AuditFacts) -> Iterator[AuditFinding]:
    for account in sorted(facts.ledger.accounts.values(), key=lambda account: account.uid):
        if group in account.groups and account.name.text not in members and account.name.text in facts.store.users:
            yield _of(account, "right-no-member", f"not in the group {group}, and has a right to it", RUN)


def _audit_plan(facts: AuditFacts) -> Iterator[AuditFinding]:
    """Show who waits, who is turned away, and what the last run left undone."""
    waiting = {entry.subject for entry in facts.parked if entry.kind == "create"}
    for entry in facts.parked:
        todo = f"iam-bridge provision approve {entry.digest}"
        if entry.kind == "create":
            yield AuditFinding("no-account", entry.subject, 0, f"the account {entry.name} waits for approval", todo)
        else:
            what = f"{entry.kind} ({entry.detail}) waits for approval; until then they keep what they have"
            yield AuditFinding("parked", entry.name, entry.uid, what, todo)
    for refusal in facts.plan.refused:
        if refusal.subject not in facts.suspended:
            what = f"the member {refusal.username} gets no account: {refusal.why}"
            yield AuditFinding("no-account", str(refusal.subject), 0, what, "settle what stands in the way")
    for change in facts.plan.changes:
        if not isinstance(change, CreateAccount) or str(change.account.subject) not in waiting:
            yield _pending(change)


def _pending(change: Change) -> AuditFinding:
    what = f"{kind_of(change)} is due and not done ({change.cause.rule})"
    match change:
        case CreateGroup():
            return AuditFinding("pending", change.group.text, 0, what, RUN)
        case CreateAccount() | AdoptAccount():
            return AuditFinding("pending", str(change.account.subject), 0, what, RUN)
        case _:
            return AuditFinding("pending", change.name.text, change.uid, what, RUN)
