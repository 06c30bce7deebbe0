/** A value that can be watched; made for React's `useSyncExternalStore`. */
export interface Observable<T> {
  get(): T;
  /** Calls `listener` after each change. Gives the function that ends this. */
  subscribe(listener: () => void): () => void;
}

export class Store<T> implements Observable<T> {
  readonly #listeners = new Set<() => void>();

  constructor(private value: T) {}

  readonly get = (): T => this.value;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  };

  set(value: T): void {
    this.value = value;
    for (const listener of [...this.#listeners]) listener();
  }
}
