// Turns machines on and off.

import { send } from "loopback:base/http@0.1.0";
import { open } from "loopback:base/secrets@0.1.0";

const SCHEMA = { type: "object", additionalProperties: false };

export const plugin = {
  describe: () => ({ configSchema: JSON.stringify(SCHEMA), features: [], extra: [] }),
  checkConfig: (_json) => [],
  migrateConfig: (_fromVersion, json) => json,
};

const WANTED = { on: "on", off: "off" };

export const provider = {
  inspect: (_target) => ({
    actions: Object.keys(WANTED).map((action) => ({ action, note: "" })),
    observable: true,
    bootDevices: [],
    cancellable: false,
    settleMs: 10000,
    maxParallel: 1,
  }),

  check(target) {
    observe(target);
    return [];
  },

  observe,

  begin({ action }, target) {
    const wanted = WANTED[action];
    if (!wanted) throw failure("unsupported", "power.action", "on and off only");
    const seen = harmless(() => observe(target));
    if (seen.state === wanted) return { tag: "already", val: seen };
    ask(target, "POST", { state: wanted });
    return { tag: "done" };
  },

  // Nothing is submitted with a cursor, so nobody asks after one.
  poll: (_operation, _target, _cursor) => ({ tag: "done" }),
  resume: (_operation, _target) => ({ tag: "unknown" }),
  cancel: (_operation, _target, _cursor) => "unsupported",

  discover(_cursor) {
    throw failure("unsupported", "power.no_list", "this provider has no list of machines");
  },
};

function observe(target) {
  const raw = read(ask(target, "GET").body).state;
  const state = raw === "on" || raw === "off" ? raw : "unknown";
  return { state, raw: String(raw), bootMark: undefined, boot: undefined, extra: [] };
}

function read(body) {
  try {
    return Object(JSON.parse(text(body)));
  } catch (error) {
    throw failure("upstream", "power.not_json", String(error));
  }
}

// Nothing has been submitted yet, whatever became of asking.
function harmless(asking) {
  try {
    return asking();
  } catch (error) {
    if (error.payload) error.payload.outcomeUnknown = false;
    else error.outcomeUnknown = false;
    throw error;
  }
}

function ask(target, method, body) {
  const request = {
    method,
    url: `${target.address}/power`,
    headers: body ? [["content-type", "application/json"]] : [],
    body: bytes(body ? JSON.stringify(body) : ""),
    tlsProfile: target.tlsProfile,
    route: target.route,
    timeoutMs: 5000,
    maxResponseBytes: 65536,
  };
  const answer = send(request, [{ secret: open("token"), placement: { tag: "bearer" } }]);
  if (answer.status >= 300) {
    const kinds = { 401: "auth", 403: "forbidden", 404: "not-found", 409: "conflict", 429: "throttled", 503: "busy" };
    const kind = kinds[answer.status] ?? (answer.status >= 500 ? "upstream" : "invalid");
    const error = failure(kind, `power.status_${answer.status}`, `the controller answered with status ${answer.status}`);
    const after = answer.headers.find(([name]) => name === "retry-after");
    if (after && /^\d{1,6}$/.test(after[1])) error.retryAfterMs = Number(after[1]) * 1000;
    // What breaks over there may break after it was done.
    error.outcomeUnknown = method === "POST" && answer.status >= 500;
    throw error;
  }
  return answer;
}

// UTF-8 with what the language itself has: QuickJS knows no TextEncoder and no TextDecoder.
const bytes = (text) => Uint8Array.from(unescape(encodeURIComponent(text)), (char) => char.charCodeAt(0));
const text = (bytes) => decodeURIComponent(escape(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")));

const failure = (kind, code, message) => ({
  kind,
  code,
  message,
  retryAfterMs: undefined,
  outcomeUnknown: false,
  details: [],
});
