"""The built module, a scratch stack and the stand-in daemon. Nothing here needs root."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.pam.libpam import Answer, Transaction
from tests.pam.stand_in import Behaviour, StandIn

ROOT = Path(__file__).parents[2]
OURS = pwd.getpwnam("nobody")
LOCAL = pwd.getpwnam("daemon")


@pytest.fixture(scope="session")
def module() -> Path:
    """The PAM module, freshly made."""
    subprocess.run(["make", "-s", "-C", ROOT / "pam_module"], check=True)
    return ROOT / "pam_module" / "build" / "pam_iam.so"


class Bench:
    """A scratch folder with a stack of our module, and whatever answers on its socket."""

    def __init__(self, folder: Path, module: Path, cleanup: ExitStack) -> None:
        self.module = module
        self.confdir = folder / "pam.d"
        self.confdir.mkdir()
        self.socket = folder / "login.sock"
        self._cleanup = cleanup
        self.write_stack()
        (self.confdir / "other").write_text("auth required pam_deny.so\naccount required pam_deny.so\n")

    def options(self, **changed: str | None) -> str:
        given: dict[str, str | None] = {
            "socket": str(self.socket),
            "daemon": str(os.getuid()),
            "uids": f"{OURS.pw_uid}-{OURS.pw_uid}",
            "timeout": "1",
        }
        return " ".join(f"{name}={value}" for name, value in (given | changed).items() if value is not None)

    def write_stack(self, options: str | None = None, *, extra: str = "", module: Path | None = None) -> None:
        """Write a stack of our module alone, in every phase; `extra` lines come after it."""
        line = f"required {module or self.module} {self.options() if options is None else options}"
        kinds = ("auth", "account", "session")
        (self.confdir / "iam").write_text("".join(f"{kind} {line}\n" for kind in kinds) + extra)

    def serve(self, behaviour: Behaviour) -> StandIn:
        return self._cleanup.enter_context(StandIn(self.socket, behaviour))

    def start(self, user: str = OURS.pw_name, answer: Answer | None = None, service: str = "iam") -> Transaction:
        return self._cleanup.enter_context(Transaction(self.confdir, service, user, answer))


@pytest.fixture
def bench(tmp_path: Path, module: Path) -> Iterator[Bench]:
    """A stack of our module and no daemon yet."""
    with ExitStack() as cleanup:
        yield Bench(tmp_path, module, cleanup)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compile a C file of this folder to a shared object, once."""
    made: dict[str, Path] = {}

    def build(name: str, *libraries: str) -> Path:
        if name not in made:
            target = tmp_path_factory.mktemp("compiled") / f"{name}.so"
            source = Path(__file__).with_name(f"{name}.c")
            flags = ["-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared"]
            subprocess.run(["cc", *flags, source, "-o", target, *libraries], check=True)
            made[name] = target
        return made[name]

    return build


GROUPS = f"""\
glass:x:900:{LOCAL.pw_name},root,{OURS.pw_name},no-such-user
spaced:x:901: {LOCAL.pw_name} ,x
short:x:{LOCAL.pw_name}
shorter:{LOCAL.pw_name}
empty:x:902:
glasses:x:903:sync
long:x:904:{",".join(f"user{i}" for i in range(20000))},{LOCAL.pw_name}
more:x:905:{LOCAL.pw_name}:x
commas:x:906:,,{LOCAL.pw_name},,
prefix:x:907:{LOCAL.pw_name}x,x{LOCAL.pw_name}
#{LOCAL.pw_name}:x:908:{LOCAL.pw_name}

:x:909:{LOCAL.pw_name}
last:x:910:{LOCAL.pw_name}"""


@pytest.fixture(scope="session")
def with_groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module built to read a group file of ours instead of /etc/group."""
    folder = tmp_path_factory.mktemp("groups")
    (folder / "group").write_text(GROUPS)
    source = ROOT / "pam_module"
    define = f"CPPFLAGS=-DGROUP_FILE='\"{folder / 'group'}\"'"
    subprocess.run(["make", "-s", "-C", source, f"BUILD={folder}", define], check=True)
    return folder / "pam_iam.so"
