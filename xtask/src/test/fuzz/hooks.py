"""What the document can't say: which values exist on this platform, and what has to be waited for.

A request that breaks the document is sent as it was made. Only requests that keep to it are completed here, with values
that the platform would know: a schema can't tell that an organization exists.
"""

import base64
import json as json_text
import os
import time
import uuid
from datetime import datetime, timedelta, timezone

import requests
import schemathesis
from schemathesis.openapi.checks import EnsureResourceAvailability

API = os.environ["FUZZ_API"]
EMAIL = os.environ["FUZZ_EMAIL"]
PASSWORD = os.environ["FUZZ_PASSWORD"]
ORGANIZATION = os.environ["FUZZ_ORGANIZATION"]
PERMISSIONS = os.environ["FUZZ_PERMISSIONS"].split(",")
BEARER = f"Bearer {os.environ['FUZZ_TOKEN']}"

# The session of this run, as its token says.
CLAIMS = os.environ["FUZZ_TOKEN"].split(".")[1]
SESSION = json_text.loads(base64.urlsafe_b64decode(CLAIMS + "=" * (-len(CLAIMS) % 4)))["sid"]

# Seconds; above the longest `wait` that the API takes.
DEADLINE = 70

# The operation that makes each tenant of this run.
provisioning = {}

# The request that each idempotency key was sent with.
keys = {}

# The last version seen of each resource, by its path.
versions = {}

# Headers that the contract promises on every answer, and on answers of single statuses.
ALWAYS = {"x-request-id", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"}
BY_STATUS = {
    "201": {"location"},
    "202": {"location", "retry-after"},
    "401": {"www-authenticate"},
    "429": {"retry-after"},
    "503": {"retry-after"},
}


@schemathesis.hook
def before_load_schema(context, raw_schema):
    require_headers(raw_schema)
    describe_events(raw_schema)


def require_headers(raw_schema):
    """The document's generator knows no `required` on headers, but clients rely on those that are promised."""
    for item in raw_schema["paths"].values():
        for operation in item.values():
            for status, answer in operation["responses"].items():
                promised = ALWAYS | BY_STATUS.get(status, set())
                headers = answer.get("headers", {})
                for name in headers:
                    if name.lower() in promised:
                        headers[name] = {**resolved(raw_schema, headers[name]), "required": True}


def resolved(raw_schema, header):
    """Headers that many answers share are components; some answers promise them and others don't."""
    name = header.get("$ref", "").removeprefix("#/components/headers/")
    return raw_schema["components"]["headers"][name] if name else header


def describe_events(raw_schema):
    """In OpenAPI 3.1 a stream of events is one text; what each event holds is promised all the same."""
    paths = raw_schema["paths"]
    path = "/v1/operations/{id}"
    if f"{path}/events" in paths:
        operation = paths[path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        stream = paths[f"{path}/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]
        stream["schema"] = {
            "type": "object",
            "required": ["event", "id", "data"],
            "properties": {
                "event": {"const": "operation"},
                "id": {"type": "string", "pattern": "^[0-9]+$"},
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": operation,
                },
            },
        }


@schemathesis.hook
def map_headers(context, headers):
    """Texts of the dictionary are for bodies and queries too, and hold what no header can carry (RFC 9110, 5.5)."""
    return {name: carried(value) if isinstance(value, str) else value for name, value in (headers or {}).items()}


def carried(text):
    return "".join(letter for letter in text if letter not in "\0\r\n" and ord(letter) < 256).strip(" \t")


@schemathesis.hook
def before_call(context, case, kwargs):
    label = case.operation.label
    if label == "POST /v1/auth/token":
        sign_in(case)
    elif label == "POST /v1/auth/logout":
        log_out(case)
    elif label.startswith("DELETE "):
        stay(case)
    if not (case.meta and case.meta.generation.mode.is_positive):
        return
    if isinstance(case.query, dict):
        # Good for one list with one set of filters: a made-up one never is.
        case.query.pop("page_token", None)
    if "Idempotency-Key" in case.headers:
        use_key_once(case)
    if "If-Match" in case.headers:
        use_known_version(case)
    if isinstance(case.body, dict):
        complete(label, case.body)


def sign_in(case):
    """Failed sign-ins lock an account out for a minute, so only right ones are made to the account of this run."""
    if not isinstance(case.body, dict):
        return
    positive = case.meta and case.meta.generation.mode.is_positive
    if positive and case.meta.phase.name.value == "examples":
        case.body = {"email": EMAIL, "password": PASSWORD}
    elif str(case.body.get("email")).strip().lower() == EMAIL:
        case.body["email"] = "nobody@example.com"


def log_out(case):
    """Logging out ends the session for good: each time a session of its own."""
    if case.headers.get("Authorization") == BEARER:
        answer = call("POST", "/v1/auth/token", json={"email": EMAIL, "password": PASSWORD}, headers={})
        case.headers["Authorization"] = f"Bearer {answer['access_token']}"


def stay(case):
    """Neither the organization nor the session of this run may go: nothing would be tested after that."""
    for own in (ORGANIZATION, SESSION):
        if case.path_parameters.get("id") == own:
            prefix, _, suffix = own.partition("_")
            case.path_parameters["id"] = f"{prefix}_{suffix[::-1].replace(suffix[-1], '0', 1)}"


def use_key_once(case):
    """A key that another request has had is rightly refused, and short ones are made up again and again."""
    key, request = case.headers["Idempotency-Key"], (case.method, case.formatted_path, repr(case.body))
    if keys.setdefault(key, request) != request:
        case.headers["Idempotency-Key"] = f"{key[:200]}-{len(keys)}"
        keys[case.headers["Idempotency-Key"]] = request


def use_known_version(case):
    """A made-up version is never the present one."""
    known = versions.get(case.formatted_path)
    if known is None:
        del case.headers["If-Match"]
    else:
        case.headers["If-Match"] = known


def complete(label, body):
    """Which organizations, versions and languages there are is not in the document, nor what time it is."""
    for name, known in (("organization_id", ORGANIZATION), ("odoo_version", "19.0"), ("language", "en_US")):
        if body.get(name) not in (None, known):
            body[name] = known
    if label == "PATCH /v1/organizations/{id}":
        # The own one can't be moved, and there is nothing to move another one to.
        body.pop("parent_id", None)
    elif body.get("parent_id") is not None:
        body["parent_id"] = ORGANIZATION
    if body.get("expires_at") is not None:
        body["expires_at"] = (datetime.now(timezone.utc) + timedelta(days=1)).isoformat()
    if label in ("POST /v1/members", "POST /v1/invitations"):
        # Another invitation of the same address would take the place of the first one.
        body["email"] = f"fuzz-{uuid.uuid4().hex}@example.com"


@schemathesis.hook
def after_call(context, case, response):
    label = case.operation.label
    if "etag" in response.headers:
        versions[case.formatted_path] = response.headers["etag"][0]
    if response.status_code != 202:
        return
    answer = response.json()
    if label == "POST /v1/tenants":
        provisioning[answer["tenant"]["id"]] = answer["operation"]["id"]
    if label.startswith("DELETE "):
        # It is gone when the operation has ended, and not before: only then is a 404 due.
        call("GET", f"/v1/operations/{answer['operation']['id']}?wait=60")


@schemathesis.check
def permission_comes_first(context, response, case):
    """Who may not do a thing learns that, and nothing of the things that it would be done to."""
    needed = case.operation.definition.raw.get("x-required-permission")
    if needed is None or needed in PERMISSIONS:
        return
    if response.status_code not in (401, 403, 404, 405, 408, 429):
        raise AssertionError(f"{needed} is missing, but the answer is {response.status_code} and not 403")


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """A tenant whose creation failed or was cancelled is rightly gone."""
    if not isinstance(failure, EnsureResourceAvailability):
        return True
    operation = provisioning.get(case.path_parameters.get("id"))
    if operation is None:
        return True
    return call("GET", f"/v1/operations/{operation}")["status"] not in ("failed", "cancelled")


def call(method, path, json=None, headers=None):
    """A request of the hooks' own, which has to succeed."""
    headers = {"Authorization": BEARER} if headers is None else headers
    while True:
        answer = requests.request(method, API + path, json=json, headers=headers, timeout=DEADLINE)
        if answer.status_code != 429:
            answer.raise_for_status()
            return answer.json()
        time.sleep(int(answer.headers["Retry-After"]))
