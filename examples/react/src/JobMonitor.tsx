import { useWebSocket } from 'wheelhouse-client/react';

/** A component with a socket of its own, as the specification shows it: it sends, and shows what comes. */
export function JobMonitor({ jobId }: { jobId: string }) {
  const ws = useWebSocket(`/api/v1/realtime/ws/jobs/${jobId}`);

  return (
    <section aria-label="Job monitor">
      <button type="button" onClick={() => ws.send({ type: 'cancel_job' })}>
        Cancel Job
      </button>
      <button type="button" onClick={() => ws.send({ type: 'pause_job' })}>
        Pause Job
      </button>
      <div>Status: {ws.data?.status}</div>
    </section>
  );
}
