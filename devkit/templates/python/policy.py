"""Judges whether something may be done now."""

import json

from wit_world import exports
from wit_world.imports import config
from wit_world.imports.loopback_base_types import Descriptor, Diagnostic
from wit_world.imports.loopback_policy_types import (
    Reason,
    Request,
    Verdict,
    Verdict_Abstain,
    Verdict_Deny,
)

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["environments"],
    "properties": {"environments": {"type": "array", "items": {"type": "string"}}},
}


class Plugin(exports.Plugin):
    def describe(self) -> Descriptor:
        return Descriptor(config_schema=json.dumps(SCHEMA), features=[], extra=[])

    def check_config(self, json_text: str) -> list[Diagnostic]:
        return []

    def migrate_config(self, from_version: str, json_text: str) -> str:
        return json_text


class Authorizer(exports.Authorizer):
    def decide(self, request: Request) -> Verdict:
        environments = json.loads(config.json())["environments"]
        concerned = any(target.environment in environments for target in request.targets)
        if concerned and request.ticket is None:
            return Verdict_Deny(Reason(code="ticket.missing", message="name a ticket"))
        return Verdict_Abstain()
