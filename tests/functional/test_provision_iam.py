"""`iam-bridge provision` against an embedded IAM over TLS: the pull, its faults, and what a run makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from iam_bridge.demo.iam import EmbeddedIam, ServedIam, demo_people, running_iam
from iam_bridge.demo.iam.records import SshKey
from tests.functional.site import IS_ROOT, Scratch, iam_source

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="homes are given away")


@dataclass
class Joined:
    """A site and the IAM that its members come from."""

    site: Scratch
    served: ServedIam

    @property
    def iam(self) -> EmbeddedIam:
        return self.served.iam


@pytest.fixture
def joined(open_folder: Path) -> Iterator[Joined]:
    secret = open_folder / "sync.secret"
    secret.write_text("sync-secret\n")
    secret.chmod(0o600)
    with running_iam(EmbeddedIam(demo_people()), open_folder) as served:
        site = Scratch(open_folder, issuer=served.issuer, source=iam_source(served.ca_file, secret))
        site.spawns = True  # the IAM lives in threads of this process
        yield Joined(site, served)


@pytest.fixture
def ran(joined: Joined) -> Joined:
    done = joined.site.bridge("provision", "run")
    assert done.status == 0, done.all
    return joined


def test_the_cast_of_the_demo_gets_what_it_should(ran: Joined) -> None:
    accounts = {row["name"]: row for row in ran.site.bridge("map", "list", "--json").json()}
    assert {"ada", "grace", "linus", "kim"} <= accounts.keys()
    assert "root" not in accounts
    assert "mallory" not in accounts
    assert len(accounts) == 7  # root, kim.sun and marie.curie@lab get names from their numbers
    assert accounts["ada"]["groups"] == ["hpcgpu", "hpcusers"]


def test_a_second_run_is_quiet_on_disk(ran: Joined) -> None:
    before = ran.site.stamps()
    subject = f"{ran.iam.person('mallory').id}@{ran.served.issuer}"
    again = ran.site.bridge("provision", "run")
    assert again.out == f"? mallory gets no account: suspended at the IAM ({subject})\nnothing to do, 1 refused\n"
    assert ran.site.stamps() == before


def test_somebody_leaves_and_comes_back_as_the_same_uid(ran: Joined) -> None:
    before = ran.site.rows("passwd")["grace"]
    ran.iam.remove_from_group("grace", "hpc/users")
    assert ran.site.bridge("provision", "run").status == 0
    assert ran.site.rows("shadow")["grace"][7] == "1"
    ran.iam.add_to_group("grace", "hpc/users")
    assert ran.site.bridge("provision", "run").status == 0
    assert ran.site.rows("shadow")["grace"][7] == ""
    assert ran.site.rows("passwd")["grace"] == before


def test_a_renamed_person_keeps_account_and_home(ran: Joined) -> None:
    before = ran.site.stamps()
    ran.iam.rename("grace", "hopper")
    assert ran.site.bridge("provision", "run").status == 0
    assert ran.site.stamps() == before
    assert ran.site.bridge("map", "show", "grace", "--json").json()["member"]["username"] == "hopper"


def test_suspension_locks_and_restoring_opens(ran: Joined) -> None:
    ran.iam.suspend("linus")
    assert "suspended" in ran.site.bridge("provision", "run").out
    assert ran.site.rows("shadow")["linus"][7] == "1"
    ran.iam.restore("linus")
    assert ran.site.bridge("provision", "run").status == 0
    assert ran.site.rows("shadow")["linus"][7] == ""


FAULTS = [
    ("an empty body", "empty-body", {}),
    ("an answer that is cut", "cut-body", {"path": "/scim/Users"}),
    ("a page that is short every time", "short-page", {}),
    ("a total that lies", "lying-total", {}),
    ("a person twice", "duplicate-id", {}),
    ("an error of the server", "server-error", {"path": "/scim/*"}),
    ("garbage", "garbage", {"path": "/scim/Groups"}),
    ("a redirect to somebody else", "redirect", {"path": "/scim/Users"}),
    ("a listing without people", "reply", {"path": "/scim/Users", "value": '{"totalResults":0,"itemsPerPage":100,"startIndex":1,"Resources":[]}'}),
    ("the issuer of somebody else", "wrong-issuer", {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_no_fault_of_the_iam_takes_anything_away(ran: Joined, kind: str, options: dict[str, object]) -> None:
    before = ran.site.stamps()
    ran.iam.remove_from_group("grace", "hpc/users")  # what a whole list would act upon
    ran.iam.fault(kind, **options)  # type: ignore[arg-type]
    done = ran.site.bridge("provision", "run")
    assert done.status == 75, done.all
    assert done.err
    assert ran.site.stamps() == before
    assert ran.site.bridge("provision", "plan").status == 75
    ran.iam.clear_faults()
    assert ran.site.bridge("provision", "run").status == 0
    assert ran.site.rows("shadow")["grace"][7] == "1"


def test_an_iam_that_is_down_is_75_and_names_it(open_folder: Path) -> None:
    secret = open_folder / "sync.secret"
    secret.write_text("sync-secret\n")
    secret.chmod(0o600)
    with running_iam(EmbeddedIam(demo_people()), open_folder) as served:
        site = Scratch(open_folder, issuer=served.issuer, source=iam_source(served.ca_file, secret))
    site.spawns = True
    done = site.bridge("provision", "run")
    assert done.status == 75
    assert "127.0.0.1" in done.err
    assert site.bridge("provision", "status", "--json").json()["sources"][0]["taken_at"] is None


def test_no_secret_is_said_by_any_command(ran: Joined) -> None:
    ran.iam.fault("server-error", path="/token")
    for arguments in (["provision", "run"], ["provision", "plan", "--json"], ["provision", "status"], ["map", "audit"]):
        assert "sync-secret" not in ran.site.bridge(*arguments, IAM_BRIDGE_TRACE="1").all


MARK = "hostile0text"
HOSTILE_TEXT = [f"{MARK}\nroot2::0:0::/:/bin/sh", f"{MARK}:0:0:", f"\x1b]0;{MARK}\x07"]
HOSTILE_KEYS = [
    f"ssh-ed25519 AAAA {MARK}\nssh-ed25519 BBBB of-somebody-else",
    f'cert-authority,command="{MARK}" ssh-rsa AAAA',
    f"{MARK}:ssh-rsa:AAAA\x00",
]


def test_display_names_addresses_and_keys_of_the_iam_reach_no_file_and_no_screen(joined: Joined) -> None:
    for number, text in enumerate(HOSTILE_TEXT):
        name = f"eve{number}"
        keys = tuple(SshKey(text, value) for value in HOSTILE_KEYS)
        joined.iam.add_person(name, groups=["hpc/users"], given_name=text, family_name=text, email=text, ssh_keys=keys)
        assert MARK in joined.iam.person(name).name
    site = joined.site
    told = [site.bridge("provision", words) for words in ("plan", "run")]
    assert [ran.status for ran in told] == [4, 0], told
    told += [
        site.bridge("map", *words) for words in (("list",), ("why", "eve0"), ("show", "eve0"), ("history", "eve0"))
    ]
    assert all(MARK not in ran.all for ran in told)
    for number in range(len(HOSTILE_TEXT)):
        row = site.rows("passwd")[f"eve{number}"]
        assert row[4] == f"iam-bridge-{row[2]}", "an opaque tag"
        assert list((site.folder / "home" / f"eve{number}").iterdir()) == [], "no key is laid there"
    assert not site.rows("passwd").keys() & {"root2", MARK}
    written = [path for name in ("etc", "state", "view", "home") for path in (site.folder / name).rglob("*")]
    assert [path for path in written if path.is_file() and MARK.encode() in path.read_bytes()] == []


SYSTEM_GROUPS = {"root": 0, "sudo": 27, "shadow": 42, "disk": 6, "docker": 998}


@pytest.mark.parametrize(
    ("sentence", "rule"),
    [("the table does not name it", None), ("the table names it", ""), ("the table wants it adopted", ", adopt: true")],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
@pytest.mark.parametrize("gid", ["as on every host", "among people's"])
def test_a_group_of_the_system_is_never_joined(joined: Joined, sentence: str, rule: str | None, gid: str) -> None:
    site = joined.site
    gids = {name: number if gid == "as on every host" else 5000 + number for name, number in SYSTEM_GROUPS.items()}
    rows = "".join(f"{name}:x:{number}:\n" for name, number in gids.items() if name != "root")
    site.write_etc(group=rows)
    for name in SYSTEM_GROUPS:
        joined.iam.create_group(name)
        joined.iam.add_to_group("ada", name)
    if rule is not None:
        table = "".join(f"      - {{iam: {name}, unix: {name}{rule}}}\n" for name in SYSTEM_GROUPS)
        site.settings.write_text(site.settings.read_text().replace("accounts:\n", table + "accounts:\n", 1))
    ran = site.bridge("provision", "run")
    assert "ada" in site.rows("passwd"), ran.all
    assert {name: site.rows("group")[name][3] for name in SYSTEM_GROUPS} == dict.fromkeys(SYSTEM_GROUPS, "")
    assert site.rows("group")["hpcusers"][3], "while others are"
    for name in SYSTEM_GROUPS:
        said = f"the unix group {name} belongs to the system and is never joined" in ran.err
        assert said == (rule is not None), ran.all
