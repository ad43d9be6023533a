// Judges whether something may be done now.

import { json as config } from "loopback:base/config@0.1.0";

const SCHEMA = {
  type: "object",
  additionalProperties: false,
  required: ["environments"],
  properties: { environments: { type: "array", items: { type: "string" } } },
};

export const plugin = {
  describe: () => ({ configSchema: JSON.stringify(SCHEMA), features: [], extra: [] }),
  checkConfig: (_json) => [],
  migrateConfig: (_fromVersion, json) => json,
};

export const authorizer = {
  decide(request) {
    const { environments } = JSON.parse(config());
    const concerned = request.targets.some(({ environment }) => environments.includes(environment));
    // `==`: what is absent is null in one engine and undefined in another.
    if (concerned && request.ticket == null) {
      return { tag: "deny", val: { code: "ticket.missing", message: "name a ticket" } };
    }
    return { tag: "abstain" };
  },
};
