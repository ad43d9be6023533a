"""Posts events to a chat that takes form fields (`room`, `text`)."""

import json
from urllib.parse import urlencode

from componentize_py_types import Err, Ok, Result
from wit_world import exports
from wit_world.imports import config, http, secrets, task
from wit_world.imports.loopback_base_types import (
    Descriptor,
    Diagnostic,
    Error,
    ErrorKind,
    Severity,
)
from wit_world.imports.loopback_signal_types import Event

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["url", "room"],
    "properties": {
        "url": {"type": "string", "description": "Where messages are posted."},
        "room": {"type": "string", "description": "The room they go to."},
    },
}


class Plugin(exports.Plugin):
    def describe(self) -> Descriptor:
        return Descriptor(config_schema=json.dumps(SCHEMA), features=[], extra=[])

    def check_config(self, json_text: str) -> list[Diagnostic]:
        url = json.loads(json_text)["url"]
        if url.startswith("https://"):
            return []
        if url.startswith("http://"):
            message = "without TLS everybody on the way reads the events"
            return [Diagnostic(Severity.WARNING, "/url", message)]
        return [Diagnostic(Severity.ERROR, "/url", "must be an https:// address")]

    def migrate_config(self, from_version: str, json_text: str) -> str:
        return json_text


class Sink(exports.Sink):
    def deliver(self, batch: list[Event]) -> list[Result[None, Error]]:
        settings = json.loads(config.json())
        answers: list[Result[None, Error]] = []
        for event in batch:
            # What will be tried again holds up what follows it, so that the order is kept.
            if answers and isinstance(answers[-1], Err) and transient(answers[-1].value):
                answers.append(Err(error(ErrorKind.BUSY, "chat.waits", "an earlier event waits")))
                continue
            try:
                post(settings, event)
                answers.append(Ok(None))
            except Err as failed:
                answers.append(failed)
        return answers


def post(settings: dict, event: Event) -> None:
    """Raises `Err` of an `Error`, as the gateway's functions do."""
    fields = {"room": settings["room"], "text": f"[{event.severity}] {event.summary}"}
    request = http.Request(
        method="POST",
        url=settings["url"],
        headers=[
            ("content-type", "application/x-www-form-urlencoded"),
            ("idempotency-key", event.id),
        ],
        body=urlencode(fields).encode(),
        tls_profile=None,
        route=None,
        timeout_ms=min(5_000, task.remaining_ms()),
        max_response_bytes=65_536,
    )
    with secrets.open("token") as token:
        answer = http.send(request, [http.Credential(token, http.Placement_Bearer())])
    if 200 <= answer.status < 300:
        return
    kind = {401: ErrorKind.AUTH, 403: ErrorKind.FORBIDDEN, 429: ErrorKind.THROTTLED}.get(
        answer.status,
        ErrorKind.UPSTREAM if answer.status >= 500 else ErrorKind.INVALID,
    )
    code = f"chat.status_{answer.status}"
    raise Err(error(kind, code, f"the chat answered with status {answer.status}"))


def transient(failed: Error) -> bool:
    again = {
        ErrorKind.BUSY,
        ErrorKind.THROTTLED,
        ErrorKind.UNREACHABLE,
        ErrorKind.TIMEOUT,
        ErrorKind.UPSTREAM,
        ErrorKind.INTERNAL,
        ErrorKind.OTHER,
    }
    return failed.kind in again


def error(kind: ErrorKind, code: str, message: str) -> Error:
    return Error(kind, code, message, None, False, [])
