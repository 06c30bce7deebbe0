/** BullMQ jobs under Wheelhouse's control. */

export type { Control } from '../worker/control.js';
export { Cancelled, HandedBack, Lost, Refused, Stopped, TimedOut } from '../worker/errors.js';
export { Session, type SessionOptions, sharedSession } from '../worker/session.js';
export { type ControlledProcessor, controlled, type Processor } from './controlled.js';
export { wheelhouseId } from './ids.js';
export type { ControlledOptions } from './options.js';
export { published, publishedFlow } from './published.js';
