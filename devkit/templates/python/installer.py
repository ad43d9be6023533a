"""Writes the installer for hosts."""

import json

from wit_world import exports
from wit_world.imports import config
from wit_world.imports.loopback_base_types import Descriptor, Diagnostic
from wit_world.imports.loopback_install_types import Input, Rendered

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["notice"],
    "properties": {"notice": {"type": "string", "pattern": "^[A-Za-z0-9 .,:-]*$"}},
}


class Plugin(exports.Plugin):
    def describe(self) -> Descriptor:
        return Descriptor(config_schema=json.dumps(SCHEMA), features=[], extra=[])

    def check_config(self, json_text: str) -> list[Diagnostic]:
        return []

    def migrate_config(self, from_version: str, json_text: str) -> str:
        return json_text


class Renderer(exports.Renderer):
    def render(self, input: Input) -> Rendered:
        notice = json.loads(config.json())["notice"]
        # Nothing runs before the last line is there: a download may be cut.
        script = f"""#!/bin/sh
# loopback-installer: {input.version} {input.channel}
main() {{
  set -eu
  echo '{notice}'
  echo 'the gateway is {input.base_url}'
}}
main "$@"
"""
        return Rendered(script=script, notes=[])
