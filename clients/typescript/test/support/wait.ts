/** Settles after so many milliseconds: for showing that something does not happen meanwhile. */
export function elapse(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Settles when `condition` holds, and rejects with `what` if it never does. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  milliseconds = 60_000,
): Promise<void> {
  const end = Date.now() + milliseconds;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`never happened: ${what}`);
    await elapse(10);
  }
}

/** A place in a job's work where it waits for the test. */
export function gate(): { entered: Promise<void>; wait: () => Promise<void>; open: () => void } {
  let enter = () => {};
  let open = () => {};
  const entered = new Promise<void>((resolve) => {
    enter = resolve;
  });
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return {
    entered,
    open,
    wait() {
      enter();
      return opened;
    },
  };
}
