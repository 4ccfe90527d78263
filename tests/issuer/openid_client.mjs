// Apps written with other people's libraries, unmodified: `openid-client` signs in, `jose` verifies what it gets.
//
// node --input-type=module - ORIGIN < openid_client.mjs    in the folder that holds node_modules
// ORIGIN is a gateway with its issuer at /auth, an account alice, and the clients `native` and `worker`.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createRemoteJWKSet, errors, jwtVerify } from 'jose';
import * as client from 'openid-client';

const [origin, password, secret] = process.argv.slice(2);
const issuer = new URL(`${origin}/auth`);
const insecure = { execute: [client.allowInsecureRequests] }; // loopback without TLS

// What the user does: opens the page, fills in the form; ends where the app listens.
async function logIn(address) {
  const page = await fetch(address);
  assert.equal(page.status, 200);
  const request = /name="request" value="([^"]+)"/.exec(await page.text())[1];
  const answer = await fetch(new URL(address.pathname, address), {
    method: 'POST',
    redirect: 'manual',
    headers: { cookie: page.headers.getSetCookie().map((cookie) => cookie.split(';')[0]).join('; ') },
    body: new URLSearchParams({ request, username: 'alice', password }),
  });
  assert.equal(answer.status, 303);
  await fetch(answer.headers.get('location'));
}

async function nativeApp() {
  const config = await client.discovery(issuer, 'native', undefined, client.None(), insecure);
  const app = createServer((_, response) => response.end('You may close this window.')).listen(0, '127.0.0.1');
  await once(app, 'listening');
  const arrived = once(app, 'request');
  const redirectUri = `http://127.0.0.1:${app.address().port}/callback`;
  const checks = {
    pkceCodeVerifier: client.randomPKCECodeVerifier(),
    expectedState: client.randomState(),
    expectedNonce: client.randomNonce(),
  };
  await logIn(client.buildAuthorizationUrl(config, {
    redirect_uri: redirectUri,
    scope: 'openid email',
    code_challenge: await client.calculatePKCECodeChallenge(checks.pkceCodeVerifier),
    code_challenge_method: 'S256',
    state: checks.expectedState,
    nonce: checks.expectedNonce,
  }));
  const [request] = await arrived;
  app.close();
  app.closeAllConnections();
  const first = await client.authorizationCodeGrant(config, new URL(request.url, redirectUri), checks);
  const second = await client.refreshTokenGrant(config, first.refresh_token);
  assert.notEqual(second.refresh_token, first.refresh_token);
  const { sub } = first.claims();
  assert.equal((await client.fetchUserInfo(config, second.access_token, sub)).email, 'alice@example.org');
  const called = await client.fetchProtectedResource(config, second.access_token, new URL(`${origin}/api/x`), 'GET');
  assert.equal(called.status, 200);
  return { config, first, second, sub };
}

async function verify(config, { first, second, sub }) {
  const metadata = config.serverMetadata();
  const keys = createRemoteJWKSet(new URL(metadata.jwks_uri));
  const access = { issuer: issuer.href, audience: 'api', typ: 'at+jwt', algorithms: ['ES256'] };
  for (const tokens of [first, second]) {
    const { payload, protectedHeader } = await jwtVerify(tokens.access_token, keys, access);
    assert.equal(payload.sub, sub);
    assert.equal(payload.client_id, 'native');
    assert.ok(protectedHeader.kid);
    const id = { issuer: issuer.href, audience: 'native', algorithms: metadata.id_token_signing_alg_values_supported };
    assert.equal((await jwtVerify(tokens.id_token, keys, id)).payload.sub, sub);
  }
  const [head, payload, signature] = first.access_token.split('.');
  const forged = Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(payload, 'base64url')), sub: 'root' }));
  await assert.rejects(
    jwtVerify([head, forged.toString('base64url'), signature].join('.'), keys, access),
    errors.JWSSignatureVerificationFailed,
  );
}

async function service(app) {
  // By RFC 8414, where the native app used OpenID's discovery.
  const config = await client.discovery(issuer, 'worker', secret, undefined, { ...insecure, algorithm: 'oauth2' });
  const own = await client.clientCredentialsGrant(config, { scope: 'jobs' });
  assert.equal(own.scope, 'jobs');
  assert.equal((await client.tokenIntrospection(config, app.second.access_token)).active, true);
  await client.tokenRevocation(app.config, app.second.refresh_token);
  assert.deepEqual(await client.tokenIntrospection(config, app.second.access_token), { active: false });
  await assert.rejects(client.refreshTokenGrant(app.config, app.second.refresh_token), { error: 'invalid_grant' });
}

const app = await nativeApp();
await verify(app.config, app);
await service(app);
console.log('signed in, refreshed, verified, revoked');
