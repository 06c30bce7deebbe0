// docs/asyncapi.yaml: which messages travel on which of the operators' sockets, in which direction. The messages
// themselves stand in schema/messages.schema.json alone.
import { createRequire } from 'node:module';
import Ajv from 'ajv';
import { stringify } from 'yaml';

const CHANNELS = {
  tenant: { address: '/api/v1/realtime/ws', title: 'Everything of a tenant' },
  job: { address: '/api/v1/realtime/ws/jobs/{job_id}', title: 'One job' },
  campaign: { address: '/api/v1/realtime/ws/campaigns/{campaign_id}', title: 'One campaign' },
};

const nameOf = ({ $ref }) => $ref.split('/').at(-1);

/** The document's text. Throws an `Error` if it is no AsyncAPI 3.0. */
export function asyncapi(schema) {
  const members = (group) => schema.$defs[group].oneOf.map(nameOf);
  const channels = {};
  const operations = {};
  const messages = {};
  for (const [kind, { address, title }] of Object.entries(CHANNELS)) {
    const [taken, given] = [members(`${kind}_client`), members(`${kind}_server`)];
    const parameter = /\{(.*)\}/.exec(address)?.[1];
    channels[kind] = {
      address,
      title,
      ...(parameter ? { parameters: { [parameter]: { description: `Which ${kind}.` } } } : {}),
      bindings: { ws: { method: 'GET' } },
      messages: Object.fromEntries(
        [...new Set([...taken, ...given])].map((name) => [name, { $ref: `#/components/messages/${name}` }]),
      ),
    };
    const operation = (action, names, summary) => ({
      action,
      summary,
      channel: { $ref: `#/channels/${kind}` },
      messages: names.map((name) => ({ $ref: `#/channels/${kind}/messages/${name}` })),
    });
    operations[`${kind}_takes`] = operation('receive', taken, `What a client may send: ${title.toLowerCase()}.`);
    operations[`${kind}_gives`] = operation('send', given, `What the gateway sends: ${title.toLowerCase()}.`);
    for (const name of [...taken, ...given]) {
      const { description, properties } = schema.$defs[name];
      messages[name] = {
        name: properties.type.const,
        summary: description,
        contentType: 'application/json',
        payload: {
          schemaFormat: 'application/schema+json;version=draft-2020-12',
          schema: { $ref: `../schema/messages.schema.json#/$defs/${name}` },
        },
      };
    }
  }
  const document = {
    asyncapi: '3.0.0',
    info: {
      title: 'Wheelhouse: the sockets of operators',
      version: '1',
      description:
        'Live control of long-running jobs. docs/protocol.md says what the messages mean; the HTTP API is described by ' +
        '/api/v1/openapi.json.',
    },
    defaultContentType: 'application/json',
    servers: {
      gateway: {
        host: '127.0.0.1:8000',
        protocol: 'ws',
        description: 'Any gateway; its own address stands in the setting server.listen.',
        security: [{ $ref: '#/components/securitySchemes/token' }],
      },
    },
    channels,
    operations,
    components: {
      messages,
      securitySchemes: {
        token: {
          type: 'httpApiKey',
          in: 'header',
          name: 'Sec-WebSocket-Protocol',
          description: '`wheelhouse, bearer.TOKEN`; also as `Authorization: Bearer TOKEN`.',
        },
      },
    },
  };
  check(document);
  return `# Generated from schema/messages.schema.json by \`npm run generate\` in clients/typescript. Do not edit.\n${stringify(document, { lineWidth: 120, aliasDuplicateObjects: false })}`;
}

function check(document) {
  const specification = createRequire(import.meta.url)('@asyncapi/specs/schemas/3.0.0.json');
  const ajv = new Ajv({ strict: false, meta: false, validateSchema: false, validateFormats: false, logger: false });
  if (!ajv.validate(specification, document)) throw new Error(`No AsyncAPI 3.0: ${ajv.errorsText()}`);
}
