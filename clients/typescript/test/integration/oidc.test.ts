import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Chromium } from '../support/chromium.js';
import { freePort } from '../support/redis.js';
import { until } from '../support/wait.js';
import { Fleet, type Process } from '../support/wheelhouse.js';

let fleet: Fleet;
let gateway: Process;
let provider: ChildProcess;
let browser: Chromium;
let issuer: string;
/** What the provider has said. */
const said: string[] = [];

beforeAll(async () => {
  fleet = await Fleet.start();
  const [port, own] = [await freePort(), await freePort()];
  issuer = `http://127.0.0.1:${port}`;
  const program = fileURLToPath(new URL('../support/oidc-provider.mjs', import.meta.url));
  provider = spawn(process.execPath, [program, String(port), `http://127.0.0.1:${own}/`], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  createInterface({ input: provider.stdout as NodeJS.ReadableStream }).on('line', (line) => said.push(line));
  await until(() => said.includes('ready'), 'the provider is ready');
  gateway = await fleet.gateway(own, {
    WHEELHOUSE__AUTH__ISSUER: issuer,
    WHEELHOUSE__AUTH__AUDIENCE: 'wheelhouse',
    WHEELHOUSE__AUTH__JWKS_URL: `${issuer}/jwks`,
    WHEELHOUSE__CONSOLE__OIDC_CLIENT_ID: 'console',
    WHEELHOUSE__CONSOLE__OIDC_SCOPES: 'openid offline_access',
    WHEELHOUSE__CONSOLE__OIDC_PARAMETERS: 'resource=urn:wheelhouse',
  });
  browser = await Chromium.open(`${gateway.url}/#/jobs?status=paused`);
}, 300_000);

afterAll(async () => {
  await browser?.close();
  provider?.kill('SIGKILL');
  await fleet?.stop();
});

const shown = (expression: string, what: string) =>
  until(() => browser.eval<boolean>(expression).catch(() => false), what, 120_000);
const begin = `Sign in with ${'127.0.0.1'}`;

async function toTheIssuer(): Promise<void> {
  await shown(
    `(() => { const b = document.getElementById('oidc-begin'); const is = b?.checkVisibility() && b.innerText.startsWith('${begin}'); if (is) b.click(); return Boolean(is); })()`,
    'the console offers the issuer',
  );
  await shown(`location.origin === '${issuer}'`, "the issuer's page is open");
}

/** The provider's own pages: who one is, and whether the console may know. */
async function signInAs(user: string): Promise<void> {
  await shown(
    `(() => { const field = document.querySelector('input[name=login]'); if (!field) return false; field.value = '${user}';
      document.querySelector('input[name=password]').value = 'x'; field.form.submit(); return true; })()`,
    'the issuer asks who one is',
  );
  await shown(
    `(() => { const form = [...document.forms].find((form) => !form.login && /interaction/.test(form.action)); form?.submit(); return Boolean(form); })()`,
    'the issuer asks for consent',
  );
  await shown(`location.origin === '${gateway.url}'`, 'the console is open again');
}

it('signs somebody in with a code and PKCE, renews the token without a break, and signs them out', async () => {
  await toTheIssuer();
  const asked = new URL(await browser.eval<string>('document.referrer || location.href'));
  expect(asked.origin).toBe(issuer);
  await signInAs('ann');
  await browser.shows('Live');
  await browser.shows('ann in acme');
  // Where one was, and with nothing of the answer in the address.
  expect(await browser.eval('location.href')).toBe(`${gateway.url}/#/jobs?status=paused`);
  expect(said.filter((line) => line.startsWith('granted'))).toEqual(['granted authorization_code']);
  const token = await browser.eval<string>("sessionStorage.getItem('wheelhouse.token')");
  expect(await browser.eval('JSON.stringify({ ...localStorage }) + document.cookie')).toBe('{}');

  // A minute before its end there is another, on the same socket.
  await browser.eval(`(() => { window.states = []; const node = document.getElementById('connection');
    new MutationObserver(() => window.states.push(node.dataset.state)).observe(node, { attributes: true, childList: true }); })()`);
  await until(() => said.includes('granted refresh_token'), 'the token is renewed', 120_000);
  await shown(`sessionStorage.getItem('wheelhouse.token') !== ${JSON.stringify(token)}`, 'there is a new token');
  await browser.shows('Live');
  expect(await browser.eval<string[]>('window.states.filter((state) => state !== "live")')).toEqual([]);
  // A reload needs no question either.
  await browser.eval('window.isOld = true; location.reload()');
  await shown(
    "!window.isOld && document.getElementById('connection')?.innerText.trim() === 'Live'",
    'it is live again',
  );
  expect(said.filter((line) => line === 'granted authorization_code')).toHaveLength(1);

  await browser.press('Sign out');
  await browser.shows('You are signed out.');
  await until(() => said.includes('revoked'), 'the refresh token is revoked');
  expect(await browser.eval('Object.keys({ ...sessionStorage }).length')).toBe(0);
  await shown(
    `document.getElementById('oidc-end').checkVisibility() && document.getElementById('oidc-end').href.startsWith('${issuer}/session/end?client_id=console')`,
    'one can sign out there, too',
  );
}, 300_000);

it('takes no answer that it did not ask for, and says why the issuer or the gateway refused', async () => {
  await browser.eval("location.assign('/?code=of-somebody-else&state=made-up#/jobs')");
  await browser.shows('This sign-in was not begun in this tab');
  expect(await browser.eval('location.search')).toBe('');

  // Declined: what the issuer answers to what this tab asked.
  await toTheIssuer();
  await shown(
    `(() => { const link = [...document.querySelectorAll('a')].find((a) => /abort/.test(a.href)); link?.click(); return Boolean(link); })()`,
    'one can decline',
  );
  await browser.shows('did not sign you in: it was declined there');

  // Somebody whom the issuer knows, and the gateway does not.
  await browser.eval(`location.assign('${issuer}/session/end')`);
  await shown('Boolean(document.forms[0]?.elements.logout)', 'one can sign out there');
  await browser.eval('document.forms[0].elements.logout.click()');
  await shown('/success/.test(location.href)', 'one is signed out there');
  await browser.eval(`location.assign('${gateway.url}/')`);
  await toTheIssuer();
  await signInAs('stranger');
  await browser.shows('the gateway does not take its token');
  await browser.shows('tenant_id');
  expect(await browser.eval("sessionStorage.getItem('wheelhouse.token')")).toBe(null);
}, 300_000);
