"""Turns machines on and off."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import http, secrets
from wit_world.imports.loopback_base_types import Descriptor, Diagnostic, Error, ErrorKind
from wit_world.imports.loopback_power_types import (
    Action,
    Begun,
    Begun_Already,
    Begun_Done,
    Cancelled,
    FoundPage,
    Observation,
    Operation,
    Resumed,
    Resumed_Unknown,
    State,
    Step,
    Step_Done,
    Support,
    Supported,
    Target,
)

SCHEMA = {"type": "object", "additionalProperties": False}
WANTED = {Action.ON: State.ON, Action.OFF: State.OFF}


class Plugin(exports.Plugin):
    def describe(self) -> Descriptor:
        return Descriptor(config_schema=json.dumps(SCHEMA), features=[], extra=[])

    def check_config(self, json_text: str) -> list[Diagnostic]:
        return []

    def migrate_config(self, from_version: str, json_text: str) -> str:
        return json_text


class Provider(exports.Provider):
    def inspect(self, target: Target) -> Support:
        actions = [Supported(action, "") for action in WANTED]
        return Support(actions, True, [], False, 10_000, 1)

    def check(self, target: Target) -> list[Diagnostic]:
        self.observe(target)
        return []

    def observe(self, target: Target) -> Observation:
        raw = read(ask(target, "GET")).get("state")
        state = {"on": State.ON, "off": State.OFF}.get(raw, State.UNKNOWN)
        return Observation(state, str(raw), None, None, [])

    def begin(self, operation: Operation, target: Target) -> Begun:
        wanted = WANTED.get(operation.action)
        if wanted is None:
            raise failure(ErrorKind.UNSUPPORTED, "power.action", "on and off only")
        try:
            seen = self.observe(target)
        except Err as error:
            # Nothing has been submitted yet, whatever became of asking.
            error.value.outcome_unknown = False
            raise
        if seen.state == wanted:
            return Begun_Already(seen)
        ask(target, "POST", {"state": wanted.name.lower()})
        return Begun_Done()

    # Nothing is submitted with a cursor, so nobody asks after one.
    def poll(self, operation: Operation, target: Target, cursor: bytes) -> Step:
        return Step_Done()

    def resume(self, operation: Operation, target: Target) -> Resumed:
        return Resumed_Unknown()

    def cancel(self, operation: Operation, target: Target, cursor: bytes) -> Cancelled:
        return Cancelled.UNSUPPORTED

    def discover(self, cursor: str | None) -> FoundPage:
        raise failure(ErrorKind.UNSUPPORTED, "power.no_list", "this provider has no list of machines")


def read(body: bytes) -> dict:
    try:
        return dict(json.loads(body))
    except (TypeError, ValueError) as error:
        raise failure(ErrorKind.UPSTREAM, "power.not_json", str(error))


def ask(target: Target, method: str, body: dict | None = None) -> bytes:
    request = http.Request(
        method=method,
        url=f"{target.address}/power",
        headers=[("content-type", "application/json")] if body else [],
        body=json.dumps(body).encode() if body else b"",
        tls_profile=target.tls_profile,
        route=target.route,
        timeout_ms=5000,
        max_response_bytes=65536,
    )
    with secrets.open("token") as token:
        answer = http.send(request, [http.Credential(token, http.Placement_Bearer())])
    if answer.status >= 300:
        kinds = {401: ErrorKind.AUTH, 403: ErrorKind.FORBIDDEN, 404: ErrorKind.NOT_FOUND,
                 409: ErrorKind.CONFLICT, 429: ErrorKind.THROTTLED, 503: ErrorKind.BUSY}
        usual = ErrorKind.UPSTREAM if answer.status >= 500 else ErrorKind.INVALID
        kind = kinds.get(answer.status, usual)
        code = f"power.status_{answer.status}"
        error = failure(kind, code, f"the controller answered with status {answer.status}")
        after = dict(answer.headers).get("retry-after", "")
        if after.isdecimal() and len(after) < 7:
            error.value.retry_after_ms = int(after) * 1000
        # What breaks over there may break after it was done.
        error.value.outcome_unknown = method == "POST" and answer.status >= 500
        raise error
    return answer.body


def failure(kind: ErrorKind, code: str, message: str) -> Err[Error]:
    return Err(Error(kind, code, message, None, False, []))
