/** Wheelhouse in React pages: hooks that share the one socket of a client. */
import {
  createContext,
  createElement,
  type ReactElement,
  type ReactNode,
  useContext,
  useMemo,
  useSyncExternalStore,
} from 'react';
import type {
  CampaignNow,
  ConnectionState,
  JobFilter,
  JobNow,
  ListState,
  Message,
  RawSocket,
  Resource,
  ResourceState,
  Wheelhouse,
} from '../client/index.js';

const Context = createContext<Wheelhouse | undefined>(undefined);

/** Gives its client (of `createClient`) to all hooks below it. */
export function WheelhouseProvider(props: { client: Wheelhouse; children?: ReactNode }): ReactElement {
  return createElement(Context.Provider, { value: props.client }, props.children);
}

/** The client of the nearest provider. Throws an `Error` if there is none. */
export function useWheelhouse(): Wheelhouse {
  const client = useContext(Context);
  if (!client) throw new Error('There is no <WheelhouseProvider client={…}> around this component');
  return client;
}

/** A job or campaign as it is shown, with its commands. */
export type Shown<T extends JobNow | CampaignNow> = ResourceState<T> & Pick<Resource<T>, 'pause' | 'resume' | 'cancel'>;

export interface ShownOptions<T> {
  /** What a server has rendered with, shown until the job has been read. */
  initial?: T;
}

/** A job, kept up to date. `status` says whether `data` is live; `pause`, `resume`, `cancel` settle with the result. */
export function useJob(id: string, options: ShownOptions<JobNow> = {}): Shown<JobNow> {
  return useResource(useWheelhouse().job(id), options.initial);
}

/** A campaign, kept up to date. */
export function useCampaign(id: string, options: ShownOptions<CampaignNow> = {}): Shown<CampaignNow> {
  return useResource(useWheelhouse().campaign(id), options.initial);
}

function useResource<T extends JobNow | CampaignNow>(resource: Resource<T>, initial: T | undefined): Shown<T> {
  const server = useMemo((): ResourceState<T> => ({ data: initial, status: 'loading' }), [initial]);
  const state = useSyncExternalStore(resource.subscribe, resource.get, () => server);
  return useMemo(
    () => ({
      ...state,
      data: state.data ?? initial,
      pause: resource.pause.bind(resource) as Resource<T>['pause'],
      resume: resource.resume.bind(resource) as Resource<T>['resume'],
      cancel: resource.cancel.bind(resource) as Resource<T>['cancel'],
    }),
    [resource, state, initial],
  );
}

const NO_JOBS: ListState = { jobs: [], more: false, status: 'loading' };

/** The jobs that match a filter, newest first, kept up to date. */
export function useJobs(filter: JobFilter = {}): ListState & { loadMore: () => Promise<void> } {
  const list = useWheelhouse().jobs(filter);
  const state = useSyncExternalStore(list.subscribe, list.get, () => NO_JOBS);
  return useMemo(() => ({ ...state, loadMore: () => list.loadMore() }), [list, state]);
}

const NO_CONNECTION: ConnectionState = { status: 'idle' };

/** Where the client's connection is: for a line such as "Offline, trying again". */
export function useConnection(): ConnectionState {
  const { connection } = useWheelhouse();
  return useSyncExternalStore(connection.subscribe, connection.get, () => NO_CONNECTION);
}

/** A socket of a component's own. */
export interface WebSocketState {
  /** The newest message over the fields of those before it, so that `data?.status` does not go away. */
  data: Message | undefined;
  status: ConnectionState['status'];
  send: RawSocket['send'];
}

/** A socket to a path of the realtime API, such as `/api/v1/realtime/ws/jobs/ID`. It comes back by itself. */
export function useWebSocket(path: string): WebSocketState {
  const client = useWheelhouse();
  const own = useMemo(() => ownSocket(client.socket(path)), [client, path]);
  return useSyncExternalStore(own.subscribe, own.get, () => own.first);
}

function ownSocket(socket: RawSocket) {
  const first: WebSocketState = { data: undefined, status: 'idle', send: socket.send };
  let state = first;
  return {
    first,
    get: () => state,
    subscribe(listener: () => void) {
      const change = (news: Partial<WebSocketState>) => {
        state = { ...state, ...news };
        listener();
      };
      const unwatch = socket.state.subscribe(() => change({ status: socket.state.get().status }));
      const leave = socket.subscribe((message) => change({ data: { ...state.data, ...message } }));
      return () => {
        unwatch();
        leave();
      };
    },
  };
}
