/** Wheelhouse from a page, or from Node: jobs and campaigns to watch and to command over one socket. */
export { Batch, type BatchTarget } from './batch.js';
export { type ClientOptions, createClient, type RawSocket, type Wheelhouse } from './client.js';
export type { CommandOptions, ScheduledCommand, ScheduleOptions } from './commands.js';
export type { ConnectionState, WebSocketClass } from './connection.js';
export { CommandError } from './errors.js';
export type { Watcher } from './feed.js';
export type { RequestOptions } from './http.js';
export type { JobFilter, JobList, ListState } from './list.js';
export type { Resource, ResourceState } from './resource.js';
export type { Observable } from './store.js';
export type { GetToken, TokenReason } from './tokens.js';
export type * from './types.js';
