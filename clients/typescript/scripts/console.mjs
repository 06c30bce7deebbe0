// The console's copy of this client, src/console/assets/client.js: one file without imports, which the Rust program
// carries. With --check it writes nothing and fails if the committed file is another.
import { readFile, writeFile } from 'node:fs/promises';
import { build } from 'esbuild';

const target = new URL('../../../src/console/assets/client.js', import.meta.url);
const { outputFiles } = await build({
  entryPoints: ['dist/client/index.js'],
  bundle: true,
  format: 'esm',
  target: 'es2022',
  legalComments: 'none',
  banner: { js: '// Built from clients/typescript by `npm run console`. Do not edit.' },
  write: false,
});
const made = outputFiles[0].text;
if (process.argv.includes('--check')) {
  if ((await readFile(target, 'utf8').catch(() => '')) !== made) {
    console.error('src/console/assets/client.js is not what clients/typescript gives: run `npm run console` there.');
    process.exitCode = 1;
  }
} else {
  await writeFile(target, made);
}
