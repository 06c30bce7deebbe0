// The token: taken out of the address at once, kept in this tab only, and never written anywhere else.

const KEPT = "wheelhouse.token";

// From `?token=` or `#token=`. The address bar, the history and a copied link lose it before anything else
// happens. The rest of the address stays.
function fromAddress() {
  const url = new URL(location.href);
  const fragment = new URLSearchParams(url.hash.slice(1));
  const token = url.searchParams.get("token") ?? fragment.get("token");
  if (token === null) return null;
  url.searchParams.delete("token");
  fragment.delete("token");
  url.hash = fragment.toString();
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

export const session = {
  token: null,
  me: null,
  // False from the moment the gateway refused the token until there is a new one.
  usable: true,
  // Looks for a token; true where there is one.
  begin() {
    const given = fromAddress();
    this.set(given !== null ? clean(given) : kept());
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
  expiresIn(now = Date.now()) {
    return typeof this.me?.expires_at === "number" ? this.me.expires_at * 1000 - now : Infinity;
  },
};
