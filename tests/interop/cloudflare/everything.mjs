// The official TypeScript SDK, with another base URL and token, on every resource we have of its API.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import Cloudflare from 'cloudflare';

const [baseURL, apiToken, account_id, folder] = process.argv.slice(2);
const client = new Cloudflare({ baseURL, apiToken });
const file = (name) => readFileSync(`${folder}/${name}`, 'utf8');
const all = async (pages) => {
  const found = [];
  for await (const one of pages) found.push(one);
  return found;
};

assert.equal((await client.user.tokens.verify()).status, 'active');
assert.deepEqual((await all(client.accounts.list())).map(({ id }) => id), [account_id]);
assert.equal((await all(client.memberships.list()))[0].account.id, account_id);
const zone = await client.zones.create({ account: { id: account_id }, name: 'ts.example', type: 'full' });
const zone_id = zone.id;
assert.deepEqual((await all(client.zones.list({ name: 'ts.example', account: { id: account_id } }))).map(({ id }) => id), [zone_id]);

const made = [];
for (let number = 0; number < 7; number += 1) {
  made.push(await client.clientCertificates.create({ zone_id, csr: file('csr.pem'), validity_days: 30 }));
}
const listed = (await all(client.clientCertificates.list({ zone_id, per_page: 5 }))).map(({ id }) => id);
assert.deepEqual(listed.sort(), made.map(({ id }) => id).sort());
const first = made[0].id;
assert.equal((await client.clientCertificates.delete(first, { zone_id })).status, 'pending_revocation');
assert.equal((await client.clientCertificates.get(first, { zone_id })).status, 'revoked');
assert.equal((await client.clientCertificates.edit(first, { zone_id, reactivate: true })).status, 'pending_reactivation');

const ca = await client.mtlsCertificates.create({ account_id, ca: true, certificates: file('ca.pem'), name: 'ts ca' });
assert.equal(ca.certificates, file('ca.pem'));
await assert.rejects(client.mtlsCertificates.create({ account_id, ca: true, certificates: file('ca.pem') }), Cloudflare.ConflictError);
const associations = client.certificateAuthorities.hostnameAssociations;
assert.deepEqual((await associations.update({ zone_id, hostnames: ['a.ts.example'], mtls_certificate_id: ca.id })).hostnames, ['a.ts.example']);
assert.deepEqual((await associations.get({ zone_id, mtls_certificate_id: ca.id })).hostnames, ['a.ts.example']);
assert.deepEqual((await all(client.mtlsCertificates.associations.get(ca.id, { account_id }))).map(({ service }) => service), ['a.ts.example']);
await associations.update({ zone_id, hostnames: [], mtls_certificate_id: ca.id });
assert.equal((await client.mtlsCertificates.delete(ca.id, { account_id })).id, ca.id);
await assert.rejects(client.mtlsCertificates.get(ca.id, { account_id }), Cloudflare.NotFoundError);

const access = client.zeroTrust.access.certificates;
const made_access = await access.create({ account_id, certificate: file('ca.pem'), name: 'ts', associated_hostnames: ['x.ts.example'] });
const setting = { hostname: 'x.ts.example', china_network: false, client_certificate_forwarding: true };
const answered = await all(access.settings.update({ zone_id, settings: [setting] }));
assert.deepEqual(answered, [setting]);
await access.update(made_access.id, { account_id, associated_hostnames: [] });
await access.delete(made_access.id, { account_id });

const applications = client.zeroTrust.access.applications;
const app = await applications.create({ account_id, domain: 'a.ts.example', type: 'self_hosted', name: 'ts',
    policies: [{ name: 'any', decision: 'non_identity', include: [{ certificate: {} }], precedence: 1 }] });
assert.deepEqual(app.policies.map(({ name }) => name), ['any']);
const own = await applications.policies.create(app.id, { account_id, precedence: 2, name: 'boss', decision: 'allow', include: [{ everyone: {} }] });
assert.deepEqual((await all(applications.policies.list(app.id, { account_id }))).map(({ name }) => name), ['any', 'boss']);
await applications.policies.delete(own.id, { app_id: app.id, account_id });
await applications.delete(app.id, { account_id });

const ruleset = await client.rulesets.phases.update('http_request_firewall_custom', { zone_id, rules: [{ action: 'block', expression: 'not ssl' }] });
const added = await client.rulesets.rules.create(ruleset.id, { zone_id, action: 'log', expression: 'mqtt.packet eq "publish"' });
assert.deepEqual(added.rules.map(({ action }) => action), ['block', 'log']);
const left = await client.rulesets.rules.delete(added.rules[1].id, { ruleset_id: ruleset.id, zone_id });
assert.equal(left.rules.length, 1);
await client.rulesets.delete(ruleset.id, { zone_id });
const created = await client.rulesets.create({ zone_id, kind: 'zone', name: 'default', phase: 'http_request_firewall_custom', rules: [] });
assert.deepEqual((await all(client.rulesets.list({ zone_id }))).map(({ id }) => id), [created.id]);

const pulls = client.originTLSClientAuth;
const shown = {};
for (const level of ['zoneCertificates', 'hostnameCertificates']) {
  const upload = { zone_id, certificate: file('leaf.pem'), private_key: file('leaf.key') };
  const made_pull = await pulls[level].create(upload);
  assert.equal(made_pull.status, 'active');
  assert.ok(!JSON.stringify(made_pull).includes('PRIVATE'));
  await assert.rejects(pulls[level].create(upload), Cloudflare.ConflictError);
  assert.equal((await pulls[level].get(made_pull.id, { zone_id })).id, made_pull.id);
  assert.deepEqual((await all(pulls[level].list({ zone_id }))).map(({ id }) => id), [made_pull.id]);
  shown[level] = made_pull.id;
}
assert.equal((await pulls.settings.get({ zone_id })).enabled, false);
assert.equal((await pulls.settings.update({ zone_id, enabled: true })).enabled, true);
const wish = { hostname: 'pull.ts.example', cert_id: shown.hostnameCertificates, enabled: true };
const [set] = await all(pulls.hostnames.update({ zone_id, config: [wish] }));
assert.deepEqual([set.hostname, set.cert_id, set.enabled, set.cert_status], ['pull.ts.example', wish.cert_id, true, 'active']);
assert.equal((await pulls.hostnames.get('pull.ts.example', { zone_id })).cert_id, wish.cert_id);
await assert.rejects(pulls.hostnameCertificates.delete(wish.cert_id, { zone_id }), Cloudflare.ConflictError);
await all(pulls.hostnames.update({ zone_id, config: [{ hostname: 'pull.ts.example', enabled: null }] }));
await assert.rejects(pulls.hostnames.get('pull.ts.example', { zone_id }), Cloudflare.NotFoundError);
for (const [level, id] of Object.entries(shown)) {
  assert.equal((await pulls[level].delete(id, { zone_id })).id, id);
}

const { data, response } = await client.zones.get({ zone_id }).withResponse();
assert.deepEqual([data.id, response.status, response.headers.get('content-type')], [zone_id, 200, 'application/json']);
await assert.rejects(client.zones.list({ per_page: 0 }), Cloudflare.BadRequestError);
await assert.rejects(client.zones.get({ zone_id: 'no id' }), Cloudflare.NotFoundError);
await assert.rejects(client.post(`/zones/${zone_id}/client_certificates`), (error) => error instanceof Cloudflare.BadRequestError && error.errors[0].code === 1400);
await assert.rejects(new Cloudflare({ baseURL, apiToken: 'wrong', maxRetries: 0 }).zones.list(), Cloudflare.AuthenticationError);
assert.equal((await client.zones.delete({ zone_id })).id, zone_id);
console.log('everything passed');
