import { type Control, job, Session } from '../../src/worker/index.js';
import { Chromium } from './chromium.js';
import { elapse, until } from './wait.js';
import { Fleet } from './wheelhouse.js';

export const JOBS = 10_000;
export const UPDATES_PER_SECOND = 200;
/** Those that run, in a real process; the others wait in campaigns. Each tells no more than four times a second. */
const RUNNING = 400;
const JOBS_PER_CAMPAIGN = 1_200;
const TICK = 50;

interface Ranks {
  p50: number;
  p95: number;
  p99: number;
  most: number;
}

/** What scrolling through the list was like. Times in milliseconds. */
export interface Scrolled {
  frames: number;
  /** Between two frames. */
  interval: Ranks;
  /** The page's share of each, from the frame's first script to the end of its layout and paint. */
  work: Ranks;
  /** Processor time of the page's thread for each frame, and how much of it was the console's own code. */
  cpu: number;
  script: number;
  /** Rows that were in the page at most, and how often one frame drew a row at most. */
  rows: number;
  drawn: number;
}

/** The page "Jobs" with ten thousand jobs, of which two hundred a second change. */
export class ManyJobs {
  readonly #controls: Control[] = [];
  #isOver = false;
  #ended: Promise<unknown> = Promise.resolve();
  #timer: ReturnType<typeof setInterval> | undefined;

  private constructor(
    private readonly fleet: Fleet,
    readonly browser: Chromium,
    private readonly session: Session,
    private readonly gateway: string,
    private readonly token: string,
  ) {}

  static async start(): Promise<ManyJobs> {
    const fleet = await Fleet.start();
    const [gateway, worker] = await Promise.all([fleet.gateway(), fleet.worker()]);
    const [token, workerToken] = await Promise.all([fleet.token('acme'), fleet.workerToken('acme')]);
    const session = new Session({ url: worker.url, token: workerToken, onWarning: () => {} });
    const browser = await Chromium.open('about:blank');
    await browser.looks(1400, 'light');
    await browser.before(WATCH);
    const many = new ManyJobs(fleet, browser, session, gateway.url, token);
    await many.#waiting();
    await many.#running();
    return many;
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.browser.close();
    this.#isOver = true;
    await this.session.close();
    await this.fleet.stop();
    await this.#ended;
  }

  /** Opens the page; milliseconds from the beginning until the first row is there. */
  async open(): Promise<number> {
    await this.browser.navigate('about:blank');
    await this.browser.navigate(`${this.gateway}/?token=${this.token}#/jobs`);
    const there = () => this.browser.eval<boolean>('typeof window.firstRow === "number"').catch(() => false);
    await until(there, 'the first row');
    await this.browser.shows('Live');
    return this.browser.eval<number>('window.firstRow');
  }

  /** Down to the last of the ten thousand, page after page. */
  async loadAll(): Promise<void> {
    const end = `(() => { scrollTo(0, document.documentElement.scrollHeight);
      return document.querySelector('.bulk .count').innerText === '${JOBS.toLocaleString('en')} jobs'; })()`;
    await until(() => this.browser.eval<boolean>(end), 'all are loaded', 100_000);
  }

  /** From now on so many of the running jobs tell each second how far they are. */
  update(): void {
    const begun = Date.now();
    let told = 0;
    this.#timer = setInterval(() => {
      const due = ((Date.now() - begun) / 1_000) * UPDATES_PER_SECOND;
      for (; told < due; told++) this.#controls[told % RUNNING]?.progress({ done: told, total: 1_000_000 });
    }, TICK);
  }

  /** How many updates have reached the page. */
  received(): Promise<number> {
    return this.browser.eval<number>('window.received');
  }

  /** Scrolls for so many frames, or until it is enough: up and down through the list, or through its first `reach` pixels. */
  async scroll(frames: number, reach = Number.MAX_SAFE_INTEGER): Promise<Scrolled> {
    const before = await this.browser.cpu();
    const scrolled = await this.browser.eval<Scrolled>(`(${SCROLL})(${frames}, ${reach})`);
    const after = await this.browser.cpu();
    const each = (ms: number) => Math.round((ms / scrolled.frames) * 10) / 10;
    return { ...scrolled, cpu: each(after.all - before.all), script: each(after.script - before.script) };
  }

  /** Ends the scrolling. */
  async enough(): Promise<void> {
    await this.browser.eval('void (window.enough = true)');
  }

  /** The ids of the first rows that are shown. */
  first(): Promise<string[]> {
    return this.browser.eval<string[]>(
      `[...document.querySelectorAll('.rows .row')]
        .sort((one, other) => one.getAttribute('aria-posinset') - other.getAttribute('aria-posinset'))
        .map((row) => row.row.item.id)`,
    );
  }

  /** A command by another operator, over HTTP, until its result. */
  async command(id: string, action: 'pause' | 'resume'): Promise<void> {
    await this.#post(`jobs/${id}/${action}?wait=60`, {});
  }

  async #waiting(): Promise<void> {
    for (let campaign = 0; campaign < (JOBS - RUNNING) / JOBS_PER_CAMPAIGN; campaign++) {
      const jobs = Array.from({ length: JOBS_PER_CAMPAIGN }, (_, part) => ({
        id: `waits-${campaign}-${part}`,
        job_type: 'nobody-knows',
        title: `Import of part ${part} of ${campaign}`,
      }));
      await this.#post('campaigns', { id: `campaign-${campaign}`, name: `Import ${campaign}`, jobs });
    }
  }

  async #running(): Promise<void> {
    const works = Array.from({ length: RUNNING }, (_, n) => {
      const options = { session: this.session, title: `Export of shop ${n}` };
      return job('acme', `runs-${n}`, options, async (control) => {
        this.#controls.push(control);
        while (!this.#isOver) {
          await control.checkpoint();
          await elapse(200);
        }
      });
    });
    this.#ended = Promise.allSettled(works);
    await until(() => this.#controls.length === RUNNING, 'all of them run');
  }

  async #post(path: string, body: object): Promise<void> {
    const headers = { Authorization: `Bearer ${this.token}`, 'Content-Type': 'application/json' };
    const answer = await fetch(`${this.gateway}/api/v1/${path}`, {
      method: 'POST',
      headers,
      body: JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(`${path}: ${await answer.text()}`);
  }
}

/** Notes when the first row is there, and counts what comes. */
const WATCH = `
new MutationObserver((_, observer) => {
  if (!document.querySelector('.rows .row .title-text')) return;
  observer.disconnect();
  window.firstRow = performance.now();
}).observe(document, { childList: true, subtree: true });
window.received = 0;
window.WebSocket = class extends WebSocket {
  constructor(...given) {
    super(...given);
    this.addEventListener('message', ({ data }) => {
      if (data.includes('"job_progress"')) window.received += 1;
    });
  }
};`;

/** A function of the page, as text: nothing of this file is there. */
const SCROLL = `function (frames, reach) {
  const rows = () => document.querySelectorAll('.rows .row');
  const kind = Object.getPrototypeOf(rows()[0].row);
  const update = kind.update;
  let drawn = 0;
  kind.update = function () {
    drawn += 1;
    return update.apply(this, arguments);
  };
  const intervals = [];
  const work = [];
  const most = { rows: 0, drawn: 0 };
  const rank = (values) => {
    const sorted = [...values].sort((a, b) => a - b);
    const at = (share) => Math.round((sorted[Math.ceil(sorted.length * share) - 1] ?? 0) * 10) / 10;
    return { p50: at(0.5), p95: at(0.95), p99: at(0.99), most: at(1) };
  };
  scrollTo(0, 0);
  window.enough = false;
  return new Promise((resolve) => {
    let last = performance.now();
    let count = 0;
    let step = 60;
    const frame = () => {
      const now = performance.now();
      if (count > 0) intervals.push(now - last);
      last = now;
      most.rows = Math.max(most.rows, rows().length);
      most.drawn = Math.max(most.drawn, drawn);
      drawn = 0;
      count += 1;
      if (count > frames || window.enough) {
        kind.update = update;
        resolve({ frames: work.length, interval: rank(intervals), work: rank(work), rows: most.rows, drawn: most.drawn });
        return;
      }
      const end = Math.min(reach, document.documentElement.scrollHeight - innerHeight - 1);
      if (scrollY <= 0 && count > 1) step = 60;
      else if (scrollY >= end) step = -60;
      // A wheel's step, and now and then a jump, as with the scroll bar.
      scrollBy(0, count % 50 === 0 && end > 100_000 ? 40 * step : step);
      requestAnimationFrame(frame);
      // The next task comes after this frame's scripts, layout and paint.
      const after = new MessageChannel();
      after.port1.onmessage = () => work.push(performance.now() - now);
      after.port2.postMessage(0);
    };
    requestAnimationFrame(frame);
  });
}`;
