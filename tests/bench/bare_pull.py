"""Fetch every page of people and groups with requests and json, and keep nothing: the floor for any pull by SCIM."""

from __future__ import annotations

import json
import sys

import requests

PAGE = 100


def main(base_url: str, ca_file: str) -> None:
    """Walk both listings."""
    with requests.Session() as session:
        answer = session.post(
            f"{base_url}/token",
            data={"grant_type": "client_credentials", "scope": "scim:read"},
            auth=("sync-client", "sync-secret"),
            verify=ca_file,
            timeout=30,
        )
        session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        for path, fields in (("Groups", "displayName"), ("Users", "userName,active,groups,meta")):
            start, total = 1, 1
            while start <= total:
                asked = {"startIndex": str(start), "count": str(PAGE), "attributes": fields}
                page = session.get(f"{base_url}/scim/{path}", params=asked, verify=ca_file, timeout=30)
                total = json.loads(page.content)["totalResults"]
                start += PAGE


if __name__ == "__main__":
    main(*sys.argv[1:])
