// Writes what is made from the schemas: the TypeScript types of the messages, and docs/asyncapi.yaml. With --check it
// writes nothing and fails if a committed file is not what the schemas give.
import { readFile, writeFile } from 'node:fs/promises';
import { compile } from 'json-schema-to-typescript';
import { asyncapi } from './asyncapi.mjs';

const root = new URL('../../../', import.meta.url);
const load = async (name) => JSON.parse(await readFile(new URL(`schema/${name}.schema.json`, root), 'utf8'));

/** A property whose schema says nothing about its form. */
function isAnything(property) {
  return !['type', '$ref', 'const', 'enum', 'oneOf', 'anyOf'].some((word) => word in property);
}

async function types(name) {
  const schema = await load(name);
  schema.title = 'AnyMessage';
  for (const [key, definition] of Object.entries(schema.$defs)) {
    // Such a name as Error would hide JavaScript's own.
    if (definition.properties?.type?.const) definition.title = `${key}_message`;
    for (const property of Object.values(definition.properties ?? {})) {
      if (isAnything(property)) property.tsType = 'unknown';
    }
  }
  return compile(schema, 'AnyMessage', {
    bannerComment: `// Generated from schema/${name}.schema.json by \`npm run generate\`. Do not edit.`,
    additionalProperties: false,
  });
}

const made = {
  'clients/typescript/src/generated/worker.ts': await types('worker'),
  'clients/typescript/src/generated/messages.ts': await types('messages'),
  'docs/asyncapi.yaml': asyncapi(await load('messages')),
};
for (const [path, text] of Object.entries(made)) {
  const target = new URL(path, root);
  if (!process.argv.includes('--check')) {
    await writeFile(target, text);
  } else if ((await readFile(target, 'utf8').catch(() => '')) !== text) {
    console.error(`${path} is not what the schemas give: run \`npm run generate\` in clients/typescript.`);
    process.exitCode = 1;
  }
}
