import { readFile } from 'node:fs/promises';

/** Where the worker is and who this process is. */
export interface WorkerSettings {
  /** Address of the worker (its `worker.listen`), `http://…` or `https://…`. Default: `WHEELHOUSE_URL`. */
  url?: string;
  /**
   * A worker token, or a function that gives one for each new connection. Default: `WHEELHOUSE_TOKEN`, or the file that
   * `WHEELHOUSE_TOKEN_FILE` names, which is read for each connection.
   */
  token?: string | (() => string | Promise<string>);
  /**
   * PEM file of the authorities that may have signed the worker's certificate, in place of those that Node knows. It is
   * read for each connection. Default: `WHEELHOUSE_CA_FILE`.
   */
  caFile?: string;
  /** This process's name for people. Default: `node@` and the host's name. */
  name?: string;
}

/** The pattern of tenant, job and campaign ids. */
export const ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** The address of the worker's endpoint. Throws an `Error` whose message names the setting that is missing or wrong. */
export function endpoint(url: string | undefined): URL {
  const text = url ?? process.env.WHEELHOUSE_URL;
  if (!text) {
    throw new Error(
      "No Wheelhouse worker is known: set WHEELHOUSE_URL to the http(s) address of the worker's `worker.listen`.",
    );
  }
  let base: URL;
  try {
    base = new URL(text);
  } catch {
    throw new Error(`WHEELHOUSE_URL is no address: "${text}". Give one such as http://127.0.0.1:8100.`);
  }
  base.protocol = base.protocol.replace(/^ws/, 'http');
  if (base.protocol !== 'http:' && base.protocol !== 'https:') {
    throw new Error(`WHEELHOUSE_URL begins with "${base.protocol}": it takes http: or https:.`);
  }
  base.pathname = `${base.pathname.replace(/\/+$/, '')}/api/v1/worker/ws`;
  base.search = '';
  base.hash = '';
  return base;
}

/** The token for a new connection. Throws an `Error` if there is none. */
export async function currentToken(token: WorkerSettings['token']): Promise<string> {
  const { WHEELHOUSE_TOKEN, WHEELHOUSE_TOKEN_FILE } = process.env;
  let text = typeof token === 'function' ? await token() : (token ?? WHEELHOUSE_TOKEN);
  if (!text && WHEELHOUSE_TOKEN_FILE) text = (await readFile(WHEELHOUSE_TOKEN_FILE, 'utf8')).trim();
  if (text) return text;
  throw new Error(
    'No worker token: set WHEELHOUSE_TOKEN to what `wheelhouse token --worker NAME --tenants …` prints, ' +
      'or WHEELHOUSE_TOKEN_FILE to a file that has it.',
  );
}

/**
 * The authorities that may have signed the worker's certificate; `undefined`: those that Node knows. Throws an `Error`
 * whose message names the file where it cannot be read.
 */
export async function authorities(url: URL, caFile: string | undefined): Promise<Buffer | undefined> {
  const file = caFile ?? process.env.WHEELHOUSE_CA_FILE;
  if (!file || url.protocol !== 'https:') return undefined;
  const refuse = (why: string) => new Error(`WHEELHOUSE_CA_FILE (or caFile) is "${file}": ${why}.`);
  const pem = await readFile(file).catch((error: Error) => {
    throw refuse(`it cannot be read (${error.message})`);
  });
  // Node takes text without a certificate in silence, and then believes nobody.
  if (!pem.includes('-----BEGIN CERTIFICATE-----')) throw refuse('it holds no certificate in PEM');
  return pem;
}
