import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WebSocket } from 'ws';
import { until } from './wait.js';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];

/** A headless Chromium with one page, driven over its DevTools protocol. */
export class Chromium {
  #asked = 0;
  #session: string | undefined;
  readonly #answers = new Map<number, (answer: { result?: unknown; error?: unknown }) => void>();

  private constructor(
    private readonly process: ChildProcess,
    private readonly profile: string,
    private readonly tools: WebSocket,
  ) {
    tools.on('message', (data) => {
      const answer = JSON.parse(String(data));
      this.#answers.get(answer.id)?.(answer);
    });
  }

  static async open(url: string): Promise<Chromium> {
    const profile = mkdtempSync(join(tmpdir(), 'wheelhouse-chromium-'));
    const paths = (process.env.PATH ?? '').split(':').flatMap((folder) => NAMES.map((name) => join(folder, name)));
    const program = paths.find(existsSync);
    if (!program)
      throw new Error('no Chromium is here: install it with `make deps` (Debian: apt-get install chromium)');
    const child = spawn(
      program,
      [
        ...['--headless', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--no-sandbox'],
        ...[
          '--disable-background-networking',
          '--remote-debugging-port=0',
          `--user-data-dir=${profile}`,
          'about:blank',
        ],
      ],
      { stdio: 'ignore', detached: true },
    );
    const port = join(profile, 'DevToolsActivePort');
    const listens = () => existsSync(port) && readFileSync(port, 'utf8').trim().split('\n');
    await until(() => (listens() || []).length === 2, 'Chromium listens');
    const [number, path] = listens() as string[];
    const tools = new WebSocket(`ws://127.0.0.1:${number}${path}`);
    await new Promise((resolve) => tools.once('open', resolve));
    const browser = new Chromium(child, profile, tools);
    const { targetId } = await browser.#ask<{ targetId: string }>('Target.createTarget', { url: 'about:blank' });
    const attached = { targetId, flatten: true };
    browser.#session = (await browser.#ask<{ sessionId: string }>('Target.attachToTarget', attached)).sessionId;
    await browser.#ask('Page.navigate', { url });
    return browser;
  }

  /** What a JavaScript expression gives on the page. */
  async eval<T>(expression: string): Promise<T> {
    const asked = { expression, returnByValue: true, awaitPromise: true };
    const { result } = await this.#ask<{ result: { value: T } }>('Runtime.evaluate', asked);
    return result.value;
  }

  /** How wide the page is, whether its reader wants it dark, and whether in colours of the reader's own. */
  async looks(width: number, scheme: 'light' | 'dark', forced = false): Promise<void> {
    await this.#ask('Emulation.setDeviceMetricsOverride', { width, height: 900, deviceScaleFactor: 1, mobile: false });
    const features = [
      { name: 'prefers-color-scheme', value: scheme },
      { name: 'forced-colors', value: forced ? 'active' : 'none' },
    ];
    await this.#ask('Emulation.setEmulatedMedia', { features });
  }

  async navigate(url: string): Promise<void> {
    await this.#ask('Page.navigate', { url });
  }

  /** A script that runs in each new page before its own. */
  async before(source: string): Promise<void> {
    await this.#ask('Page.enable', {});
    await this.#ask('Page.addScriptToEvaluateOnNewDocument', { source });
  }

  /** What the page takes, once nothing is kept that could go. */
  async memory(): Promise<{ heapBytes: number; nodes: number }> {
    await this.#ask('HeapProfiler.collectGarbage', {});
    const { usedSize } = await this.#ask<{ usedSize: number }>('Runtime.getHeapUsage', {});
    return { heapBytes: usedSize, nodes: (await this.#metrics()).get('Nodes') ?? 0 };
  }

  /** Milliseconds of processor time that the page's thread has taken so far: what others do on the machine is not in it. */
  async cpu(): Promise<{ all: number; script: number; layout: number; style: number }> {
    const metrics = await this.#metrics();
    const ms = (name: string) => (metrics.get(name) ?? 0) * 1_000;
    return {
      all: ms('TaskDuration'),
      script: ms('ScriptDuration'),
      layout: ms('LayoutDuration'),
      style: ms('RecalcStyleDuration'),
    };
  }

  async #metrics(): Promise<Map<string, number>> {
    await this.#ask('Performance.enable', { timeDomain: 'threadTicks' });
    const { metrics } = await this.#ask<{ metrics: { name: string; value: number }[] }>('Performance.getMetrics', {});
    return new Map(metrics.map(({ name, value }) => [name, value]));
  }

  /** The page as it looks, as a PNG. */
  async picture(): Promise<Buffer> {
    const { data } = await this.#ask<{ data: string }>('Page.captureScreenshot', { format: 'png' });
    return Buffer.from(data, 'base64');
  }

  /** Waits until the page shows a text. */
  async shows(text: string): Promise<void> {
    const shown = () => this.eval<boolean>(`document.body.innerText.includes(${JSON.stringify(text)})`);
    await until(shown, `the page shows "${text}"`, 20_000).catch(async (error: Error) => {
      throw new Error(`${error.message}; it shows: ${await this.eval('document.body.innerText')}`);
    });
  }

  /** Presses the button with exactly this text. */
  async press(text: string): Promise<void> {
    const found = `[...document.querySelectorAll('button')].find((b) => b.innerText === ${JSON.stringify(text)})`;
    await until(() => this.eval<boolean>(`(() => { const b = ${found}; b?.click(); return Boolean(b); })()`), text);
  }

  /** Presses a key, as a hand does: the browser moves the focus, and follows a link or presses a button by itself. */
  async key(key: string): Promise<void> {
    const text = key === 'Enter' ? '\r' : key.length === 1 ? key : undefined;
    const code = key === 'Tab' ? 9 : key === 'Enter' ? 13 : key === 'Escape' ? 27 : key.toUpperCase().charCodeAt(0);
    const asked = { key, code: key.length === 1 ? `Key${key.toUpperCase()}` : key, windowsVirtualKeyCode: code };
    await this.#ask('Input.dispatchKeyEvent', { type: text ? 'keyDown' : 'rawKeyDown', ...asked, text });
    await this.#ask('Input.dispatchKeyEvent', { type: 'keyUp', ...asked });
  }

  async close(): Promise<void> {
    this.tools.terminate();
    const gone = new Promise((resolve) => this.process.once('exit', resolve));
    if (this.process.pid) process.kill(-this.process.pid, 'SIGKILL');
    await gone;
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }

  #ask<T>(method: string, params: object): Promise<T> {
    this.#asked += 1;
    const id = this.#asked;
    this.tools.send(JSON.stringify({ id, method, params, sessionId: this.#session }));
    return new Promise((resolve, reject) => {
      this.#answers.set(id, ({ result, error }) => {
        this.#answers.delete(id);
        if (error) reject(new Error(`${method}: ${JSON.stringify(error)}`));
        else resolve(result as T);
      });
    });
  }
}
