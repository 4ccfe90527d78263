// A real OpenID provider for one test: users who are whoever they say, one public client, JWT access tokens with `sid`.
//
// node openid_provider.mjs PATH-OF-OIDC-PROVIDER PORT REDIRECT-URI BACKCHANNEL-LOGOUT-URI
// Prints `ready` once it listens; ends with its standard input.
import { pathToFileURL } from 'node:url';

const [library, port, redirectUri, logoutUri] = process.argv.slice(2);
const { default: Provider } = await import(pathToFileURL(library).href);

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: 'app',
    token_endpoint_auth_method: 'none',
    redirect_uris: [redirectUri],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    backchannel_logout_uri: logoutUri,
    backchannel_logout_session_required: true,
  }],
  features: {
    backchannelLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => 'urn:example:api',
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: 'api', audience: 'api', accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  // An access token says which session it belongs to, so that ending the session ends it.
  extraTokenClaims: (ctx) => ({ sid: ctx.oidc.entities.AuthorizationCode?.sid }),
  // Without the library's own dispatcher, which refuses loopback addresses.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
  pkce: { required: () => true },
});

provider.on('server_error', (ctx, error) => console.error(error));
provider.on('backchannel.error', (ctx, error) => console.error(error));
provider.listen(Number(port), '127.0.0.1', () => console.log('ready'));
process.stdin.on('end', () => process.exit(0)).resume();
