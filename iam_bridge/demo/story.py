"""The main job, told in nine steps with the commands that people type; every step checks what it shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iam_bridge.demo.cluster import Cluster
from iam_bridge.demo.iam.datasets import DEMO_CAST
from iam_bridge.demo.iam.remote import RemoteIam
from iam_bridge.demo.scratch import AUDIENCE, LOCAL_PERSON
from iam_bridge.demo.screen import LINES_MAX, Screen

TOKEN_BYTES = 4000
SESSION_END_S = 5.0
WITHOUT_ROOT = (
    "Without root an sshd opens your own account and no other: one person logs in by ssh, and for the rest "
    "`login check` tells what the login daemon decides."
)
Ran = subprocess.CompletedProcess[str]


@dataclass
class Story:
    """The cast: the screen, the IAM and the login node."""

    screen: Screen
    iam: RemoteIam
    cluster: Cluster
    key: Path

    @property
    def rooted(self) -> bool:
        """Tell whether sshd may open accounts of other uids."""
        return self.cluster.site.rooted

    def tell(self) -> bool:
        """Tell the whole story; give True when everything was as it should be."""
        self.screen.say("From a group of an IAM to a login on a cluster; each ✓ is checked, not said.")
        if not self.rooted:
            self.screen.say(WITHOUT_ROOT)
        for step in (
            self.people,
            self.plan,
            self.run,
            self.login,
            self.refusals,
            self.leaver,
            self.return_,
            self.ban,
            self.why,
        ):
            step()
        return not self.screen.failed

    def bridge(self, *arguments: str, most: int = LINES_MAX, fold: bool = True) -> Ran:
        """Run an `iam-bridge` command and show it."""
        ran = self.cluster.bridge(*arguments)
        self.screen.command(f"iam-bridge {shlex.join(arguments)}", ran.stdout + ran.stderr, most=most, fold=fold)
        return ran

    def mint(self, person: str, **options: Any) -> str:
        """Get a token for a person, with the audience of the login node where nothing else is said."""
        options = {"profile": "wlcg", "audience": AUDIENCE, **options}
        return str(self.iam.call("mint", person=person, **options))

    def ssh(self, name: str, token: str, what: str) -> Ran:
        """Log in by token and show it: with real sshd where it can open the account, else by `login check`."""
        if self.rooted or name == LOCAL_PERSON:
            ran = self.cluster.ssh_by_token(name, token, "id")
            self.screen.command(f"ssh {name}@login.demo.example.org id    # {what}", ran.stdout + said(ran), most=4)
            return ran
        ran = self.cluster.bridge("login", "check", name, "--token-file", "-", stdin=token)
        line = f"iam-bridge login check {name} --token-file -    # {what}"
        self.screen.command(line, ran.stdout + ran.stderr, most=4)
        return ran

    def by_key(self, name: str, what: str) -> Ran:
        """Log in by SSH key and show it, or ask for the account phase that every key login passes."""
        if self.rooted:
            self.cluster.authorize(self.key, name)
            ran = self.cluster.ssh_by_key(name, self.key, "id", "-un")
            line = f"ssh -i key {name}@login.demo.example.org id -un    # {what}"
            self.screen.command(line, ran.stdout + said(ran), most=4)
            return ran
        ran = self.cluster.bridge("login", "check", name, "--phase", "account")
        self.screen.command(
            f"iam-bridge login check {name} --phase account    # {what}", ran.stdout + ran.stderr, most=4
        )
        return ran

    def name_of(self, person: str) -> str:
        """Give the account of a person of the cast: without root, ada is somebody who was here before us."""
        return LOCAL_PERSON if person == "ada" and not self.rooted else person

    def people(self) -> None:
        """Show who the IAM knows."""
        with self.screen.step("An IAM with people in groups"):
            rows = [
                (
                    username,
                    f"{given} {family}",
                    ", ".join(groups) or "-",
                    "suspended" if username == "mallory" else "active",
                )
                for username, given, family, _, groups in DEMO_CAST
            ]
            self.screen.table(("user name", "person", "groups", "state"), rows)
            self.screen.say("One is suspended, one calls herself root, two want the name kim, one name fits no unix.")
            if not self.rooted:
                self._adopt()

    def _adopt(self) -> None:
        person = self.iam.call("person", person="ada")
        row = f"name,issuer,sub,proof\n{LOCAL_PERSON},{self.iam.issuer},{person['id']},met in person\n"
        table = self.cluster.site.folder / "adopt.csv"
        table.write_text(row)
        ran = self.bridge("map", "adopt", "--from", str(table), fold=False)
        self.screen.check(ran.returncode == 0, f"{LOCAL_PERSON}, who was here before us, is ada of the IAM")

    def plan(self) -> None:
        """Show what would be done."""
        with self.screen.step("The plan, before anything is touched"):
            ran = self.bridge("provision", "plan", most=40)
            self.screen.check(ran.returncode == 4, "the exit status says that changes are pending")

    def run(self) -> None:
        """Do it, twice."""
        with self.screen.step("The run"):
            ran = self.bridge("provision", "run", most=6)  # the plan stood there just now
            self.screen.check(ran.returncode == 0, "done")
            again = self.bridge("provision", "run")
            self.screen.check(again.returncode == 0, "a second run right after has nothing to do")

    def login(self) -> None:
        """Log in with a token that OpenSSH's prompt would cut."""
        with self.screen.step(f"A login by the stock ssh client with a token of {TOKEN_BYTES} bytes"):
            name = self.name_of("ada")
            token = self.mint("ada", pad_to=TOKEN_BYTES)
            ran = self.ssh(name, token, f"{len(token)} bytes, in parts of 1000")
            # Without root the remote `id` is outside nss_wrapper: it knows the number and not the name.
            shown = f"({name})" if self.rooted else f"uid={os.geteuid()}"
            self.screen.check(ran.returncode == 0 and shown in ran.stdout, f"{name} is in")

    def refusals(self) -> None:
        """Show who does not get in."""
        with self.screen.step("Who does not get in"):
            ada, cases = self.name_of("ada"), []
            cases.append(
                (
                    ada,
                    self.mint("ada", audience="https://jobs.elsewhere.org"),
                    "made for another service",
                    "not for this site",
                )
            )
            cases.append((ada, self.mint("ada", lifetime_s=-60), "a minute too late", "expired"))
            cases.append(("grace", self.mint("ada"), "ada's token under grace's name", f"account {ada}"))
            cases.append(("root", self.mint("root"), "the member whom the IAM calls root", ""))
            for name, token, what, told in cases:
                ran = self.ssh(name, token, what)
                self.screen.check(ran.returncode != 0 and told in ran.stdout + ran.stderr, f"refused: {what}")

    def leaver(self) -> None:
        """Somebody leaves the group."""
        with self.screen.step("Grace leaves the group: the next run locks, for token and key alike"):
            if self.rooted:
                self.screen.check(self.by_key("grace", "while she is a member").returncode == 0, "her key works")
            self.iam.call("remove-from-group", person="grace", group="hpc/users")
            self.bridge("provision", "run")
            self.screen.check(
                self.ssh("grace", self.mint("grace"), "her token is alive").returncode != 0, "her token does not work"
            )
            self.screen.check(self.by_key("grace", "her key is where it was").returncode != 0, "her key does not work")

    def return_(self) -> None:
        """They come back."""
        with self.screen.step("Grace comes back: the same account"):
            before = self.uid_of("grace")
            self.iam.call("add-to-group", person="grace", group="hpc/users")
            self.bridge("provision", "run")
            ran = self.ssh("grace", self.mint("grace"), "after the next run")
            self.screen.check(ran.returncode == 0 and before in ran.stdout, f"the same uid as before: {before}")

    def uid_of(self, name: str) -> str:
        """Give an account's uid as the host says it."""
        found = re.search(r"^[^:]*:[^:]*:(\d+):", self.cluster.run(["getent", "passwd", name]).stdout)
        return found[1] if found else "?"

    def ban(self) -> None:
        """Somebody is banned."""
        with self.screen.step("Linus is banned: the open session ends, every door is closed"):
            session = self._open_session("linus") if self.rooted else None
            ran = self.bridge("ban", "add", "linus", "--reason", "key found on a public page")
            self.screen.check(ran.returncode == 0, "banned")
            if session is not None:
                self.screen.check(_ends(session), "the open session has ended")
            ran = self.ssh("linus", self.mint("linus"), "a fresh token")
            told = "key found on a public page" in ran.stdout + ran.stderr
            self.screen.check(ran.returncode != 0 and told, "the token is refused, and linus reads why")
            self.screen.check(self.by_key("linus", "a key").returncode != 0, "the key is refused")

    def _open_session(self, name: str) -> subprocess.Popen[bytes]:
        self.cluster.authorize(self.key, name)
        argv = ["ssh", *self.cluster.ssh_options(), "-i", str(self.key), "-o", "BatchMode=yes", f"{name}@127.0.0.1"]
        ready = self.cluster.site.folder / "session.log"
        session = self.cluster.start([*argv, "echo in; exec sleep 300"], ready)
        until = time.monotonic() + SESSION_END_S
        while b"in" not in ready.read_bytes() and time.monotonic() < until:
            time.sleep(0.02)
        self.screen.check(b"in" in ready.read_bytes(), f"{name} has a session open")
        return session

    def why(self) -> None:
        """The admin says why."""
        with self.screen.step("Why, and is all as it should be?"):
            ran = self.bridge("map", "why", self.name_of("ada"), fold=False)
            self.screen.check(ran.returncode == 0, "every account knows its IAM record, rule, run and receipts")
            audit = self.bridge("map", "audit", fold=False)
            self.screen.check(audit.returncode == 0, "ledger, host and IAM agree")


def said(ran: Ran) -> str:
    """Give what the person read, without the client's own lines about the connection."""
    return "\n".join(line for line in ran.stderr.splitlines() if line and "Warning: Permanently added" not in line)


def _ends(session: subprocess.Popen[bytes]) -> bool:
    try:
        session.wait(SESSION_END_S)
    except subprocess.TimeoutExpired:
        return False
    return True
