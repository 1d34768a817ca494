"""Each fault of the embedded IAM shows on the wire, and only where and when it was asked for."""

import json
import threading
import time
from pathlib import Path

import pytest
import requests
from joserfc import jws

from iam_bridge.demo.iam import EmbeddedIam, FaultKind, running_iam, synthetic_people

PEOPLE = 250


class Client:
    """A client that verifies TLS, follows no redirect and gives up after a second."""

    def __init__(self, served):
        self.served = served
        self.iam = served.iam
        self.token = self.iam.mint_for_client("sync-client")
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(served.ca_file)

    def get(self, path, *, timeout=1.0, **params):
        return self.session.get(
            self.served.base_url + path,
            params=params,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=timeout,
            allow_redirects=False,
        )

    def page(self, start=1):
        return self.get("/scim/Users", startIndex=start).json()

    def pull(self):
        return [row["id"] for start in (1, 101, 201) for row in self.page(start)["Resources"]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with running_iam(EmbeddedIam(synthetic_people(PEOPLE)), tmp_path_factory.mktemp("iam")) as served:
        yield Client(served)


@pytest.fixture
def client(shared):
    shared.iam.clear_faults()
    shared.iam.reset_counters()
    shared.token = shared.iam.mint_for_client("sync-client")
    yield shared
    shared.iam.clear_faults()


# ---- what pages can do ---------------------------------------------------------------------------


def test_page_drift_loses_some_and_doubles_some_under_an_unchanged_total(client):
    whole = client.pull()
    assert len(set(whole)) == PEOPLE
    client.iam.fault("page-drift")
    drifted = client.pull()
    assert len(drifted) == PEOPLE
    assert len(set(drifted)) == PEOPLE - 2
    assert set(drifted) < set(whole)
    client.iam.clear_faults("page-drift")
    assert client.pull() == whole


def test_page_drift_ends_after_its_last_request(client):
    client.iam.fault("page-drift", last=3)
    assert len(set(client.pull())) < PEOPLE
    assert len(set(client.pull())) == PEOPLE


def test_duplicate_id_stands_in_for_another_person(client):
    client.iam.fault("duplicate-id", nth=2)
    ids = client.pull()
    assert (len(ids), len(set(ids))) == (PEOPLE, PEOPLE - 1)


def test_short_page_holds_fewer_rows_than_it_says(client):
    client.iam.fault("short-page", value=7)
    body = client.page()
    assert (body["totalResults"], body["itemsPerPage"], len(body["Resources"])) == (PEOPLE, 100, 93)


def test_lying_total(client):
    client.iam.fault("lying-total", value=-50, nth=1)
    assert client.page()["totalResults"] == PEOPLE - 50
    assert client.page(201)["totalResults"] == PEOPLE


def test_token_dies_after_so_many_requests_and_a_new_one_works(client):
    client.iam.fault("token-dies", value=2)
    statuses = [client.get("/scim/Users", count=1).status_code for _ in range(4)]
    assert statuses == [200, 200, 401, 401]
    assert client.get("/scim/Groups").json()["error"] == "invalid_token"
    client.token = client.iam.mint_for_client("sync-client")
    assert client.get("/scim/Groups").status_code == 200


# ---- issuer, keys, audience ----------------------------------------------------------------------


def claims_of(token):
    return json.loads(jws.extract_compact(token.encode()).payload)


def test_slashless_issuer_is_in_tokens_while_discovery_keeps_its_slash(client):
    client.iam.fault("slashless-issuer")
    assert claims_of(client.iam.mint("user000001"))["iss"] == client.served.base_url
    assert client.get("/.well-known/openid-configuration").json()["issuer"] == client.served.base_url + "/"
    client.iam.clear_faults()
    assert claims_of(client.iam.mint("user000001"))["iss"] == client.served.base_url + "/"


def test_string_audience_in_tokens_and_introspection(client):
    client.iam.fault("string-audience")
    assert claims_of(client.iam.mint("user000001", audience=["a"]))["aud"] == "a"
    token = client.iam.mint("user000001", audience=["a", "b"])
    assert claims_of(token)["aud"] == "a b"
    client.iam.version = "1.14"
    answer = client.session.post(
        client.served.base_url + "/introspect", {"token": token}, auth=("login-client", "login-secret"), timeout=5
    )
    client.iam.version = "1.12"
    assert answer.json()["aud"] == "a b"


def test_wrong_issuer_in_discovery(client):
    client.iam.fault("wrong-issuer")
    document = client.get("/.well-known/openid-configuration").json()
    assert document["issuer"] == "https://other-iam.example.org/"
    assert document["jwks_uri"] == client.served.base_url + "/jwk"


def test_empty_key_set(client):
    client.iam.fault("empty-keys", nth=2)
    assert [len(client.get("/jwk").json()["keys"]) for _ in range(3)] == [2, 0, 2]


# ---- what servers and proxies do -----------------------------------------------------------------


def test_empty_body_with_status_200(client):
    client.iam.fault("empty-body", path="/scim/Users")
    answer = client.get("/scim/Users")
    assert (answer.status_code, answer.content) == (200, b"")


def test_cut_body_ends_the_connection_in_mid_answer(client):
    client.iam.fault("cut-body", path="/scim/Users")
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)) as cut:
        client.get("/scim/Users")
    assert "IncompleteRead" in str(cut.value)
    client.iam.clear_faults()
    assert client.get("/scim/Users").ok


@pytest.mark.parametrize("status", [500, 502, 503])
def test_server_error(client, status):
    client.iam.fault("server-error", value=status)
    assert client.get("/jwk").status_code == status


def test_garbage_is_no_json(client):
    client.iam.fault("garbage")
    answer = client.get("/scim/Users")
    assert answer.status_code == 200
    with pytest.raises(ValueError, match=r".+"):
        answer.json()


def test_redirect_points_to_another_host(client):
    client.iam.fault("redirect", path="/jwk")
    answer = client.get("/jwk")
    assert (answer.status_code, answer.headers["Location"]) == (302, "https://127.0.0.2:9/elsewhere")


def test_rate_limit_says_when_to_come_back(client):
    client.iam.fault("rate-limit", nth=1, value=3)
    answer = client.get("/scim/Users")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
    assert client.get("/scim/Users").status_code == 200


def test_wrong_content_type_over_the_right_body(client):
    client.iam.fault("wrong-content-type", path="/jwk")
    answer = client.get("/jwk")
    assert answer.headers["Content-Type"] == "text/html;charset=UTF-8"
    assert len(answer.json()["keys"]) == 2


def test_deep_json_is_nested_as_deep_as_asked(client):
    client.iam.fault("deep-json", value=5)
    assert client.get("/jwk").json()["Resources"] == [[[[[]]]]]
    client.iam.clear_faults()
    client.iam.fault("deep-json")
    with pytest.raises(RecursionError):
        client.get("/jwk").json()


def test_huge_body_has_no_length_and_really_comes(client):
    client.iam.fault("huge-body", value=3_000_000)
    answer = client.get("/jwk", timeout=10)
    assert "Content-Length" not in answer.headers
    assert len(answer.json()["filler"]) >= 3_000_000


def test_huge_body_stops_when_the_client_leaves(client):
    client.iam.fault("huge-body", value=20_000_000_000, path="/jwk")
    with client.session.get(client.served.base_url + "/jwk", stream=True, timeout=5) as answer:
        assert len(answer.raw.read(100_000)) == 100_000
    assert client.get("/stats", timeout=5).ok


def test_a_reply_of_ones_own(client):
    client.iam.fault("reply", path="/scim/Users", value='{"totalResults":"many"}')
    assert client.page() == {"totalResults": "many"}


def test_slow(client):
    client.iam.fault("slow", path="/stats", value=0.3)
    begin = time.monotonic()
    assert client.get("/stats").ok
    assert time.monotonic() - begin >= 0.3
    with pytest.raises(requests.ReadTimeout):
        client.get("/stats", timeout=0.05)


def test_hanging_requests_block_no_others(client):
    client.iam.fault("hang", path="/jwk")
    with pytest.raises(requests.ReadTimeout):
        client.get("/jwk", timeout=0.2)
    assert client.get("/stats").ok


def test_hanging_and_idle_clients_do_not_hold_up_the_stop(tmp_path):
    iam = EmbeddedIam(synthetic_people(1))
    ended = []
    with running_iam(iam, tmp_path) as served:
        client = Client(served)
        client.get("/stats")  # stays connected, idle
        iam.fault("hang", path="/jwk")

        def hang():
            with pytest.raises(requests.ConnectionError):
                requests.get(served.base_url + "/jwk", verify=str(served.ca_file), timeout=30)
            ended.append(True)

        waiting = threading.Thread(target=hang)
        waiting.start()
        while not iam.count("/jwk"):
            time.sleep(0.01)
        begin = time.monotonic()
    assert time.monotonic() - begin < 3
    waiting.join(5)
    assert ended == [True]


# ---- where and when ------------------------------------------------------------------------------


def test_a_fault_for_every_path_spares_the_admin_door(client):
    client.iam.fault("server-error")
    answer = client.session.post(
        client.served.base_url + "/-/clear-faults",
        headers={"Authorization": f"Bearer {client.served.admin_token}"},
        timeout=5,
    )
    assert answer.ok
    assert client.get("/stats").ok


def test_first_and_last_bound_a_fault(client):
    client.iam.fault("server-error", path="/stats", first=2, last=3)
    assert [client.get("/stats").status_code for _ in range(4)] == [200, 500, 500, 200]


def test_a_prefix_covers_the_paths_below(client):
    client.iam.fault("server-error", path="/scim/*")
    assert client.get("/scim/Groups").status_code == 500
    assert client.get("/stats").status_code == 200


def test_faults_combine(client):
    client.iam.fault("short-page")
    client.iam.fault("wrong-content-type", path="/scim/Users")
    answer = client.get("/scim/Users")
    assert len(answer.json()["Resources"]) == 99
    assert answer.headers["Content-Type"].startswith("text/html")


def test_an_unknown_fault_is_refused(client):
    with pytest.raises(ValueError, match="not a valid FaultKind"):
        client.iam.fault("gremlins")


def test_every_fault_kind_is_shown_here_and_told_in_the_reference():
    here = Path(__file__)
    source = here.read_text(encoding="utf-8")
    reference = (here.parents[2] / "docs/reference/embedded-iam.md").read_text(encoding="utf-8")
    assert [kind for kind in FaultKind if f'fault("{kind}"' not in source] == []
    assert [kind for kind in FaultKind if f"| `{kind}` |" not in reference] == []


def test_a_failure_of_its_own_is_500_and_logged(client, monkeypatch, caplog):
    monkeypatch.setattr(client.iam, "stats", lambda: 1 / 0)
    assert client.get("/stats").status_code == 500
    assert "the embedded IAM failed at /stats" in caplog.text
    assert "ZeroDivisionError" in caplog.text
