// Writes the TypeScript types of the worker protocol from schema/worker.schema.json. With --check it writes nothing and
// fails if the committed file is not what the schema gives.
import { readFile, writeFile } from 'node:fs/promises';
import { compile } from 'json-schema-to-typescript';

const source = new URL('../../../schema/worker.schema.json', import.meta.url);
const target = new URL('../src/generated/worker.ts', import.meta.url);

const schema = JSON.parse(await readFile(source, 'utf8'));
schema.title = 'AnyMessage';
for (const [name, definition] of Object.entries(schema.$defs)) {
  // Such a name as Error would hide JavaScript's own.
  if (definition.properties?.type?.const) definition.title = `${name}_message`;
  for (const property of Object.values(definition.properties ?? {})) {
    if (!['type', '$ref', 'const', 'enum', 'oneOf'].some((word) => word in property)) property.tsType = 'unknown';
  }
}
const types = await compile(schema, 'AnyMessage', {
  bannerComment: '// Generated from schema/worker.schema.json by `npm run generate`. Do not edit.',
  additionalProperties: false,
});

if (process.argv.includes('--check')) {
  const committed = await readFile(target, 'utf8').catch(() => '');
  if (committed !== types) {
    console.error('src/generated/worker.ts is not what schema/worker.schema.json gives: run `npm run generate`.');
    process.exit(1);
  }
} else {
  await writeFile(target, types);
}
