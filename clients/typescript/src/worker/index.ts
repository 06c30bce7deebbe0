/** Puts any work of a Node process under Wheelhouse's control. */
export type { Status } from '../generated/worker.js';
export { Control } from './control.js';
export { Cancelled, HandedBack, Lost, Refused, Stopped, TimedOut } from './errors.js';
export { expect, type JobOptions, job, type Work, withdraw } from './job.js';
export type { OutputStream } from './output.js';
export type { Progress } from './progress.js';
export { Session, type SessionOptions, sharedSession } from './session.js';
export type { WorkerSettings } from './settings.js';
export type { WsConstructor } from './ws-link.js';
