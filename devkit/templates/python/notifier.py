"""Carries events somewhere."""

import json

from componentize_py_types import Err, Ok, Result
from wit_world import exports
from wit_world.imports import config, http, secrets
from wit_world.imports.loopback_base_types import Descriptor, Diagnostic, Error, ErrorKind
from wit_world.imports.loopback_signal_types import Event

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["url"],
    "properties": {"url": {"type": "string", "description": "Where events go."}},
}


class Plugin(exports.Plugin):
    def describe(self) -> Descriptor:
        return Descriptor(config_schema=json.dumps(SCHEMA), features=[], extra=[])

    def check_config(self, json_text: str) -> list[Diagnostic]:
        return []

    def migrate_config(self, from_version: str, json_text: str) -> str:
        return json_text


class Sink(exports.Sink):
    def deliver(self, batch: list[Event]) -> list[Result[None, Error]]:
        url = json.loads(config.json())["url"]
        answers: list[Result[None, Error]] = []
        for event in batch:
            # The order is kept: what follows a failed event waits.
            if answers and isinstance(answers[-1], Err):
                answers.append(failure(ErrorKind.BUSY, "target.waits", "an earlier event waits"))
                continue
            try:
                post(url, event)
                answers.append(Ok(None))
            except Err as failed:
                answers.append(failed)
        return answers


def post(url: str, event: Event) -> None:
    request = http.Request(
        method="POST",
        url=url,
        headers=[("content-type", "application/json")],
        body=json.dumps({"id": event.id, "text": event.summary}).encode(),
        tls_profile=None,
        route=None,
        timeout_ms=5000,
        max_response_bytes=65536,
    )
    with secrets.open("token") as token:
        status = http.send(request, [http.Credential(token, http.Placement_Bearer())]).status
    if status >= 300:
        kinds = {429: ErrorKind.THROTTLED}
        kind = kinds.get(status, ErrorKind.UPSTREAM if status >= 500 else ErrorKind.INVALID)
        code = f"target.status_{status}"
        raise failure(kind, code, f"the server answered with status {status}")


def failure(kind: ErrorKind, code: str, message: str) -> Err[Error]:
    return Err(Error(kind, code, message, None, False, []))
