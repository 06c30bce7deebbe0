import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { createClient } from 'wheelhouse-client';
import { useConnection, WheelhouseProvider } from 'wheelhouse-client/react';
import { JobCard } from './JobCard';
import { JobMonitor } from './JobMonitor';

// An application asks its own server for a token of its user; here it stands behind the # of the address.
const address = new URLSearchParams(location.search);
const token = new URLSearchParams(location.hash.slice(1)).get('token') ?? '';
const jobId = address.get('job') ?? '';
const client = createClient({ url: address.get('gateway') ?? 'http://127.0.0.1:8000', getToken: () => token });

function Connection() {
  const { status } = useConnection();
  return <p>Connection: {status}</p>;
}

const root = document.getElementById('root');
if (root)
  createRoot(root).render(
    <StrictMode>
      <WheelhouseProvider client={client}>
        <h1>Job monitor</h1>
        <Connection />
        <JobCard jobId={jobId} />
        <JobMonitor jobId={jobId} />
      </WheelhouseProvider>
    </StrictMode>,
  );
