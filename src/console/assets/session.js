// The token: taken out of the address at once, kept in this tab only, and never written anywhere else.

const KEPT = "wheelhouse.token";

// From `?token=` or `#token=`. The address bar, the history and a copied link lose it before anything else
// happens. The rest of the address stays.
function fromAddress() {
  const url = new URL(location.href);
  const hash = url.hash.slice(1);
  // Behind the # stands a page of the console, or nothing but the token.
  const [page, text] = hash.startsWith("/") ? hash.split("?") : ["", hash];
  const fields = new URLSearchParams(text ?? "");
  const token = url.searchParams.get("token") ?? fields.get("token");
  if (token === null) return null;
  url.searchParams.delete("token");
  fields.delete("token");
  url.hash = page + (page && fields.size > 0 ? "?" : "") + fields;
  history.replaceState(null, "", url.pathname + url.search + url.hash);
  return token;
}

// What people paste: with "Bearer", in quotes, over several lines.
export function clean(text) {
  return text.replace(/\s+/g, " ").trim().replace(/^authorization:\s*/i, "").replace(/^bearer\s+/i, "")
    .replace(/^["']|["']$/g, "").replace(/\s/g, "");
}

// Storage can be forbidden by the browser's settings; the token then lives as long as the page.
function keep(token) {
  try {
    if (token === null) sessionStorage.removeItem(KEPT);
    else sessionStorage.setItem(KEPT, token);
  } catch { /* only memory, then */ }
}

function kept() {
  try {
    return sessionStorage.getItem(KEPT);
  } catch {
    return null;
  }
}

// What a token says of itself, which is for the gateway to believe or not.
export function claims(token) {
  try {
    const letters = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(letters), (c) => c.charCodeAt(0)))) ?? {};
  } catch {
    return {};
  }
}

// Whose a token says it is, in words.
export function describeToken(token) {
  const { sub, tenant_id: tenant } = claims(token);
  return typeof sub === "string" && typeof tenant === "string" ? `${sub} in ${tenant}` : "a token that cannot be read";
}

export const session = {
  token: null,
  // From a link, while somebody else is signed in: it takes that person's word to use it.
  offered: null,
  me: null,
  // False from the moment the gateway refused the token until there is a new one.
  usable: true,
  // Looks for a token; true where there is one. Whoever makes somebody open a link must not sign them in as another
  // by it: a command meant for the own tenant would go to the other. So a link's token is only offered beside one that is
  // good.
  begin() {
    const given = fromAddress();
    const before = this.token ?? kept();
    const link = given === null ? null : clean(given);
    const signedIn = Boolean(before) && this.usable && !(claims(before).exp * 1000 <= Date.now());
    this.offered = link && signedIn && link !== before ? link : null;
    this.set(link !== null && !(signedIn && (this.offered || !link)) ? link : before);
    return this.token !== null;
  },
  set(token) {
    this.token = token || null;
    keep(this.token);
  },
  end() {
    this.set(null);
    this.me = null;
  },
  // Whether the permission is held, as far as the gateway told; unknown counts as held.
  may(kind, action) {
    const held = this.me?.permissions;
    if (!Array.isArray(held)) return true;
    return held.some((p) => p === "*" || p === `${kind}s.*` || p === `${kind}s.${action}`);
  },
  // The same of any permission, such as "audit.read".
  holds(permission) {
    const held = this.me?.permissions;
    return !Array.isArray(held) || held.some((p) => p === "*" || p === permission || p === permission.replace(/\..*/, ".*"));
  },
  expiresIn(now = Date.now()) {
    return typeof this.me?.expires_at === "number" ? this.me.expires_at * 1000 - now : Infinity;
  },
};
