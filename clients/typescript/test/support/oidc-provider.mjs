// An OpenID provider with one public client: `node oidc-provider.mjs PORT REDIRECT_URI`. It prints "ready", then a line for each
// grant of tokens, and for each refresh token that was revoked.
import Provider from 'oidc-provider';

const [, , port, redirect] = process.argv;
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: 'console',
      token_endpoint_auth_method: 'none',
      redirect_uris: [redirect],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
    },
  ],
  clientBasedCORS: () => true,
  pkce: { required: () => true },
  rotateRefreshToken: true,
  features: {
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: '',
        audience: 'wheelhouse',
        // Gateways tell of the end a minute before it.
        accessTokenTTL: 66,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  // Somebody without a tenant is somebody at the provider, and nobody here.
  extraTokenClaims: (_, { accountId }) => (accountId === 'stranger' ? {} : { tenant_id: 'acme', permissions: ['*'] }),
});
provider.on('grant.success', ({ oidc }) => console.log(`granted ${oidc.params.grant_type}`));
provider.on('grant.revoked', () => console.log('revoked'));
provider.on('refresh_token.destroyed', () => console.log('revoked'));
provider.listen(Number(port), '127.0.0.1', () => console.log('ready'));
