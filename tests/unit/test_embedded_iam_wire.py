"""The embedded IAM over real HTTPS: every endpoint as INDIGO IAM 1.12 gives it."""

import json
from datetime import UTC, datetime

import pytest
import requests
from joserfc import jws
from joserfc.jwk import KeySet

from iam_bridge.demo.iam import (
    Certificate,
    EmbeddedIam,
    Label,
    LinkedId,
    SshKey,
    demo_people,
    indigo_fixture,
    running_iam,
    synthetic_people,
)

TEST_ID = "80e5fb8d-b7c8-451a-89ba-346ae278a66f"
ANALYSIS_ID = "6a384bcd-d4b3-4b7f-a2fe-7d897ada0dd1"
INDIGO = "urn:indigo-dc:scim:schemas:IndigoUser"


class Client:
    """A client that trusts the throw-away CA and nothing else."""

    def __init__(self, served):
        self.served = served
        self.iam = served.iam
        self.session = requests.Session()
        self.session.trust_env = False  # REQUESTS_CA_BUNDLE would win over session.verify
        self.session.verify = str(served.ca_file)

    def get(self, path, token=None, **params):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.session.get(self.served.base_url + path, params=params, headers=headers, timeout=10)

    def post(self, path, data=None, auth=None):
        return self.session.post(self.served.base_url + path, data=data, auth=auth, timeout=10)

    def scim(self, path, **params):
        return self.get(path, self.iam.mint_for_client("sync-client"), **params)

    def introspect(self, token, auth=("login-client", "login-secret")):
        return self.post("/introspect", {"token": token}, auth)


@pytest.fixture(scope="module")
def fixture_client(tmp_path_factory):
    with running_iam(EmbeddedIam(indigo_fixture()), tmp_path_factory.mktemp("iam")) as served:
        yield Client(served)


@pytest.fixture
def client(fixture_client):
    """The 255 people of IAM's own fixtures; tests must not change them."""
    fixture_client.iam.version = "1.12"
    fixture_client.iam.reset_counters()
    return fixture_client


@pytest.fixture
def demo(tmp_path):
    with running_iam(EmbeddedIam(demo_people()), tmp_path) as served:
        yield Client(served)


# ---- TLS, discovery, keys ------------------------------------------------------------------------


def test_clients_verify_the_certificate_for_real(client):
    with requests.Session() as stranger:
        stranger.trust_env = False
        with pytest.raises(requests.exceptions.SSLError):
            stranger.get(client.served.base_url + "/jwk", timeout=10)


def test_localhost_is_an_issuer_too(tmp_path):
    iam = EmbeddedIam(demo_people())
    with running_iam(iam, tmp_path / "certificates", host="localhost", ca_file=tmp_path / "other.pem") as served:
        assert served.issuer == f"https://localhost:{served.port}/"
        assert served.ca_file == tmp_path / "other.pem"
        assert Client(served).get("/stats").json()["numberOfUsers"] == 9


def test_a_server_comes_back_on_its_port_to_clients_that_trust_it(tmp_path):
    iam = EmbeddedIam(demo_people())
    with running_iam(iam, tmp_path) as served:
        first = Client(served)
        assert first.get("/stats").ok
    with pytest.raises(requests.ConnectionError):
        first.get("/stats")
    with running_iam(iam, tmp_path, port=served.port):
        assert first.get("/stats").ok


def test_the_private_key_is_private(client):
    assert (client.served.ca_file.parent / "server.key").stat().st_mode & 0o777 == 0o600


def test_discovery(client):
    document = client.get("/.well-known/openid-configuration").json()
    base = client.served.base_url
    assert document["issuer"] == base + "/"
    assert document["jwks_uri"] == base + "/jwk"
    assert document["introspection_endpoint"] == base + "/introspect"
    assert document["scim_endpoint"] == base + "/scim"
    assert document["registration_endpoint"] == base + "/iam/api/client-registration"
    assert document["device_authorization_endpoint"] == base + "/devicecode"
    assert "none" in document["id_token_signing_alg_values_supported"]
    assert not any(scope.startswith(("scim:", "iam:")) for scope in document["scopes_supported"])


def test_tokens_verify_with_the_served_key_set_across_a_rotation(demo):
    token = demo.iam.mint("ada")
    answer = demo.get("/jwk")
    assert answer.headers["Cache-Control"] == "max-age=21600"
    jws.deserialize_compact(token, KeySet.import_key_set(answer.json()), algorithms=["RS256"])
    demo.iam.rotate_keys(keep_old=False)
    assert [key["kid"] for key in demo.get("/jwk").json()["keys"]] == ["rsa2", "ec1"]


def test_stats_needs_no_token(client):
    assert client.get("/stats").json() == {"numberOfUsers": 255, "activeUsers": 254}


def test_unknown_paths_and_methods(client):
    assert client.get("/iam/nowhere").status_code == 404
    assert client.get("/token").status_code == 405
    assert client.session.post(client.served.base_url + "/scim/Users", timeout=10).status_code == 405


# ---- /token --------------------------------------------------------------------------------------

GRANT = {"grant_type": "client_credentials", "scope": "scim:read"}
CREDENTIALS = {"client_id": "scim-client-ro", "client_secret": "secret"}


def claims_of(token):
    return json.loads(jws.extract_compact(token.encode()).payload)


@pytest.mark.parametrize("basic", [True, False], ids=["client_secret_basic", "client_secret_post"])
def test_client_credentials(client, basic):
    answer = (
        client.post("/token", GRANT, tuple(CREDENTIALS.values()))
        if basic
        else client.post("/token", {**GRANT, **CREDENTIALS})
    )
    body = answer.json()
    assert body.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 3599, "scim:read")
    assert answer.headers["Cache-Control"] == "no-store"
    assert claims_of(body["access_token"])["sub"] == "scim-client-ro"
    assert client.get("/scim/Users", body["access_token"], count=0).json()["totalResults"] == 255


@pytest.mark.parametrize("parameter", ["audience", "resource"])
def test_audience_can_be_asked_for(client, parameter):
    body = client.post("/token", {**GRANT, **CREDENTIALS, parameter: "https://a"}).json()
    assert claims_of(body["access_token"])["aud"] == ["https://a"]


def test_no_scope_asked_means_all_of_the_client(client):
    body = client.post("/token", {"grant_type": "client_credentials"}, ("scim-client-rw", "secret")).json()
    assert body["scope"] == "scim:read scim:write"


TOKEN_ERRORS = {
    "a wrong secret": ({**CREDENTIALS, **GRANT, "client_secret": "no"}, 401, "invalid_client"),
    "an empty secret": ({**CREDENTIALS, **GRANT, "client_secret": ""}, 401, "invalid_client"),
    "an unknown client": ({**CREDENTIALS, **GRANT, "client_id": "no"}, 401, "invalid_client"),
    "a public client": ({**GRANT, "client_id": "public-client"}, 401, "invalid_client"),
    "no grant type": (CREDENTIALS, 400, "invalid_request"),
    "another grant type": ({**CREDENTIALS, "grant_type": "magic"}, 400, "unsupported_grant_type"),
    "a scope that the client has not": ({**CREDENTIALS, **GRANT, "scope": "scim:write"}, 400, "invalid_scope"),
}


@pytest.mark.parametrize(("form", "status", "error"), TOKEN_ERRORS.values(), ids=TOKEN_ERRORS)
def test_token_errors(client, form, status, error):
    answer = client.post("/token", form)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


@pytest.mark.parametrize("header", ["Basic ???", "Basic bm9jb2xvbg==", "Basic /w=="])
def test_broken_basic_headers_are_bad_credentials(client, header):
    answer = client.session.post(
        client.served.base_url + "/token", data=GRANT, headers={"Authorization": header}, timeout=10
    )
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


# ---- /introspect ---------------------------------------------------------------------------------


def test_introspection_up_to_1_13(client):
    token = client.iam.mint("test", client_id="client", audience="a b", scopes=["openid", "profile", "email"])
    body = client.introspect(token).json()
    exp = claims_of(token)["exp"]
    assert body == {
        "active": True,
        "iss": client.served.issuer,
        "sub": TEST_ID,
        "user_id": "test",
        "client_id": "client",
        "scope": "openid profile email",
        "aud": "a b",
        "exp": exp,
        "expires_at": datetime.fromtimestamp(exp, UTC).strftime("%Y-%m-%dT%H:%M:%S+0000"),
        "token_type": "Bearer",
        "groups": ["Production", "Analysis"],
        "name": "Test User",
        "preferred_username": "test",
        "organisation_name": "iam-example",
        "email": "test@iam.test",
    }


def test_introspection_of_1_14(client):
    client.iam.version = "1.14"
    token = client.iam.mint("test", profile="wlcg", audience="a b", scopes=["openid"])
    body, claims = client.introspect(token).json(), claims_of(token)
    assert body == {
        "active": True,
        "scope": "openid",
        "username": "test",
        "client_id": "public-client",
        "token_type": "ACCESS_TOKEN",
        "aud": ["a", "b"],
        **{name: claims[name] for name in ("iss", "sub", "exp", "iat", "nbf", "jti")},
    }


GROUP_CLAIMS = {
    "iam": {"groups": ["Production", "Analysis"]},
    "wlcg": {"wlcg.groups": ["/Production", "/Analysis"]},
    "kc": {"roles": ["Production", "Analysis"]},
    "aarc": {
        name: ["urn:geant:iam.example:group:Production", "urn:geant:iam.example:group:Analysis"]
        for name in ("entitlements", "eduperson_entitlement")
    },
}


@pytest.mark.parametrize(("profile", "wanted"), GROUP_CLAIMS.items(), ids=GROUP_CLAIMS)
@pytest.mark.parametrize("where", ["introspection", "userinfo"])
def test_groups_follow_the_profile_of_the_client_that_obtained_the_token(client, profile, wanted, where):
    token = client.iam.mint("test", profile=profile)
    body = client.introspect(token).json() if where == "introspection" else client.get("/userinfo", token).json()
    every = {name for claims in GROUP_CLAIMS.values() for name in claims}
    assert {name: value for name, value in body.items() if name in every} == wanted


def test_scopes_are_cut_to_the_callers_and_groups_with_them(client):
    narrow = ("narrow-client", "narrow-secret")
    body = client.introspect(client.iam.mint("test"), narrow).json()
    assert body["scope"] == "openid"
    assert not {"groups", "name", "preferred_username"} & body.keys()
    assert "roles" in client.introspect(client.iam.mint("test", profile="kc"), narrow).json()


def test_a_client_token_names_no_user(client):
    body = client.introspect(client.iam.mint_for_client("sync-client")).json()
    assert (body["active"], body["sub"]) == (True, "sync-client")
    assert "user_id" not in body


def test_client_tokens_of_wlcg_clients_make_introspection_fall_over(client):
    assert client.introspect(client.iam.mint_for_client("wlcg-client", scopes=["openid"])).status_code == 500


@pytest.mark.parametrize("token", ["", "junk", "a.b.c"])
def test_unknown_tokens_are_inactive_and_nothing_else(client, token):
    answer = client.introspect(token)
    assert (answer.status_code, answer.json()) == (200, {"active": False})


def test_expired_foreign_and_revoked_tokens_are_inactive(client):
    revoked = client.iam.mint("test")
    client.iam.revoke(revoked)
    for token in (client.iam.mint("test", lifetime_s=-1), client.iam.mint("test", key="foreign-rsa"), revoked):
        assert client.introspect(token).json() == {"active": False}


def test_introspection_takes_basic_credentials_only(client):
    token = client.iam.mint("test")
    form = {"token": token, "client_id": "login-client", "client_secret": "login-secret"}
    assert client.post("/introspect", form).status_code == 401
    assert client.introspect(token, ("login-client", "wrong")).status_code == 401
    assert client.introspect(token, ("sync-client", "sync-secret")).status_code == 403


def test_a_suspended_persons_token_stays_active_and_a_deleted_ones_dies(demo):
    token = demo.iam.mint("ada")
    demo.iam.suspend("ada")
    assert demo.introspect(token).json()["active"] is True
    demo.iam.suspended_tokens_stay_active = False
    assert demo.introspect(token).json() == {"active": False}
    demo.iam.restore("ada")
    assert demo.introspect(token).json()["active"] is True
    demo.iam.remove("ada")
    assert demo.introspect(token).json() == {"active": False}


# ---- /userinfo -----------------------------------------------------------------------------------


def test_userinfo(client):
    body = client.get("/userinfo", client.iam.mint("test", scopes=["openid", "profile", "email"])).json()
    assert body["sub"] == TEST_ID
    assert (body["preferred_username"], body["email"]) == ("test", "test@iam.test")
    assert body["groups"] == ["Production", "Analysis"]


def test_userinfo_shows_attributes_and_keys_for_their_scopes(demo):
    demo.iam.change("ada", ssh_keys=(SshKey("k", "ssh-ed25519 AAAA"),), attributes=(("uid", "7"),))
    body = demo.get("/userinfo", demo.iam.mint("ada", scopes=["openid", "attr", "ssh-keys"])).json()
    assert body["attr"] == {"uid": "7"}
    assert body["ssh_keys"] == [{"value": "ssh-ed25519 AAAA"}]


def test_userinfo_is_for_people_with_scope_openid(client):
    assert client.get("/userinfo", client.iam.mint("test", scopes=["profile"])).status_code == 403
    assert client.get("/userinfo", client.iam.mint_for_client("client", scopes=["openid"])).status_code == 403
    assert client.get("/userinfo").status_code == 401


# ---- /scim ---------------------------------------------------------------------------------------


def test_one_user_has_exactly_iams_shape(client):
    answer = client.scim(f"/scim/Users/{TEST_ID}")
    base = client.served.base_url
    assert answer.headers["Content-Type"] == "application/scim+json;charset=UTF-8"
    body = answer.json()
    assert body == {
        "id": TEST_ID,
        "meta": {
            "created": "2026-01-21T10:30:00.000+01:00",
            "lastModified": "2026-01-21T10:30:00.000+01:00",
            "location": f"{base}/scim/Users/{TEST_ID}",
            "resourceType": "User",
        },
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User", INDIGO],
        "userName": "test",
        "name": {"givenName": "Test", "familyName": "User", "formatted": "Test User"},
        "displayName": "test",
        "active": True,
        "emails": [{"type": "work", "value": "test@iam.test", "primary": True}],
        "groups": [
            {"display": group.path, "value": group.id, "$ref": f"{base}/scim/Groups/{group.id}"}
            for group in (client.iam.group("Production"), client.iam.group("Analysis"))
        ],
        INDIGO: {"serviceAccount": False},
    }


def test_empty_fields_are_absent_and_false_is_not(client):
    body = client.scim(f"/scim/Users/{client.iam.person('no-group-2').id}").json()
    assert "groups" not in body
    assert body["active"] is False
    assert body[INDIGO] == {"serviceAccount": False}


def test_a_person_with_everything(demo):
    demo.iam.add_person(
        "full",
        ssh_keys=(SshKey("laptop", "ssh-ed25519 AAAA full", primary=True),),
        certificates=(Certificate("CN=Full", "CN=CA", pem="-----BEGIN"),),
        oidc_ids=(LinkedId("https://idp", "s"),),
        saml_ids=(LinkedId("idp", "u", "urn:oid:1"),),
        labels=(Label("unix", "x", prefix="site"), Label("hidden")),
        attributes=(("posix_username", "full"), ("hidden", "x")),
        end_time_ms=1_798_671_600_000,
        aup_signed_ms=0,
        id="full-id",
    )
    one = demo.scim("/scim/Users/full-id").json()[INDIGO]
    assert one["sshKeys"][0]["value"] == "ssh-ed25519 AAAA full"
    assert one["certificates"][0]["pemEncodedCertificate"] == "-----BEGIN"
    assert one["oidcIds"] == [{"issuer": "https://idp", "subject": "s"}]
    assert one["samlIds"] == [{"idpId": "idp", "userId": "u", "attributeId": "urn:oid:1"}]
    assert one["labels"] == [{"prefix": "site", "name": "unix", "value": "x"}]
    assert one["attributes"] == [{"name": "posix_username", "value": "full"}]
    assert one["endTime"] == "2026-12-31T00:00:00.000+01:00"
    assert one["aupSignatureTime"] == "1970-01-01T01:00:00.000+01:00"
    rows = demo.scim("/scim/Users").json()["Resources"]
    listed = next(row for row in rows if row["id"] == "full-id")
    assert "pemEncodedCertificate" not in listed[INDIGO]["certificates"][0]


def test_hostile_text_arrives_as_it_is(demo):
    name = "../../etc\n:root\ud800\u202e"
    demo.iam.add_person(name, id="hostile", given_name="a:b\n", groups=["hpc"])
    body = demo.scim("/scim/Users/hostile").json()
    assert body["userName"] == name
    assert body["name"]["givenName"] == "a:b\n"


PAGES = {
    "the first page by default": ({}, 100, 1, 100),
    "the last page is short": ({"startIndex": 201}, 55, 201, 55),
    "a page beyond the end is empty": ({"startIndex": 256}, 0, 256, 0),
    "count above the cap is cut": ({"count": 1000}, 100, 1, 100),
    "startIndex below 1 means 1": ({"startIndex": -3, "count": 2}, 2, 1, 2),
    "a small page": ({"startIndex": 10, "count": 3}, 3, 10, 3),
}


@pytest.mark.parametrize(("params", "rows", "start", "per_page"), PAGES.values(), ids=PAGES)
def test_pages(client, params, rows, start, per_page):
    body = client.scim("/scim/Users", **params).json()
    assert (body["totalResults"], len(body["Resources"])) == (255, rows)
    assert (body["startIndex"], body["itemsPerPage"]) == (start, per_page)
    assert body["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:ListResponse"]


@pytest.mark.parametrize("count", [0, -5])
def test_count_0_tells_the_total_and_nothing_of_pages(client, count):
    body = client.scim("/scim/Users", count=count).json()
    assert body["totalResults"] == 255
    assert body["Resources"] == []
    assert not {"itemsPerPage", "startIndex"} & body.keys()


def test_three_pages_hold_everybody_once_in_no_order(client):
    rows = [row for start in (1, 101, 201) for row in client.scim("/scim/Users", startIndex=start).json()["Resources"]]
    names = [row["userName"] for row in rows]
    assert len({row["id"] for row in rows}) == 255
    assert names != sorted(names)


def test_projection_keeps_id_and_schemas(client):
    row = client.scim("/scim/Users", attributes="userName,active", count=1).json()["Resources"][0]
    assert row.keys() == {"id", "schemas", "userName", "active"}
    row = client.scim("/scim/Users", attributes=f"name.familyName,{INDIGO}", count=1).json()["Resources"][0]
    assert row.keys() == {"id", "schemas", "name", INDIGO}


def test_groups_are_paged_and_have_iams_shape(demo):
    demo.iam.create_group("hpc/users/night", description="at night", labels=[Label("unix", "night")], id="g-1")
    body = demo.scim("/scim/Groups").json()
    assert (body["totalResults"], len(body["Resources"])) == (4, 4)
    base, parent = demo.served.base_url, demo.iam.group("hpc/users")
    row = next(row for row in body["Resources"] if row["id"] == "g-1")
    assert row["displayName"] == "hpc/users/night"
    assert row["meta"]["resourceType"] == "Group"
    assert row["urn:indigo-dc:scim:schemas:IndigoGroup"] == {
        "parentGroup": {"display": "hpc/users", "value": parent.id, "$ref": f"{base}/scim/Groups/{parent.id}"},
        "description": "at night",
        "labels": [{"name": "unix", "value": "night"}],
    }
    top = demo.iam.group("hpc")
    assert demo.scim(f"/scim/Groups/{top.id}").json()["urn:indigo-dc:scim:schemas:IndigoGroup"] == {}


def test_members_say_neither_user_name_nor_active(client):
    body = client.scim(f"/scim/Groups/{ANALYSIS_ID}/members", startIndex=201).json()
    assert (body["totalResults"], len(body["Resources"])) == (249, 49)
    assert all(row.keys() == {"display", "value", "$ref"} for row in body["Resources"])


def test_subgroups(demo):
    body = demo.scim(f"/scim/Groups/{demo.iam.group('hpc').id}/subgroups").json()
    assert [row["display"] for row in body["Resources"]] == ["hpc/gpu", "hpc/users"]


@pytest.mark.parametrize("path", ["/scim/Users/test", "/scim/Groups/Analysis", "/scim/Groups/x/members"])
def test_a_name_is_not_an_id(client, path):
    answer = client.scim(path)
    assert answer.status_code == 404
    assert answer.json()["status"] == "404"
    assert answer.json()["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]


def test_scim_refusals(client):
    no_token = client.get("/scim/Users")
    assert (no_token.status_code, no_token.json()["error"]) == (401, "unauthorized")
    bad = client.get("/scim/Users", "junk")
    assert (bad.status_code, bad.json()["error"]) == (401, "invalid_token")
    assert "junk" not in bad.text
    narrow = client.get("/scim/Users", client.iam.mint("test"))
    assert (narrow.status_code, narrow.json()["error"]) == (403, "access_denied")
    assert client.scim("/scim/Users", count="many").status_code == 400


def test_100_000_people_two_pages(tmp_path):
    with running_iam(EmbeddedIam(synthetic_people(100_000)), tmp_path) as served:
        client = Client(served)
        first = client.scim("/scim/Users").json()
        last = client.scim("/scim/Users", startIndex=99_951).json()
        assert first["totalResults"] == last["totalResults"] == 100_000
        assert (len(first["Resources"]), len(last["Resources"])) == (100, 50)
        assert len({row["id"] for row in first["Resources"] + last["Resources"]}) == 150
        assert client.get("/stats").json() == {"numberOfUsers": 100_000, "activeUsers": 100_000}


# ---- what was asked ------------------------------------------------------------------------------


def test_requests_are_counted_without_their_secrets(client):
    token = client.iam.mint_for_client("sync-client")
    connections = client.served.connections
    client.get("/scim/Users", token, count=1)
    client.get("/scim/Users", token, count=0)
    client.introspect(token)
    assert client.iam.count("/scim/Users") == 2
    assert client.iam.count("/scim/Users", "POST") == 0
    assert client.iam.count("/scim/*") == 2
    assert client.iam.count() == 3
    assert [request.query for request in client.iam.requests] == ["count=1", "count=0", ""]
    assert token not in repr(client.iam.requests)
    assert client.served.connections <= connections + 1
    client.iam.reset_counters()
    assert client.iam.count() == 0
    assert client.iam.requests == []


def test_nobody_called_means_no_connection(tmp_path):
    with running_iam(EmbeddedIam(demo_people()), tmp_path) as served:
        assert served.connections == 0
        Client(served).get("/stats")
        assert served.connections == 1
