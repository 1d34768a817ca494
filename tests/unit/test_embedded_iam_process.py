"""The embedded IAM as a process of its own: ready line, administrative door, ways to end."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import requests

from iam_bridge.demo.iam.remote import spawned_iam

COMMAND = [sys.executable, "-m", "iam_bridge.demo.iam"]


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    with spawned_iam(tmp_path_factory.mktemp("iam"), "--data", "demo") as running:
        yield running


def get(remote, path, token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.get(remote.base_url + path, headers=headers, verify=str(remote.ca_file), timeout=10)


def test_ready_line_leads_to_a_working_iam(remote):
    assert remote.people == 9
    assert get(remote, "/.well-known/openid-configuration").json()["issuer"] == remote.issuer


def test_people_change_from_outside(remote):
    assert remote.call("person", person="ada")["groups"] == ["hpc", "hpc/users", "hpc/gpu"]
    assert remote.call("suspend", person="ada")["active"] is False
    assert remote.call("restore", person="ada")["active"] is True
    assert remote.call("remove-from-group", person="ada", group="hpc/gpu")["groups"] == ["hpc", "hpc/users"]
    assert remote.call("add-to-group", person="ada", group="hpc/gpu")["groups"] == ["hpc", "hpc/users", "hpc/gpu"]
    assert remote.call("create-group", path="lab/team")["path"] == "lab/team"
    added = remote.call("add-person", username="zoe", groups=["lab"], attributes={"posix_username": "z"})
    assert remote.call("rename", person="zoe", username="zoe2")["id"] == added["id"]
    assert remote.call("remove", person="zoe2") is None


def test_tokens_minted_from_outside_work(remote):
    token = remote.call("mint", person="ada", audience=["a"], pad_to=4000)
    assert len(token) == 4000
    assert get(remote, "/userinfo", token).json()["preferred_username"] == "ada"
    scim = remote.call("mint-for-client", client_id="sync-client")
    assert get(remote, "/scim/Users", scim).json()["totalResults"] == 9
    assert remote.call("mint-id-token", person="ada").count(".") == 2
    remote.call("revoke", token=token)
    assert get(remote, "/userinfo", token).status_code == 401
    assert remote.call("rotate-keys", keep_old=False) == {"kid": "rsa2"}


def test_faults_and_counters_from_outside(remote):
    remote.call("reset-counters")
    assert remote.call("fault", kind="server-error", path="/stats", nth=1) == {"kind": "server-error", "path": "/stats"}
    assert [get(remote, "/stats").status_code for _ in range(2)] == [500, 200]
    assert remote.call("counters") == {"/stats": 2}
    remote.call("clear-faults")
    remote.call("switch", default_profile="wlcg")
    assert remote.call("mint", person="ada")
    remote.call("switch", default_profile="iam")


REFUSALS = {
    "an unknown command": ("explode", {}, "no command 'explode': there are mint"),
    "an unknown person": ("suspend", {"person": "nobody"}, "no person 'nobody' in this IAM"),
    "an argument that is not there": ("suspend", {"human": "ada"}, "suspend: .*unexpected keyword argument 'human'"),
    "an unknown fault": ("fault", {"kind": "gremlins"}, "not a valid FaultKind"),
    "an unknown switch": ("switch", {"issuer": "x"}, "no switch issuer"),
}


@pytest.mark.parametrize(("command", "arguments", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_commands_are_refused_with_a_sentence(remote, command, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        remote.call(command, **arguments)


@pytest.mark.parametrize(("body", "status"), [("[]", 400), ("{", 400), ('{"person":', 400)])
def test_broken_command_bodies_are_refused(remote, body, status):
    answer = requests.post(
        f"{remote.admin_url}suspend",
        data=body,
        headers={"Authorization": f"Bearer {remote.admin_token}"},
        verify=str(remote.ca_file),
        timeout=10,
    )
    assert answer.status_code == status


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer wrong", "Basic eA=="])
def test_the_admin_door_needs_its_token(remote, header):
    headers = {"Authorization": header} if header else {}
    answer = requests.post(
        f"{remote.admin_url}counters", json={}, headers=headers, verify=str(remote.ca_file), timeout=10
    )
    assert answer.status_code == 401


# ---- how it ends ---------------------------------------------------------------------------------


def start(folder, *options, stdin=subprocess.DEVNULL):
    return subprocess.Popen(
        [*COMMAND, "--people", "3", "--folder", str(folder), *options],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_a_signal_and_not_at_dev_null(tmp_path, number):
    with start(tmp_path) as process:
        ready = json.loads(process.stdout.readline())
        time.sleep(0.1)
        assert process.poll() is None
        assert ready["pid"] == process.pid
        os.kill(process.pid, number)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_it_ends_when_its_starter_closes_the_pipe(tmp_path):
    with start(tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdout.readline()
        process.stdin.write("words do not stop it\n")
        process.stdin.flush()
        time.sleep(0.1)
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(10) == 0


def test_it_ends_after_its_seconds(tmp_path):
    with start(tmp_path, "--seconds", "0.2") as process:
        assert json.loads(process.stdout.readline())["people"] == 3
        assert process.wait(10) == 0


def test_a_taken_port_is_one_sentence(remote, tmp_path):
    port = remote.base_url.rpartition(":")[2]
    with start(tmp_path, "--port", port) as process:
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (1, "")
    assert errors == f"embedded IAM: port {port}: Address already in use: name another --folder or --port\n"


@pytest.mark.parametrize("options", [("--people", "-1"), ("--port", "70000"), ("--data", "none"), ("--what",)])
def test_wrong_arguments_are_status_2(tmp_path, options):
    with start(tmp_path, *options) as process:
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (2, "")
    assert "Traceback" not in errors


def test_a_failed_start_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="ended with status 2"), spawned_iam(tmp_path, "--data", "none"):
        pass
