// Signing in through the issuer of the tokens: authorisation code with PKCE (RFC 7636), as a public client without a secret.
// What was begun is remembered in this tab only, so an answer that this tab did not ask for is not taken: nobody can sign
// an operator in as another by a link.

import { claims } from "./session.js";

const BEGUN = "wheelhouse.oidc.begun";
const RENEWS = "wheelhouse.oidc.renews";

const random = () => encode(crypto.getRandomValues(new Uint8Array(32)));

function encode(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

// Storage can be forbidden by the browser's settings: then this lives as long as the page.
const memory = new Map();
function kept(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key));
  } catch {
    return memory.get(key) ?? null;
  }
}
function keep(key, value) {
  try {
    if (value === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, JSON.stringify(value));
  } catch {
    memory.set(key, value);
  }
}

async function read(address, options, what) {
  let answer;
  try {
    answer = await fetch(address, { ...options, credentials: "omit", cache: "no-store" });
  } catch {
    const { host } = new URL(address, location.origin);
    throw new Error(`${what}: ${host} does not answer this page. It must be reachable, allow requests from ${location.origin}, and be named in console.oidc_origins where it is not the host of auth.issuer.`);
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  // The issuer's own words, as they are: it knows what it did not like.
  const error = new Error(`${what}: ${[body.error, body.error_description].filter(Boolean).join(", ") || `HTTP ${answer.status}`}`);
  error.code = body.error;
  throw error;
}

class Oidc {
  constructor() {
    this.settings = undefined;
    this.known = null;
    this.renewing = null;
  }

  // How this console signs people in; null where only by tokens.
  async load() {
    this.settings ??= (await read("/assets/sign-in.json", {}, "The console's settings cannot be read")).oidc;
    return this.settings;
  }

  // Who signs people in, for a button.
  get issuer() {
    return new URL(this.settings.issuer).host;
  }

  // What the issuer says of itself.
  async discover() {
    const { issuer } = this.settings;
    if (this.known) return this.known;
    const address = `${issuer.replace(/[/]$/, "")}/.well-known/openid-configuration`;
    const found = await read(address, {}, "The issuer's description cannot be read");
    if (found.issuer !== issuer) throw new Error(`The description at ${address} is that of another issuer, ${found.issuer}: auth.issuer must be written as the issuer writes it.`);
    const methods = found.code_challenge_methods_supported;
    if (Array.isArray(methods) && !methods.includes("S256")) throw new Error(`${this.issuer} does not offer PKCE with S256, and the console signs in in no other way.`);
    this.known = found;
    return found;
  }

  // Leaves this page for the issuer's.
  async begin() {
    if (!crypto.subtle) throw new Error("Browsers let a page sign in like this over https only (or on localhost). Open the console there, or use a token.");
    const found = await this.discover();
    const [state, nonce, verifier] = [random(), random(), random()];
    const challenge = encode(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier))));
    keep(BEGUN, { state, nonce, verifier, hash: location.hash });
    const address = new URL(found.authorization_endpoint);
    const fields = {
      response_type: "code", client_id: this.settings.client_id, redirect_uri: this.home, scope: this.settings.scopes, state, nonce,
      code_challenge: challenge, code_challenge_method: "S256", ...Object.fromEntries(new URLSearchParams(this.settings.parameters)),
    };
    // Without a new consent many issuers give no refresh token.
    if (this.settings.scopes.split(" ").includes("offline_access")) fields.prompt ??= "consent";
    for (const [name, value] of Object.entries(fields)) address.searchParams.set(name, value);
    location.assign(address);
  }

  get home() {
    return `${location.origin}/`;
  }

  // The issuer's answer in this page's address, taken out of it before anything else; null where there is none.
  takeAnswer() {
    const url = new URL(location.href);
    const answer = Object.fromEntries(url.searchParams);
    if (answer.state === undefined || (answer.code === undefined && answer.error === undefined)) return null;
    const begun = kept(BEGUN);
    keep(BEGUN, null);
    const isOurs = begun !== null && begun.state === answer.state;
    history.replaceState(null, "", `/${isOurs ? begun.hash : ""}`);
    return { answer, begun: isOurs ? begun : null };
  }

  // Makes a token of an answer; throws an error in words for the operator.
  async finish({ answer, begun }) {
    if (!begun) throw new Error("This sign-in was not begun in this tab, or was ended already. Begin it here.");
    if (answer.iss !== undefined && answer.iss !== this.settings.issuer) throw new Error(`The answer comes from another issuer, ${answer.iss}.`);
    if (answer.error) {
      const why = answer.error === "access_denied" ? "it was declined there" : [answer.error, answer.error_description].filter(Boolean).join(", ");
      throw new Error(`${this.issuer} did not sign you in: ${why}.`);
    }
    const given = await this.ask({ grant_type: "authorization_code", code: answer.code, redirect_uri: this.home, code_verifier: begun.verifier });
    // Straight from the issuer over TLS, so its signature need not be checked here (OpenID Connect Core, 3.1.3.7). The access
    // token is for the gateway to judge.
    const { iss, aud, nonce } = claims(given.id_token ?? "");
    if (nonce !== begun.nonce || iss !== this.settings.issuer || ![aud].flat().includes(this.settings.client_id)) {
      throw new Error(`${this.issuer} gave an identity that is not the answer to this sign-in. Begin it again.`);
    }
    return this.take(given, given.id_token);
  }

  async ask(fields) {
    const { token_endpoint: address } = await this.discover();
    const { resource } = Object.fromEntries(new URLSearchParams(this.settings.parameters));
    const body = new URLSearchParams({ client_id: this.settings.client_id, ...fields, ...(resource ? { resource } : {}) });
    return read(address, { method: "POST", body }, `${this.issuer} gave no token`);
  }

  take({ access_token: token, refresh_token: refresh }, identity) {
    if (typeof token !== "string" || token.split(".").length !== 3) {
      throw new Error(`${this.issuer} gave an access token that is no JSON Web Token, so the gateway cannot check it. It may need console.oidc_parameters, as in "resource=…" or "audience=…".`);
    }
    keep(RENEWS, { refresh: refresh ?? null, identity: identity ?? null, token });
    return token;
  }

  // Whether this token came from the issuer, and can be replaced without a question.
  canRenew(token) {
    const renews = kept(RENEWS);
    return Boolean(renews?.refresh) && renews.token === token;
  }

  // A newer token for this one. However many ask, the issuer is asked once: a refresh token is good for one use. Throws where
  // the issuer cannot be reached; null where it does not renew any more.
  renew(token) {
    this.renewing ??= this.renewOnce(token).finally(() => { this.renewing = null; });
    return this.renewing;
  }

  async renewOnce(token) {
    if (!this.canRenew(token) || !(await this.load())) return null;
    const { refresh, identity } = kept(RENEWS);
    try {
      const given = await this.ask({ grant_type: "refresh_token", refresh_token: refresh });
      return this.take({ refresh_token: refresh, ...given }, given.id_token ?? identity);
    } catch (error) {
      if (error.code === undefined) throw error;
      keep(RENEWS, null);
      return null;
    }
  }

  // Forgets everything, and tells the issuer that its refresh token is not used any more. Gives the address at which one
  // also signs out there; null where there is none.
  async end() {
    const renews = kept(RENEWS);
    keep(RENEWS, null);
    if (!renews || !(await this.load())) return null;
    const found = await this.discover();
    if (renews.refresh && found.revocation_endpoint) {
      const body = new URLSearchParams({ client_id: this.settings.client_id, token: renews.refresh, token_type_hint: "refresh_token" });
      fetch(found.revocation_endpoint, { method: "POST", body, credentials: "omit" }).catch(() => {});
    }
    if (!/^https?:/.test(found.end_session_endpoint ?? "")) return null;
    const address = new URL(found.end_session_endpoint);
    address.searchParams.set("client_id", this.settings.client_id);
    if (renews.identity) address.searchParams.set("id_token_hint", renews.identity);
    return address.href;
  }
}

export const oidc = new Oidc();
