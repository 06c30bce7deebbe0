// A page loads no more than 6 kB (gzip) for the client, and again for the React entry, React itself and the client aside.
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const MOST_BYTES = 6_000;

for (const entry of ['dist/client/index.js', 'dist/react/index.js']) {
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    external: ['react', 'react/jsx-runtime'],
    write: false,
  });
  const bytes = gzipSync(outputFiles[0].contents, { level: 9 }).length;
  console.log(`${entry}: ${bytes} bytes`);
  if (bytes > MOST_BYTES) {
    console.error(`${entry} is larger than ${MOST_BYTES} bytes.`);
    process.exitCode = 1;
  }
}
