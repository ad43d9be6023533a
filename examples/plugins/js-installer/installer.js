// An installer for containers and images without systemd: it fetches the agent, checks it and puts
// it beside its configuration. Whatever runs the container starts it.

import { json as readConfig } from "loopback:base/config@0.1.0";
import { write as log } from "loopback:base/log@0.1.0";

const SCHEMA = {
  type: "object",
  additionalProperties: false,
  properties: {
    folder: {
      type: "string",
      description: "Where the agent is put.",
      pattern: "^(/[A-Za-z0-9._-]+)+$",
      default: "/opt/loopback-agent",
    },
  },
};

/** Errors of the contract are thrown as `{ payload }`-less records: all fields must be there. */
const invalid = (code, message) => ({
  kind: "invalid",
  code,
  message,
  retryAfterMs: undefined,
  outcomeUnknown: false,
  details: [],
});

export const plugin = {
  describe: () => ({ configSchema: JSON.stringify(SCHEMA), features: [], extra: [] }),
  checkConfig: (json) => {
    const { folder } = JSON.parse(json);
    return folder?.startsWith("/tmp/")
      ? [{ severity: "warning", path: "/folder", message: "what lies in /tmp is lost at a boot" }]
      : [];
  },
  migrateConfig: (_fromVersion, json) => json,
};

export const renderer = {
  render(input) {
    const known = input.binaries.filter(({ arch }) => arch === "x86_64" || arch === "aarch64");
    if (known.length === 0) {
      throw invalid("installer.no_binary", "the release has no agent for x86_64 or aarch64");
    }
    const folder = JSON.parse(readConfig()).folder ?? "/opt/loopback-agent";
    const paths = Object.fromEntries(input.paths.map(({ key, value }) => [key, value]));
    const cases = known.map(
      ({ arch, name, sha256 }) => `    ${arch}) NAME='${name}' SHA256='${sha256}' ;;`,
    );
    log("debug", "rendered", [["version", input.version]]);
    return { script: script(input, paths.releases, folder, cases.join("\n")), notes: [] };
  },
};

// No value contains a quote: the gateway has seen to that for `input`, the schema for `folder`.
const script = (input, releases, folder, cases) => `#!/bin/sh
# Puts the Loopback agent into ${folder}, for images and containers without systemd.
# loopback-installer: ${input.version} ${input.channel}
main() {
  set -eu
  case $(uname -m) in
${cases}
    *) echo "error: there is no agent for $(uname -m)" >&2; exit 1 ;;
  esac
  mkdir -p '${folder}'
  umask 077
  cat >'${folder}/ca.pem' <<'PEM'
${input.caPem.trimEnd()}
PEM
  curl -fsS --cacert '${folder}/ca.pem' -o '${folder}/loopback-agent.new' \\
    '${input.baseUrl}${releases}/${input.channel}/${input.version}/'"$NAME"
  echo "$SHA256  ${folder}/loopback-agent.new" | sha256sum -c - >/dev/null
  chmod 755 '${folder}/loopback-agent.new'
  mv -f '${folder}/loopback-agent.new' '${folder}/loopback-agent'
  cat >'${folder}/agent.toml' <<'TOML'
gateway = "${input.baseUrl}"
state_dir = "${folder}/state"
token_file = "${folder}/token"
ca_file = "${folder}/ca.pem"
channel = "${input.channel}"
TOML
  printf '%s\\n' "\${LOOPBACK_TOKEN:?the agent token}" >'${folder}/token'
  echo 'done: start it with ${folder}/loopback-agent run --config ${folder}/agent.toml'
}
main "$@"
`;
