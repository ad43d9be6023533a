// Writes the installer for hosts.

import { json as config } from "loopback:base/config@0.1.0";

const SCHEMA = {
  type: "object",
  additionalProperties: false,
  required: ["notice"],
  properties: { notice: { type: "string", pattern: "^[A-Za-z0-9 .,:-]*$" } },
};

export const plugin = {
  describe: () => ({ configSchema: JSON.stringify(SCHEMA), features: [], extra: [] }),
  checkConfig: (_json) => [],
  migrateConfig: (_fromVersion, json) => json,
};

export const renderer = {
  render(input) {
    const { notice } = JSON.parse(config());
    // Nothing runs before the last line is there: a download may be cut.
    const script = `#!/bin/sh
# loopback-installer: ${input.version} ${input.channel}
main() {
  set -eu
  echo '${notice}'
  echo 'the gateway is ${input.baseUrl}'
}
main "$@"
`;
    return { script, notes: [] };
  },
};
