// Who uses this tab: the form for a token, links that bring one, and a token that the gateway does not take any more.

import { byId, setText } from "./dom.js";
import { clean, describeToken, session } from "./session.js";

// Asks the gateway whose a token is, before anything is done with it.
async function whoIs(token) {
  let answer;
  try {
    answer = await fetch("/api/v1/me", { headers: { Authorization: `Bearer ${token}` }, cache: "no-store", credentials: "omit" });
  } catch {
    throw new Error("The token could not be checked: the gateway cannot be reached. Try again.");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(answer.status === 401 ? body.message : `The token could not be checked: ${body.message ?? answer.status}. Try again.`);
  return body;
}

export class SignIn {
  // `on`: begin(me, isSame), out(), changed()
  constructor(on) {
    this.on = on;
    this.waiting = [];
    byId("sign-in").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
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
  token(reason) {
    if (reason === "connect" && session.usable) return session.token;
    const refused = session.token;
    session.usable = false;
    this.ask("Your token is not taken any more. Paste a new one to go on.");
    return new Promise((resolve) => this.waiting.push({ resolve, refused }));
  }

  // What is on the page stays: an operator in the middle of something must not lose sight of it.
  ask(why, isOptional = false) {
    setText(byId("sign-in-why"), why);
    setText(byId("sign-in-error"), "");
    byId("sign-in").hidden = false;
    byId("sign-in-cancel").hidden = !isOptional;
    this.on.changed();
    byId("token").focus();
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

  // A link brought a token while somebody is signed in.
  offer() {
    const dialog = byId("replace");
    if (!session.offered || dialog.open) return;
    setText(byId("replace-now"), describeToken(session.token));
    setText(byId("replace-by"), describeToken(session.offered));
    dialog.returnValue = "";
    dialog.showModal();
  }
}
