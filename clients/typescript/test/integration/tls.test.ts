import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Session } from '../../src/worker/index.js';
import { job } from '../support/job.js';
import { until } from '../support/wait.js';
import { Fleet, Operator, type Process } from '../support/wheelhouse.js';

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
const folder = mkdtempSync(join(tmpdir(), 'wheelhouse-tls-'));
const caFile = join(folder, 'ca.pem');
let fleet: Fleet;
let worker: Process;
let operator: Operator;
let token: string;

function openssl(...words: string[]): void {
  execFileSync('openssl', words, { cwd: folder, stdio: 'ignore' });
}

beforeAll(async () => {
  openssl('req', '-x509', '-days', '2', '-subj', '/CN=a test', '-out', 'ca.pem', '-keyout', 'ca.key', ...KEY);
  openssl('req', '-x509', '-days', '2', '-subj', '/CN=other', '-out', 'other.pem', '-keyout', 'other.key', ...KEY);
  openssl('req', '-subj', '/CN=worker', '-out', 'server.csr', '-keyout', 'server.key', ...KEY);
  writeFileSync(join(folder, 'names'), 'subjectAltName=IP:127.0.0.1\n');
  const signing = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'names'];
  openssl('x509', '-req', '-in', 'server.csr', ...signing, '-out', 'server.pem');
  fleet = await Fleet.start();
  const [gateway, secure] = await Promise.all([fleet.gateway(), fleet.secureWorker(folder, readFileSync(caFile))]);
  worker = secure;
  operator = new Operator(gateway, await fleet.token('acme'));
  token = await fleet.workerToken('acme');
});

afterAll(async () => {
  await fleet?.stop();
  rmSync(folder, { recursive: true, force: true });
});

it('runs a job over TLS where the authority is named', async () => {
  for (const scheme of ['https', 'wss']) {
    const session = new Session({ url: worker.url.replace('https', scheme), token, caFile });
    await expect(job('acme', `named-${scheme}`, { session }, () => 'done')).resolves.toBe('done');
    await operator.inStatus(`named-${scheme}`, 'completed');
    await session.close();
  }
});

it('believes nobody whom no named authority has signed, and says so', async () => {
  writeFileSync(join(folder, 'empty.pem'), 'no certificate');
  for (const [own, words] of [
    [undefined, 'cannot be reached'],
    [join(folder, 'other.pem'), 'cannot be reached'],
    [join(folder, 'empty.pem'), 'no certificate in PEM'],
    [join(folder, 'missing.pem'), 'cannot be read'],
  ] as const) {
    const warnings: string[] = [];
    const session = new Session({ url: worker.url, token, caFile: own, onWarning: (text) => warnings.push(text) });
    const ended = job('acme', 'not-believed', { session }, () => 'never');
    await until(() => warnings.some((text) => text.includes(words)), words);
    await session.close();
    await expect(ended).rejects.toThrow();
  }
  expect(await operator.row('not-believed')).toBeUndefined();
});
