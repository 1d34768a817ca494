"""Tokens that nobody may accept, each under the sentence that says what is wrong and the reasons that may be given.

Every token is made when it is asked for, from throw-away keys, by raw signatures over exact bytes: no library of ours
or of others decides what can be written. The same table goes through the verifier, `login check` and the PAM module.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from iam_bridge.errors import Reason

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Absence(Enum):
    """What stands in a case for a claim that is left out; a name of its own keeps test ids the same in every process."""

    GONE = "gone"


GONE = Absence.GONE
FLIP_STEP = 97


@cache
def throw_away_rsa(name: str) -> rsa.RSAPrivateKey:
    """Make the RSA key of this name once per process."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def throw_away_ec(name: str) -> ec.EllipticCurvePrivateKey:
    """Make the P-256 key of this name once per process."""
    return ec.generate_private_key(ec.SECP256R1())


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def public_jwk(key: PrivateKey, kid: str | None, **more: Any) -> dict[str, Any]:
    """Write the public half of a key as a JWK."""
    numbers = key.public_key().public_numbers()
    if isinstance(numbers, rsa.RSAPublicNumbers):
        size = (numbers.n.bit_length() + 7) // 8
        made = {"kty": "RSA", "n": b64url(numbers.n.to_bytes(size, "big")), "e": b64url(numbers.e.to_bytes(3, "big"))}
    else:
        size = (numbers.curve.key_size + 7) // 8
        x, y = (b64url(value.to_bytes(size, "big")) for value in (numbers.x, numbers.y))
        made = {"kty": "EC", "crv": f"P-{numbers.curve.key_size}", "x": x, "y": y}
    return made | ({"kid": kid} if kid is not None else {}) | more


@dataclass(frozen=True)
class TokenMaker:
    """Makes tokens that a trusted issuer could have made, and everything near them.

    `now` is in seconds; the verifier is expected to look at the same second, give or take five. `stranger` is an
    issuer that is not trusted, and whose host should listen and be asked nothing.
    """

    issuer: str
    audience: str
    now: int
    sub: str = "80e5fb8d-b7c8-451a-89ba-346ae278a66f"
    stranger: str = "https://stranger.example.org/"
    rsa_key: rsa.RSAPrivateKey = field(default_factory=lambda: throw_away_rsa("trusted"), repr=False)
    rsa_kid: str = "rsa1"
    ec_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: throw_away_ec("trusted"), repr=False)
    ec_kid: str = "ec1"

    def jwks(self) -> dict[str, Any]:
        """Give the key set that the issuer publishes."""
        return {"keys": [public_jwk(self.rsa_key, self.rsa_kid), public_jwk(self.ec_key, self.ec_kid)]}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Give the claims of a good token, changed; GONE removes one."""
        claims = {
            "iss": self.issuer, "sub": self.sub, "aud": [self.audience], "exp": self.now + 600, "iat": self.now - 10,
            "nbf": self.now - 10, "jti": "6a384bcd", "client_id": "public-client", "scope": "openid profile",
        } | changes  # fmt: skip
        return {name: value for name, value in claims.items() if value is not GONE}

    def header(self, **changes: Any) -> dict[str, Any]:
        """Give the header of a good token, changed; GONE removes a name."""
        header = {"alg": "RS256", "kid": self.rsa_kid, "typ": "JWT"} | changes
        return {name: value for name, value in header.items() if value is not GONE}

    def token(
        self,
        claims: Mapping[str, Any] | bytes | None = None,
        header: Mapping[str, Any] | bytes | None = None,
        key: PrivateKey | None = None,
    ) -> str:
        """Sign; bytes in place of claims or a header are signed as they are."""
        first = b64url(as_bytes(self.header() if header is None else header))
        second = b64url(as_bytes(self.claims() if claims is None else claims))
        return f"{first}.{second}.{b64url(sign(f'{first}.{second}'.encode(), key or self.rsa_key))}"

    def ec_token(self, claims: Mapping[str, Any] | None = None, **header: Any) -> str:
        """Sign with the elliptic key."""
        return self.token(claims, self.header(alg="ES256", kid=self.ec_kid, **header), self.ec_key)


def as_bytes(value: Mapping[str, Any] | bytes) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def sign(data: bytes, key: PrivateKey) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


Build = Callable[[TokenMaker], str]


@dataclass(frozen=True)
class BadToken:
    """A token that must be refused, for one of `reasons`."""

    sentence: str
    reasons: frozenset[Reason]
    build: Build


def _case(sentence: str, reason: Reason, build: Build) -> BadToken:
    return BadToken(sentence, frozenset({reason}), build)


def _claims(sentence: str, reason: Reason, **changes: Any) -> BadToken:
    """Make a case of a well-signed token with other claims; a callable value is given the maker."""

    def build(maker: TokenMaker) -> str:
        return maker.token(
            maker.claims(**{name: value(maker) if callable(value) else value for name, value in changes.items()})
        )

    return _case(sentence, reason, build)


def _header(sentence: str, reason: Reason, **changes: Any) -> BadToken:
    return _case(sentence, reason, lambda maker: maker.token(header=maker.header(**changes)))


def _issuer(sentence: str, change: Callable[[str], Any]) -> BadToken:
    return _claims(sentence, Reason.UNTRUSTED_ISSUER, iss=lambda maker: change(maker.issuer))


# ---- signature ---------------------------------------------------------------------------------------------------


def _unsigned(maker: TokenMaker, alg: str = "none") -> str:
    return f"{b64url(as_bytes(maker.header(alg=alg)))}.{b64url(as_bytes(maker.claims()))}."


def _hmac_with_public_key(maker: TokenMaker) -> str:
    public = maker.rsa_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signed = f"{b64url(as_bytes(maker.header(alg='HS256')))}.{b64url(as_bytes(maker.claims()))}"
    return f"{signed}.{b64url(hmac.new(public, signed.encode(), hashlib.sha256).digest())}"


def _ec_name_on_rsa_key(maker: TokenMaker) -> str:
    return maker.token(header=maker.header(alg="ES256"), key=maker.ec_key)


def _psychic(maker: TokenMaker) -> str:
    signed = maker.ec_token().rpartition(".")[0]
    return f"{signed}.{b64url(bytes(64))}"


def _der_signature(maker: TokenMaker) -> str:
    signed = maker.ec_token().rpartition(".")[0]
    return f"{signed}.{b64url(maker.ec_key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))}"


def _other_spelling(maker: TokenMaker) -> str:
    """Write the signature's last byte with a bit set that no byte uses: other text, same bytes."""
    text = maker.token()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) | 1]


def _other_payload(maker: TokenMaker) -> str:
    first, _, signature = maker.token().split(".")
    return f"{first}.{b64url(as_bytes(maker.claims(sub='73f16d93-2441-4a50-88ff-85360d78c6b5')))}.{signature}"


SIGNATURE = (
    _case("alg none and no signature", Reason.ALGORITHM, _unsigned),
    _case("alg nOnE and no signature", Reason.ALGORITHM, lambda maker: _unsigned(maker, "nOnE")),
    _header("alg none with a signature that holds", Reason.ALGORITHM, alg="none"),
    _case("HS256 keyed with the public key", Reason.ALGORITHM, _hmac_with_public_key),
    _header("no alg", Reason.ALGORITHM, alg=GONE),
    _header("alg is a list", Reason.ALGORITHM, alg=["RS256"]),
    _header("an algorithm that is sound and that the site did not allow", Reason.ALGORITHM, alg="RS512"),
    _case("ES256 in the header over an RSA signature", Reason.ALGORITHM,
          lambda maker: maker.token(header=maker.header(alg="ES256"))),
    _case("ES256 in the header, the kid of an RSA key", Reason.ALGORITHM, _ec_name_on_rsa_key),
    _case("RS256 in the header, the kid of an EC key", Reason.ALGORITHM,
          lambda maker: maker.token(header=maker.header(kid=maker.ec_kid))),
    _header("an unknown kid", Reason.UNKNOWN_KEY, kid="rsa-of-nobody"),
    _header("no kid where the issuer has two keys", Reason.UNKNOWN_KEY, kid=GONE),
    _header("a kid that is a number", Reason.BAD_HEADER, kid=1),
    _header("a kid that is empty", Reason.BAD_HEADER, kid=""),
    _header("a kid of 300 characters", Reason.BAD_HEADER, kid="k" * 300),
    _header("a kid that is a path", Reason.UNKNOWN_KEY, kid="../../../../dev/null"),
    _case("a foreign RSA key under a known kid", Reason.BAD_SIGNATURE,
          lambda maker: maker.token(key=throw_away_rsa("foreign"))),
    _case("a foreign EC key under a known kid", Reason.BAD_SIGNATURE,
          lambda maker: maker.token(header=maker.header(alg="ES256", kid=maker.ec_kid), key=throw_away_ec("foreign"))),
    _case("an EC signature of zeroes", Reason.BAD_SIGNATURE, _psychic),
    _case("an EC signature in DER", Reason.BAD_SIGNATURE, _der_signature),
    _case("the payload of another person under this signature", Reason.BAD_SIGNATURE, _other_payload),
    _case("another spelling of the same signature", Reason.BAD_SIGNATURE, _other_spelling),
    _case("no signature under RS256", Reason.TRUNCATED, lambda maker: _unsigned(maker, "RS256")),
    _case("a signature that is too long", Reason.BAD_SIGNATURE, lambda maker: maker.token() + "AAAA"),
)  # fmt: skip

# ---- cut and flipped ---------------------------------------------------------------------------------------------

FLIP_REASONS = frozenset({
    Reason.NOT_A_TOKEN, Reason.TRUNCATED, Reason.BAD_HEADER, Reason.ALGORITHM, Reason.UNKNOWN_KEY,
    Reason.BAD_SIGNATURE, Reason.BAD_CLAIMS, Reason.UNTRUSTED_ISSUER,
})  # fmt: skip


def _cut(length: int) -> BadToken:
    def build(maker: TokenMaker) -> str:
        # Long enough for every cut, as a token with groups is.
        return maker.token(maker.claims(groups=[f"projects/number-{n:03d}" for n in range(70)]))[:length]

    return _case(f"cut after {length} characters", Reason.TRUNCATED, build)


def _flip(bit: int) -> BadToken:
    def build(maker: TokenMaker) -> str:
        raw = bytearray(maker.token().encode())
        place = bit % (len(raw) * 8)
        raw[place // 8] ^= 1 << place % 8
        return raw.decode("utf-8", "surrogateescape")

    return BadToken(f"bit {bit} flipped", FLIP_REASONS, build)


CUT = (
    *(_cut(length) for length in (12, 40, 60, 300, 1001, 1023, 2046)),
    _case("cut by one character", Reason.TRUNCATED, lambda maker: maker.token()[:-1]),
)
FLIPS = tuple(_flip(bit) for bit in range(0, 7000, FLIP_STEP))

# ---- time, audience, issuer, person ------------------------------------------------------------------------------

TIMES = (
    _claims("no exp", Reason.NO_EXPIRY, exp=GONE),
    _claims("exp is null", Reason.BAD_CLAIMS, exp=None),
    _claims("exp is text", Reason.BAD_CLAIMS, exp=lambda maker: str(maker.now + 600)),
    _claims("exp is true", Reason.BAD_CLAIMS, exp=True),
    _claims("exp is this second", Reason.EXPIRED, exp=lambda maker: maker.now),
    _claims("exp is years past", Reason.EXPIRED, exp=1_000_000_000),
    _claims("exp has 300 digits", Reason.BAD_CLAIMS, exp=10**300),
    _case("exp is 1e999", Reason.BAD_CLAIMS,
          lambda maker: maker.token(as_bytes(maker.claims(exp=0)).replace(b'"exp":0', b'"exp":1e999'))),
    _case("exp is NaN", Reason.BAD_CLAIMS,
          lambda maker: maker.token(as_bytes(maker.claims(exp=0)).replace(b'"exp":0', b'"exp":NaN'))),
    _case("exp has 6000 digits", Reason.BAD_CLAIMS,
          lambda maker: maker.token(as_bytes(maker.claims(exp=0)).replace(b'"exp":0', b'"exp":' + b"9" * 6000))),
    _claims("nbf is ahead", Reason.NOT_YET_VALID, nbf=lambda maker: maker.now + 120),
    _claims("iat is ahead", Reason.NOT_YET_VALID, iat=lambda maker: maker.now + 120),
)  # fmt: skip

AUDIENCES = (
    _claims("no aud", Reason.NO_AUDIENCE, aud=GONE),
    _claims("aud is an empty list", Reason.NO_AUDIENCE, aud=[]),
    _claims("aud is another service", Reason.WRONG_AUDIENCE, aud="https://jobs.hpc.example.org"),
    _claims("aud is the WLCG wildcard", Reason.WRONG_AUDIENCE, aud="https://wlcg.cern.ch/jwt/v1/any"),
    _claims("aud is a star", Reason.WRONG_AUDIENCE, aud="*"),
    _claims("aud is a list without us", Reason.WRONG_AUDIENCE, aud=["https://a.example.org", "https://b.example.org"]),
    _claims("aud begins with our name", Reason.WRONG_AUDIENCE, aud=lambda maker: maker.audience + ".evil.example.org"),
    _claims("aud is our name in capitals", Reason.WRONG_AUDIENCE, aud=lambda maker: maker.audience.upper()),
    _claims("aud is a number", Reason.BAD_CLAIMS, aud=7),
    _claims("aud is an object", Reason.BAD_CLAIMS, aud=lambda maker: {maker.audience: True}),
    _claims("aud lists a number beside us", Reason.BAD_CLAIMS, aud=lambda maker: [maker.audience, 7]),
)

ISSUERS = (
    _claims("an untrusted issuer that listens", Reason.UNTRUSTED_ISSUER, iss=lambda maker: maker.stranger),
    _issuer("iss with a doubled slash", lambda url: url.rstrip("/") + "//"),
    _issuer("iss with another path", lambda url: url.rstrip("/") + "/realms/other"),
    _issuer("iss in capitals", str.upper),
    _issuer("iss with a port", lambda url: url.rstrip("/") + ":8443/"),
    _issuer("iss by http", lambda url: url.replace("https:", "http:")),
    _issuer("iss with a query", lambda url: url + "?a=b"),
    _issuer("iss with a blank behind", lambda url: url + " "),
    _issuer("iss is a list", lambda url: [url]),
    _claims("iss is a file", Reason.UNTRUSTED_ISSUER, iss="file:///etc/passwd"),
    _claims("no iss", Reason.UNTRUSTED_ISSUER, iss=GONE),
)

PEOPLE = (
    _claims("no sub", Reason.NO_SUBJECT, sub=GONE),
    _claims("sub is a number", Reason.NO_SUBJECT, sub=20017),
    _claims("sub is empty", Reason.NO_SUBJECT, sub=""),
    _claims("sub holds a line break", Reason.NO_SUBJECT, sub="ada\nroot"),
    _claims("sub is half a character", Reason.BAD_CLAIMS, sub="\ud800"),
    _claims("a client's own token", Reason.CLIENT_TOKEN, sub="public-client"),
    _claims("a token bound to a key of its client", Reason.BOUND_TOKEN, cnf={"jkt": "0ZcOCORZNYy"}),
    _claims("an ID token by its nonce", Reason.ID_TOKEN, nonce="n-0S6"),
    _claims("an ID token by its at_hash", Reason.ID_TOKEN, at_hash="77QmUPtjPfzWtF2AnpK9RQ"),
    _claims("an ID token by its c_hash", Reason.ID_TOKEN, c_hash="LDktKdoQak3Pk0cnXxCltA"),
    _claims("a refresh token", Reason.ID_TOKEN, typ="Refresh"),
    _claims("groups is text", Reason.BAD_CLAIMS, groups="hpc/users"),
    _claims("groups is a number", Reason.BAD_CLAIMS, groups=1),
    _claims("groups lists 3000 names", Reason.BAD_CLAIMS, groups=["g"] * 3000),
    _claims("groups lists a list", Reason.BAD_CLAIMS, **{"wlcg.groups": [["hpc/users"]]}),
)

# ---- form --------------------------------------------------------------------------------------------------------


def _flattened(maker: TokenMaker) -> str:
    protected, payload, signature = maker.token().split(".")
    return json.dumps({"protected": protected, "payload": payload, "signature": signature})


def _general(maker: TokenMaker) -> str:
    protected, payload, signature = maker.token().split(".")
    one = {"protected": protected, "signature": signature}
    return json.dumps({"payload": payload, "signatures": [one, one]})


def _duplicate_claim(maker: TokenMaker) -> str:
    raw = as_bytes(maker.claims())
    return maker.token(raw[:-1] + b',"sub":"73f16d93-2441-4a50-88ff-85360d78c6b5"}')


def _duplicate_header(maker: TokenMaker) -> str:
    return maker.token(header=as_bytes(maker.header())[:-1] + b',"alg":"none"}')


def _padded(maker: TokenMaker) -> str:
    first, second, signature = maker.token().split(".")
    return f"{first}.{second}{'=' * (-len(second) % 4) or '=='}.{signature}"


FORM = (
    _case("nothing at all", Reason.EMPTY, lambda maker: ""),
    _case("a password", Reason.NOT_A_TOKEN, lambda maker: "correct horse battery staple"),
    _case("a password with two dots", Reason.NOT_A_TOKEN, lambda maker: "ada.lovelace.1815"),
    _case("a password that is a host name", Reason.NOT_A_TOKEN, lambda maker: "www.example.org"),
    _case("only dots", Reason.NOT_A_TOKEN, lambda maker: ".."),
    _case("every byte but zero", Reason.NOT_A_TOKEN,
          lambda maker: bytes(range(1, 256)).decode("utf-8", "surrogateescape")),
    _case("what sshd sends for a user that it refuses", Reason.JUNK_FROM_SSHD,
          lambda maker: ("\b\n\r\x7fINCORRECT" * 80)[:1023]),
    _case("20 KB of base64", Reason.TOO_LONG, lambda maker: "eyJh" * 5001),
    _case("a megabyte that is well signed", Reason.TOO_LONG,
          lambda maker: maker.token(maker.claims(filler="x" * 760_000))),
    _case("a blank in front", Reason.NOT_A_TOKEN, lambda maker: " " + maker.token()),
    _case("a line break behind", Reason.BAD_SIGNATURE, lambda maker: maker.token() + "\n"),
    _case("a line break within", Reason.BAD_CLAIMS,
          lambda maker: maker.token().replace(".", ".\n", 1)),
    _case("base64 with padding", Reason.BAD_CLAIMS, _padded),
    _case("flattened JSON serialisation", Reason.NOT_A_TOKEN, _flattened),
    _case("general JSON serialisation with two signatures", Reason.NOT_A_TOKEN, _general),
    _case("four parts", Reason.NOT_A_TOKEN, lambda maker: maker.token() + ".AAAA"),
    _case("an encrypted token", Reason.NOT_A_TOKEN,
          lambda maker: b64url(b'{"alg":"RSA-OAEP","enc":"A256GCM"}') + ".AAAA.AAAA.AAAA.AAAA"),
    _case("a claim twice", Reason.BAD_CLAIMS, _duplicate_claim),
    _case("a header name twice", Reason.BAD_HEADER, _duplicate_header),
    _header("crit", Reason.BAD_HEADER, crit=["exp"]),
    _header("b64 false", Reason.BAD_HEADER, b64=False, crit=["b64"]),
    _header("jku", Reason.BAD_HEADER, jku="https://stranger.example.org/jwk"),
    _header("x5u", Reason.BAD_HEADER, x5u="https://stranger.example.org/chain.pem"),
    _header("x5c", Reason.BAD_HEADER, x5c=["MIIB"]),
    _case("a key of its own in jwk", Reason.BAD_HEADER,
          lambda maker: maker.token(header=maker.header(jwk=public_jwk(throw_away_rsa("foreign"), maker.rsa_kid)),
                                    key=throw_away_rsa("foreign"))),
    _header("zip", Reason.BAD_HEADER, zip="DEF"),
    _header("a nested token by cty", Reason.BAD_HEADER, cty="JWT"),
    _case("a nested token as payload", Reason.BAD_CLAIMS, lambda maker: maker.token(maker.token().encode())),
    _header("typ of a logout token", Reason.BAD_HEADER, typ="logout+jwt"),
    _header("typ is a number", Reason.BAD_HEADER, typ=1),
    _header("a header of 6 KB", Reason.BAD_HEADER, filler="x" * 6000),
    _case("a header that is a list", Reason.NOT_A_TOKEN, lambda maker: maker.token(header=b'["RS256"]')),
    _case("claims that are a list", Reason.BAD_CLAIMS, lambda maker: maker.token(b'["sub"]')),
    _case("claims that are no JSON", Reason.BAD_CLAIMS, lambda maker: maker.token(b"{'sub': 1}")),
    _case("claims in UTF-16", Reason.BAD_CLAIMS,
          lambda maker: maker.token(json.dumps(maker.claims()).encode("utf-16"))),
    _case("claims with a byte-order mark", Reason.BAD_CLAIMS,
          lambda maker: maker.token(b"\xef\xbb\xbf" + as_bytes(maker.claims()))),
    _case("claims nested 40 deep", Reason.BAD_CLAIMS,
          lambda maker: maker.token(as_bytes(maker.claims())[:-1] + b',"x":' + b"[" * 40 + b"]" * 40 + b"}")),
    _case("claims nested 5000 deep", Reason.BAD_CLAIMS,
          lambda maker: maker.token(as_bytes(maker.claims())[:-1] + b',"x":' + b"[" * 5000 + b"]" * 5000 + b"}")),
    _case("no claims", Reason.BAD_CLAIMS, lambda maker: maker.token(b"")),
)  # fmt: skip

BAD_TOKENS: tuple[BadToken, ...] = (*SIGNATURE, *CUT, *FLIPS, *TIMES, *AUDIENCES, *ISSUERS, *PEOPLE, *FORM)
"""The whole table. Sentences are unique and fit for test ids."""
