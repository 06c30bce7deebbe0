import { useState } from 'react';
import type { CommandError } from 'wheelhouse-client';
import { useJob } from 'wheelhouse-client/react';

/** The same with `useJob`: many of these share one socket, a command settles with its result, and stale says so. */
export function JobCard({ jobId }: { jobId: string }) {
  const job = useJob(jobId);
  const [said, setSaid] = useState('');

  const run = async (command: () => Promise<{ status?: string }>) => {
    setSaid('On its way…');
    try {
      setSaid(`Done: ${(await command()).status}`);
    } catch (error) {
      setSaid(`Refused: ${(error as CommandError).message}`);
    }
  };

  if (job.status === 'missing') return <p>There is no job {jobId}.</p>;
  if (!job.data) return <p>Loading…</p>;
  return (
    <section aria-label="Job card">
      <h2>{job.data.title ?? jobId}</h2>
      <p>
        {job.data.status}
        {job.data.desired ? `, on its way to ${job.data.desired}` : ''}
        {job.status === 'live' ? '' : ' (as last heard of)'}
      </p>
      <progress max={100} value={job.data.progress_percent} aria-label="Progress" />
      <button type="button" onClick={() => run(() => job.pause({ reason: 'from the example' }))}>
        Pause
      </button>
      <button type="button" onClick={() => run(() => job.resume())}>
        Resume
      </button>
      <output>{said}</output>
    </section>
  );
}
