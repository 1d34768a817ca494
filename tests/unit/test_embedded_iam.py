"""The embedded IAM without a network: people and groups, data sets, tokens of the four profiles."""

import base64
import json
import re
from collections import Counter
from datetime import UTC, datetime

import pytest
from joserfc import jws
from joserfc.errors import BadSignatureError
from joserfc.jwk import KeySet

from iam_bridge.demo.iam import EmbeddedIam, Label, UnknownRecord, demo_people, indigo_fixture, synthetic_people

UNIX_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
NOW = 1_800_000_000


@pytest.fixture
def iam() -> EmbeddedIam:
    return EmbeddedIam(demo_people(), clock=lambda: NOW, seed=7)


def open_token(token):
    head, payload, _ = token.split(".")
    return json.loads(_b64(head)), json.loads(_b64(payload))


def _b64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verify(iam, token):
    keys = KeySet.import_key_set(iam.keys.jwks())
    return json.loads(jws.deserialize_compact(token, keys, algorithms=["RS256", "ES256"]).payload)


# ---- people and groups ---------------------------------------------------------------------------


def paths(iam, person):
    return [group.path for group in iam.groups_of(iam.person(person))]


def test_joining_a_subgroup_joins_its_parents(iam):
    iam.add_to_group("oscar", "hpc/gpu")
    assert sorted(paths(iam, "oscar")) == ["hpc", "hpc/gpu"]
    assert "oscar" in {person.username for person in iam.members("hpc")}


def test_leaving_a_group_leaves_everything_below_it(iam):
    iam.remove_from_group("ada", "hpc")
    assert paths(iam, "ada") == []
    assert "ada" not in {person.username for person in iam.members("hpc/gpu")}


def test_leaving_a_subgroup_keeps_the_parent(iam):
    iam.remove_from_group("ada", "hpc/gpu")
    assert sorted(paths(iam, "ada")) == ["hpc", "hpc/users"]


def test_a_new_group_brings_its_missing_parents(iam):
    made = iam.create_group("lab/team/night")
    assert iam.group(made.parent_id).path == "lab/team"
    assert [group.path for group in iam.subgroups("lab")] == ["lab/team"]


def test_membership_and_suspension_touch_the_person_and_membership_the_group():
    clock = [NOW]
    iam = EmbeddedIam(demo_people(), clock=lambda: clock[0])
    clock[0] += 60
    iam.add_to_group("oscar", "hpc")
    assert iam.person("oscar").modified_ms == iam.group("hpc").modified_ms == (NOW + 60) * 1000
    clock[0] += 60
    iam.suspend("oscar")
    assert iam.person("oscar").modified_ms == (NOW + 120) * 1000
    assert iam.group("hpc").modified_ms == (NOW + 60) * 1000


def test_suspending_and_restoring_moves_the_active_count_and_nothing_else(iam):
    before = iam.stats()
    groups = paths(iam, "grace")
    iam.suspend("grace")
    iam.suspend("grace")
    assert iam.stats() == (before[0], before[1] - 1)
    assert paths(iam, "grace") == groups
    iam.restore("grace")
    assert iam.stats() == before


def test_a_renamed_person_keeps_the_id_and_the_old_name_is_gone(iam):
    before = iam.person("ada").id
    iam.rename("ada", "countess")
    assert iam.person("countess").id == before
    with pytest.raises(UnknownRecord, match="no person 'ada' in this IAM"):
        iam.person("ada")


def test_a_removed_person_leaves_every_group_and_the_count(iam):
    number, active = iam.stats()
    iam.remove("ada")
    assert iam.stats() == (number - 1, active - 1)
    assert all(person.username != "ada" for person in iam.members("hpc/gpu"))
    assert iam.people_page(0, 100)[0] == number - 1


def test_a_removed_group_leaves_its_members_without_it(iam):
    iam.remove_group("hpc/gpu")
    assert sorted(paths(iam, "ada")) == ["hpc", "hpc/users"]
    with pytest.raises(ValueError, match="has subgroups"):
        iam.remove_group("hpc")


def test_one_name_for_two_people_must_be_told_apart_by_id(iam):
    twin = iam.add_person("ada", groups=["hpc"])
    with pytest.raises(UnknownRecord, match="2 people are called 'ada'"):
        iam.person("ada")
    assert iam.person(twin.id) == twin


@pytest.mark.parametrize("fields", [{"id": "x"}, {"active": False}, {"groups": ()}])
def test_change_refuses_fields_that_have_their_own_method(iam, fields):
    with pytest.raises(ValueError, match="use the method made for it"):
        iam.change("ada", **fields)


def test_an_unknown_group_adds_nobody(iam):
    before = iam.stats()
    with pytest.raises(UnknownRecord, match="no group 'nowhere'"):
        iam.add_person("zoe", groups=["nowhere"])
    assert iam.stats() == before


def test_ids_and_paths_are_unique(iam):
    with pytest.raises(ValueError, match="is in this IAM already"):
        iam.add_person("twin", id=iam.person("ada").id)
    with pytest.raises(ValueError, match="a group 'hpc' is in this IAM already"):
        iam.create_group("hpc")
    with pytest.raises(UnknownRecord, match="no client 'nobody'"):
        iam.client("nobody")


def test_rows_have_no_order_but_a_stable_one():
    iam = EmbeddedIam(synthetic_people(500))
    _, rows = iam.people_page(0, 500)
    names = [person.username for person in rows]
    assert names != sorted(names)
    assert names != [p.username for p in sorted(rows, key=lambda p: p.created_ms)]
    assert [p.username for p in iam.people_page(0, 500)[1]] == names
    iam.add_person("newcomer")
    iam.remove(names[250])
    after = [p.username for p in iam.people_page(0, 600)[1] if p.username != "newcomer"]
    assert after == [name for name in names if name != names[250]]


# ---- data sets -----------------------------------------------------------------------------------


def test_demo_cast_holds_every_case_of_the_story():
    iam = EmbeddedIam(demo_people())
    members = {person.username for person in iam.members("hpc/users")}
    assert members == {"ada", "grace", "linus", "mallory", "root", "kim", "kim.sun", "marie.curie@lab"}
    assert [person.username for person in iam.members("hpc/gpu")] == ["ada"]
    assert {person.username for person in iam.members("hpc/users") if not person.active} == {"mallory"}
    assert paths(iam, "oscar") == []
    first, second = iam.person("kim"), iam.person("kim.sun")
    assert dict(second.attributes)["posix_username"] == first.username
    assert first.created_ms < second.created_ms
    assert not UNIX_NAME.fullmatch("marie.curie@lab")


def test_fixture_mirrors_iams_own_test_data():
    iam = EmbeddedIam(indigo_fixture())
    assert iam.stats() == (255, 254)
    assert iam.groups_page(0, 1)[0] == 22
    assert iam.person("test").id == "80e5fb8d-b7c8-451a-89ba-346ae278a66f"
    assert iam.person("admin").id == "73f16d93-2441-4a50-88ff-85360d78c6b5"
    assert iam.group("Analysis").id == "6a384bcd-d4b3-4b7f-a2fe-7d897ada0dd1"
    assert {"test", "test_100", "test_347"} <= {person.username for person in iam.members("Production")}
    assert iam.client("scim-client-ro").secret == "secret"
    emails = Counter(person.email for person in iam.people_page(0, 255)[1])
    assert [email for email, number in emails.items() if number > 1] == ["same@iam.test"]


def test_synthetic_people_repeat_for_a_seed_and_fit_unix():
    first, again, other = synthetic_people(300, 4), synthetic_people(300, 4), synthetic_people(300, 5)
    assert first == again
    assert first.people[0].id != other.people[0].id
    assert len({person.id for person in first.people}) == 300
    assert all(UNIX_NAME.fullmatch(person.username) for person in first.people)
    iam = EmbeddedIam(first)
    assert len(iam.members("hpc/users")) == 300
    assert len(iam.members("hpc/gpu")) == 30


# ---- tokens --------------------------------------------------------------------------------------


def test_minimal_iam_token_says_neither_scope_nor_group_nor_name(iam):
    header, claims = open_token(iam.mint("ada"))
    assert header == {"kid": "rsa1", "alg": "RS256"}
    assert claims.keys() == {"sub", "iss", "exp", "iat", "jti", "client_id"}
    assert claims["sub"] == iam.person("ada").id
    assert (claims["iat"], claims["exp"]) == (NOW, NOW + 3600)


def test_iam_profile_shows_groups_only_with_authn_info_and_scope_profile(iam):
    iam.include_authn_info = True
    assert verify(iam, iam.mint("ada"))["groups"] == ["hpc", "hpc/users", "hpc/gpu"]
    assert verify(iam, iam.mint("ada"))["preferred_username"] == "ada"
    assert "groups" not in verify(iam, iam.mint("ada", scopes=["openid"]))


def test_wlcg_profile(iam):
    claims = verify(iam, iam.mint("ada", profile="wlcg"))
    assert claims["wlcg.groups"] == ["/hpc", "/hpc/users", "/hpc/gpu"]
    assert claims["wlcg.ver"] == "1.0"
    assert claims["scope"] == "openid profile wlcg.groups"
    assert claims["nbf"] == NOW
    assert claims["aud"] == ["https://wlcg.cern.ch/jwt/v1/any"]
    assert "wlcg.groups" not in verify(iam, iam.mint("ada", profile="wlcg", scopes=["openid"]))


def test_wlcg_groups_come_in_the_order_asked_and_optional_ones_only_so(iam):
    iam.create_group("pilots", labels=[Label("wlcg.optional-group")])
    iam.add_to_group("ada", "pilots")
    plain = verify(iam, iam.mint("ada", profile="wlcg"))
    assert "/pilots" not in plain["wlcg.groups"]
    asked = iam.mint("ada", profile="wlcg", scopes=["wlcg.groups:/pilots", "wlcg.groups:/hpc/gpu", "wlcg.groups:/x"])
    assert verify(iam, asked)["wlcg.groups"] == ["/pilots", "/hpc/gpu", "/hpc", "/hpc/users"]


def test_aarc_profile(iam):
    claims = verify(iam, iam.mint("grace", profile="aarc"))
    wanted = ["urn:geant:iam.example:group:hpc", "urn:geant:iam.example:group:hpc:users"]
    assert claims["entitlements"] == claims["eduperson_entitlement"] == wanted
    assert claims["voperson_id"] == claims["sub"]
    assert "entitlements" not in verify(iam, iam.mint("grace", profile="aarc", scopes=["openid"]))


def test_kc_profile_always_has_roles(iam):
    claims = verify(iam, iam.mint("grace", profile="kc", scopes=[]))
    assert claims["roles"] == ["hpc", "hpc/users"]
    assert claims["nbf"] == NOW
    assert "roles" not in verify(iam, iam.mint("oscar", profile="kc"))


def test_the_client_decides_the_profile_unless_the_caller_does(iam):
    assert "roles" in verify(iam, iam.mint("ada", client_id="kc-client"))
    iam.default_profile = "wlcg"
    assert "wlcg.ver" in verify(iam, iam.mint("ada"))
    with pytest.raises(ValueError, match="no JWT profile 'saml'"):
        iam.mint("ada", profile="saml")


def test_groups_given_replace_those_of_the_person(iam):
    assert verify(iam, iam.mint("ada", groups=["sudo"]))["groups"] == ["sudo"]
    assert verify(iam, iam.mint("ada", profile="wlcg", groups=["a/b"]))["wlcg.groups"] == ["/a/b"]


def test_scope_attr_carries_all_attributes(iam):
    claims = verify(iam, iam.mint("kim.sun", scopes=["openid", "attr"]))
    assert claims["attr"] == {"posix_username": "kim"}


@pytest.mark.parametrize(
    ("audience", "claim"),
    [("", None), ("https://a", ["https://a"]), ("a b", ["a", "b"]), (["a", "b"], ["a", "b"])],
)
def test_audience_is_an_array(iam, audience, claim):
    assert verify(iam, iam.mint("ada", audience=audience)).get("aud") == claim


def test_overrides_removals_and_headers(iam):
    token = iam.mint("ada", claims={"exp": 5, "x": [1]}, without=["jti"], headers={"typ": "at+jwt", "kid": None})
    header, claims = open_token(token)
    assert header == {"alg": "RS256", "typ": "at+jwt"}
    assert (claims["exp"], claims["x"]) == (5, [1])
    assert "jti" not in claims


def test_client_token_has_the_client_as_subject(iam):
    claims = verify(iam, iam.mint_for_client("sync-client"))
    assert claims["sub"] == claims["client_id"] == "sync-client"


def test_id_token_looks_like_one(iam):
    claims = verify(iam, iam.mint_id_token("ada", nonce="n-1"))
    assert (claims["aud"], claims["nonce"]) == ("public-client", "n-1")
    assert {"at_hash", "auth_time", "preferred_username", "groups"} <= claims.keys()


# ---- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "algorithm"), [("current", "RS256"), ("rsa1", "RS256"), ("ec1", "ES256")])
def test_published_keys_verify(iam, key, algorithm):
    token = iam.mint("ada", key=key)
    assert open_token(token)[0]["alg"] == algorithm
    assert verify(iam, token)["sub"] == iam.person("ada").id


@pytest.mark.parametrize(("key", "kid"), [("foreign-rsa", "rsa1"), ("foreign-ec", "ec1")])
def test_a_foreign_key_bears_a_known_kid_and_does_not_verify(iam, key, kid):
    token = iam.mint("ada", key=key)
    assert open_token(token)[0]["kid"] == kid
    with pytest.raises(BadSignatureError):
        verify(iam, token)
    assert iam.find_issued(token) is None


def test_attack_headers_are_written_as_asked(iam):
    none = iam.mint("ada", key="none")
    assert open_token(none)[0] == {"alg": "none"}
    assert none.endswith(".")
    confused = iam.mint("ada", key="hmac-public")
    assert open_token(confused)[0] == {"kid": "rsa1", "alg": "HS256"}
    assert len(confused.rpartition(".")[2]) == 43
    assert iam.find_issued(none) is None
    assert iam.find_issued(confused) is None
    with pytest.raises(ValueError, match="no signing key 'rsa9'"):
        iam.mint("ada", key="rsa9")


def test_rotation_keeps_or_drops_the_old_key(iam):
    old = iam.mint("ada")
    iam.rotate_keys()
    assert open_token(iam.mint("ada"))[0]["kid"] == "rsa2"
    assert verify(iam, old)["sub"] == iam.person("ada").id
    iam.rotate_keys(keep_old=False)
    assert [key["kid"] for key in iam.keys.jwks()["keys"]] == ["rsa3", "rsa1", "ec1"]
    assert open_token(iam.mint("ada", key="rsa2"))[0]["kid"] == "rsa2"


def test_key_sets_hold_public_halves_only(iam):
    for key in iam.keys.jwks()["keys"]:
        assert not {"d", "p", "q", "dp", "dq", "qi"} & key.keys()


def test_another_key_pool_has_other_keys(iam):
    stranger = EmbeddedIam(demo_people(), key_pool="other")
    with pytest.raises(BadSignatureError):
        verify(iam, stranger.mint("ada"))


# ---- lengths -------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["iam", "wlcg", "aarc", "kc"])
@pytest.mark.parametrize("key", ["current", "ec1", "none", "hmac-public"])
@pytest.mark.parametrize("length", [2000, 4000, 4001, 4002, 4003, 16384])
def test_padded_tokens_have_the_exact_length(iam, profile, key, length):
    assert len(iam.mint("ada", profile=profile, key=key, pad_to=length)) == length


def test_padded_token_verifies_keeps_its_groups_and_grows_by_more_of_them(iam):
    claims = verify(iam, iam.mint("ada", profile="wlcg", audience="a", pad_to=16384))
    assert claims["wlcg.groups"][:3] == ["/hpc", "/hpc/users", "/hpc/gpu"]
    assert len(claims["wlcg.groups"]) > 100
    assert len(claims["filler"]) < 200
    bare = verify(iam, iam.mint("ada", pad_to=4000))
    assert "groups" not in bare
    assert len(bare["attr"]) > 10


def test_padding_too_small_for_attributes_is_filler_alone(iam):
    length = len(iam.mint("ada")) + 60
    claims = verify(iam, iam.mint("ada", pad_to=length))
    assert "attr" not in claims
    assert claims["filler"]


def test_an_impossible_length_is_refused(iam):
    with pytest.raises(ValueError, match="bytes too small"):
        iam.mint("ada", pad_to=300)


# ---- what introspection will know ----------------------------------------------------------------


def test_a_token_dies_with_its_time_its_person_or_its_revocation():
    clock = [NOW]
    iam = EmbeddedIam(demo_people(), clock=lambda: clock[0])
    short, ada, revoked = iam.mint("ada", lifetime_s=10), iam.mint("ada"), iam.mint("ada")
    iam.revoke(revoked)
    assert iam.find_issued(revoked) is None
    clock[0] += 10
    assert iam.find_issued(short) is None
    assert iam.find_issued(ada)
    iam.remove("ada")
    assert iam.find_issued(ada) is None


def test_a_suspended_persons_token_lives_on(iam):
    token = iam.mint("ada")
    iam.suspend("ada")
    assert iam.find_issued(token)


def test_dates_of_the_cast_are_in_the_past():
    assert all(
        person.created_ms < datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000 for person in demo_people().people
    )
