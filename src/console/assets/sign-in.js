// Who uses this tab: the form for a token or the way to the issuer, links that bring a token, and a token that the gateway
// does not take any more.

import { byId, openDialog, setAttribute, setText } from "./dom.js";
import { oidc } from "./oidc.js";
import { clean, describeToken, session } from "./session.js";

const AT_MOST_EVERY = 10_000;

// Asks the gateway whose a token is, before anything is done with it.
async function whoIs(token, what = "The token could not be checked") {
  let answer;
  try {
    answer = await fetch("/api/v1/me", { headers: { Authorization: `Bearer ${token}` }, cache: "no-store", credentials: "omit" });
  } catch {
    throw new Error(`${what}: the gateway cannot be reached. Try again.`);
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(answer.status === 401 && what.startsWith("The token") ? body.message : `${what}: ${body.message ?? answer.status}`);
  return body;
}

export class SignIn {
  // `on`: begin(me, isSame), out(), changed()
  constructor(on) {
    this.on = on;
    this.waiting = [];
    this.renewedAt = 0;
    byId("sign-in").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    byId("oidc-begin").addEventListener("click", () => this.leave());
    byId("sign-in-cancel").addEventListener("click", () => {
      byId("sign-in").hidden = true;
      byId("token").value = "";
    });
    byId("replace").addEventListener("close", () => {
      const token = session.offered;
      session.offered = null;
      if (byId("replace").returnValue !== "replace" || !token) return;
      session.set(token);
      on.begin(null, false);
    });
  }

  // For the client: the token, or, where that one is refused, the one that is to come.
  async token(reason) {
    if (reason === "connect" && session.usable) return session.token;
    const old = session.token;
    // A gateway tells of the end a minute before: tokens that last no longer must not be asked for without a pause.
    if (reason === "expiring" && Date.now() - this.renewedAt < AT_MOST_EVERY) return old;
    const renewed = await this.renew();
    if (renewed || reason === "expiring") return renewed ?? old;
    session.usable = false;
    this.ask("You are not signed in any more: sign in again to go on.");
    return new Promise((resolve) => this.waiting.push({ resolve }));
  }

  // A newer token from the issuer, without a question; null where there is none to be had. Throws where the issuer cannot be
  // reached: then the client asks again.
  async renew() {
    const old = session.token;
    const token = await oidc.renew(old);
    // Somebody may have signed in, or out, meanwhile.
    if (!token || session.token !== old) return null;
    this.renewedAt = Date.now();
    session.set(token);
    return token;
  }

  // To the issuer's page. What is shown here comes back with the address.
  async leave() {
    setText(byId("oidc-error"), "");
    setAttribute(byId("oidc-begin"), "aria-busy", "true");
    try {
      await oidc.begin();
    } catch (error) {
      setText(byId("oidc-error"), error.message);
    }
    setAttribute(byId("oidc-begin"), "aria-busy", null);
  }

  // Back from the issuer's page: true where somebody is signed in now.
  async arrive(answer) {
    try {
      await oidc.load();
      if (!oidc.settings) throw new Error("This console signs in with tokens only.");
      const token = await oidc.finish(answer);
      session.me = await whoIs(token, `You are signed in at ${oidc.issuer}, and the gateway does not take its token`);
      session.set(token);
      session.usable = true;
      return true;
    } catch (error) {
      this.ask("");
      setText(byId("oidc-error"), error.message);
      return false;
    }
  }

  async offerIssuer() {
    try {
      await oidc.load();
    } catch (error) {
      return setText(byId("oidc-error"), error.message);
    }
    const has = Boolean(oidc.settings);
    setAttribute(byId("oidc"), "hidden", !has);
    setAttribute(byId("oidc-or"), "hidden", !has);
    if (!has) return undefined;
    setText(byId("oidc-begin"), `Sign in with ${oidc.issuer}`);
    // A field that nobody needs should not have the focus; nor should somebody lose it who has begun to type.
    if (byId("token").value === "" && !byId("sign-in").hidden) byId("oidc-begin").focus();
    return undefined;
  }

  // What is on the page stays: an operator in the middle of something must not lose sight of it.
  ask(why, isOptional = false) {
    setText(byId("sign-in-why"), why);
    setText(byId("sign-in-error"), "");
    setText(byId("oidc-error"), "");
    byId("oidc-out").hidden = true;
    byId("sign-in").hidden = false;
    byId("sign-in-cancel").hidden = !isOptional;
    this.on.changed();
    byId("token").focus();
    this.offerIssuer();
  }

  get isOpen() {
    return !byId("sign-in").hidden && byId("sign-in-cancel").hidden;
  }

  async submit() {
    const fail = (text) => {
      setText(byId("sign-in-error"), text);
      byId("token").focus();
    };
    const token = clean(byId("token").value);
    if (token.split(".").length !== 3) return fail("This is not a token: it has three parts with two dots between.");
    let me;
    try {
      me = await whoIs(token);
    } catch (error) {
      return fail(error.message);
    }
    byId("token").value = "";
    byId("sign-in").hidden = true;
    const isSame = session.me?.user_id === me.user_id && session.me?.tenant_id === me.tenant_id;
    session.set(token);
    session.usable = true;
    // The same user: what waits for a token goes on with it, commands that are on their way among it.
    const waiting = this.waiting.splice(0);
    if (isSame && waiting.length > 0) for (const { resolve } of waiting) resolve(token);
    this.on.begin(me, isSame && waiting.length > 0);
    return undefined;
  }

  // Nobody is signed in here any more; at the issuer, perhaps.
  async end() {
    this.ask("You are signed out.");
    const there = await oidc.end().catch(() => null);
    byId("oidc-out").hidden = there === null;
    if (there) byId("oidc-end").href = there;
  }

  // A link brought a token while somebody is signed in.
  offer() {
    const dialog = byId("replace");
    if (!session.offered || dialog.open) return;
    setText(byId("replace-now"), describeToken(session.token));
    setText(byId("replace-by"), describeToken(session.offered));
    dialog.returnValue = "";
    openDialog(dialog);
  }
}
