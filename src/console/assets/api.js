// The gateway's HTTP API, with the token in a header.

import { parse } from "./json.js";
import { session } from "./session.js";

const TIMEOUT = 15_000;

// An answer that is not 2xx (`status` 0: none came at all), in words for the operator.
export class ApiError extends Error {
  constructor(status, code, message, retryAfter) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

async function call(method, path, body, timeout) {
  const token = session.token;
  const headers = { Authorization: `Bearer ${token}`, Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  let text;
  try {
    response = await fetch(path, {
      method, headers, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer",
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(timeout),
    });
    text = await response.text();
  } catch {
    throw new ApiError(0, "unreachable", "The gateway cannot be reached");
  }
  let value = null;
  try {
    value = parse(text);
  } catch { /* a proxy's page, perhaps */ }
  if (response.ok && value !== null) return value;
  const retry = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  const status = response.ok ? 0 : response.status;
  const error = new ApiError(
    status,
    value?.error ?? "unreachable",
    value?.message ?? `The gateway answered ${response.status} without words; a proxy may stand between`,
    value?.retry_after ?? (Number.isNaN(retry) ? undefined : retry),
  );
  // An answer to a token that has been replaced meanwhile says nothing about the new one.
  error.stale = token !== session.token;
  throw error;
}

const part = encodeURIComponent;

export const api = {
  me: () => call("GET", "/api/v1/me", undefined, TIMEOUT),
  list(kind, query) {
    const search = new URLSearchParams(query).toString();
    return call("GET", `/api/v1/${kind}s${search ? `?${search}` : ""}`, undefined, TIMEOUT);
  },
  show: (kind, id) => call("GET", `/api/v1/${kind}s/${part(id)}`, undefined, TIMEOUT),
  command: (kind, id, action, body) => call("POST", `/api/v1/${kind}s/${part(id)}/${action}`, body, TIMEOUT),
  result: (kind, id, command, wait) =>
    call("GET", `/api/v1/${kind}s/${part(id)}/commands/${part(command)}?wait=${wait}`, undefined, TIMEOUT + wait * 1000),
};
