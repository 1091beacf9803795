"""The official Python SDK, with another base URL and token, on every resource we have of its API."""
import datetime
import os
import sys

import cloudflare
from cloudflare import Cloudflare
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

base_url, token, account_id = sys.argv[1:4]
folder = sys.argv[4]
for name in list(os.environ):
    if name.startswith("CLOUDFLARE_"):
        del os.environ[name]
client = Cloudflare(base_url=base_url, api_token=token)


def key():
    return ec.generate_private_key(ec.SECP256R1())


def pem(thing):
    return thing.public_bytes(serialization.Encoding.PEM).decode()


def name(common_name):
    return x509.Name([
        x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme"),
        x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
    ])


def csr(common_name):
    return pem(x509.CertificateSigningRequestBuilder().subject_name(name(common_name)).sign(key(), hashes.SHA256()))


def certificate(common_name, of_ca, signer=None):
    own = key()
    now = datetime.datetime.now(datetime.timezone.utc)
    issuer, issuer_key = signer or (name(common_name), own)
    made = (x509.CertificateBuilder().subject_name(name(common_name)).issuer_name(issuer)
            .public_key(own.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=300))
            .add_extension(x509.BasicConstraints(ca=of_ca, path_length=None), critical=True)
            .sign(issuer_key, hashes.SHA256()))
    private = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem(made), private.decode()


def fails(error, call, *args, **named):
    try:
        call(*args, **named)
    except error as raised:
        return raised
    raise AssertionError(f"{error.__name__} was not raised")


# Token, account, memberships, zones.
verified = client.user.tokens.verify()
assert verified.status == "active", verified
assert len(verified.id) == 32 and int(verified.id, 16), verified.id
assert client.accounts.tokens.verify(account_id=account_id).id == verified.id
assert [account.id for account in client.accounts.list()] == [account_id]
assert client.accounts.get(account_id=account_id).id == account_id
assert [membership.account.id for membership in client.memberships.list()] == [account_id]
zone = client.zones.create(account={"id": account_id}, name="sdk.example", type="full")
assert isinstance(zone.created_on, datetime.datetime) and zone.owner is not None and zone.plan is not None
assert [found.id for found in client.zones.list(name="sdk.example", account={"id": account_id})] == [zone.id]
assert client.zones.get(zone_id=zone.id).name == "sdk.example"
other = client.zones.create(account={"id": account_id}, name="other.example")
assert client.zones.edit(zone_id=other.id, paused=True).paused is True
assert client.zones.delete(zone_id=other.id).id == other.id
fails(cloudflare.NotFoundError, client.zones.get, zone_id=other.id)

# Client certificates: made, listed over several pages, revoked, reactivated.
made = [client.client_certificates.create(zone_id=zone.id, csr=csr(f"sdk-{number}"), validity_days=3650) for number in range(12)]
first = made[0]
assert first.status == "active" and first.organization == "Acme" and first.country == "DE" and first.common_name == "sdk-0"
parsed = x509.load_pem_x509_certificate(first.certificate.encode())
assert format(parsed.serial_number, "x").zfill(len(first.serial_number)) == first.serial_number
assert parsed.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ") == first.expires_on
listed = [found.id for found in client.client_certificates.list(zone_id=zone.id, per_page=5)]
assert listed == [found.id for found in reversed(made)], listed
assert len(client.client_certificates.list(zone_id=zone.id, limit=3, offset=10).result) == 2
assert client.client_certificates.delete(client_certificate_id=first.id, zone_id=zone.id).status == "pending_revocation"
assert client.client_certificates.get(client_certificate_id=first.id, zone_id=zone.id).status == "revoked"
assert [found.id for found in client.client_certificates.list(zone_id=zone.id, status="revoked")] == [first.id]
assert client.client_certificates.edit(client_certificate_id=first.id, zone_id=zone.id, reactivate=True).status == "pending_reactivation"
assert client.client_certificates.get(client_certificate_id=first.id, zone_id=zone.id).status == "active"
refused = fails(cloudflare.BadRequestError, client.client_certificates.create, zone_id=zone.id, csr="x", validity_days=1)
assert refused.body["errors"][0]["source"]["pointer"] == "/csr", refused.body

# A CA that was brought along, and hostnames.
ca_pem, _ = certificate("SDK CA", of_ca=True)
ca = client.mtls_certificates.create(account_id=account_id, ca=True, certificates=ca_pem, name="sdk ca")
assert ca.certificates == ca_pem and ca.ca is True and isinstance(ca.expires_on, datetime.datetime)
twice = fails(cloudflare.ConflictError, client.mtls_certificates.create, account_id=account_id, ca=True, certificates=ca_pem)
assert twice.body["errors"][0]["code"] == 1471
assert [found.id for found in client.mtls_certificates.list(account_id=account_id, type=["custom"])] == [ca.id]
hosts = client.certificate_authorities.hostname_associations
assert hosts.update(zone_id=zone.id, hostnames=["B.sdk.example", "a.sdk.example"], mtls_certificate_id=ca.id).hostnames == ["b.sdk.example", "a.sdk.example"]
assert hosts.get(zone_id=zone.id, mtls_certificate_id=ca.id).hostnames == ["b.sdk.example", "a.sdk.example"]
assert hosts.update(zone_id=zone.id, hostnames=["m.sdk.example"]).hostnames == ["m.sdk.example"]
assert hosts.get(zone_id=zone.id).hostnames == ["m.sdk.example"]
uses = client.mtls_certificates.associations.get(mtls_certificate_id=ca.id, account_id=account_id)
assert sorted(found.service for found in uses) == ["a.sdk.example", "b.sdk.example"]
in_use = fails(cloudflare.ConflictError, client.mtls_certificates.delete, mtls_certificate_id=ca.id, account_id=account_id)
assert "in use" in in_use.body["errors"][0]["message"]
hosts.update(zone_id=zone.id, hostnames=[], mtls_certificate_id=ca.id)
assert client.mtls_certificates.delete(mtls_certificate_id=ca.id, account_id=account_id).id == ca.id
fails(cloudflare.NotFoundError, client.mtls_certificates.get, mtls_certificate_id=ca.id, account_id=account_id)

# A leaf with its key.
leaf_pem, leaf_key = certificate("sdk leaf", of_ca=False)
leaf = client.mtls_certificates.create(account_id=account_id, ca=False, certificates=leaf_pem, private_key=leaf_key)
assert leaf.ca is False and "PRIVATE" not in str(leaf)
fails(cloudflare.BadRequestError, client.mtls_certificates.create, account_id=account_id, ca=False,
      certificates=certificate("x", of_ca=False)[0], private_key=leaf_key)
fails(cloudflare.BadRequestError, hosts.update, zone_id=zone.id, hostnames=[], mtls_certificate_id=leaf.id)
client.mtls_certificates.delete(mtls_certificate_id=leaf.id, account_id=account_id)

# Access certificates, of the account and of the zone.
access = client.zero_trust.access.certificates
for scope in [{"account_id": account_id}, {"zone_id": zone.id}]:
    made_access = access.create(certificate=certificate("Access CA", of_ca=True)[0], name="access", associated_hostnames=["x.sdk.example"], **scope)
    assert made_access.associated_hostnames == ["x.sdk.example"]
    assert access.get(certificate_id=made_access.id, **scope).name == "access"
    assert [found.id for found in access.list(**scope)] == [made_access.id]
    setting = {"hostname": "x.sdk.example", "china_network": False, "client_certificate_forwarding": False}
    answered = access.settings.update(settings=[setting], **scope)
    assert [found.client_certificate_forwarding for found in answered] == [False], answered
    assert any(found.hostname == "x.sdk.example" for found in access.settings.get(**scope))
    fails(cloudflare.ConflictError, access.delete, certificate_id=made_access.id, **scope)
    assert access.update(certificate_id=made_access.id, associated_hostnames=[], **scope).associated_hostnames == []
    assert access.delete(certificate_id=made_access.id, **scope).id == made_access.id

# Access applications with reusable policies and groups.
zero = client.zero_trust.access
group = zero.groups.create(account_id=account_id, name="ops", include=[{"common_name": {"common_name": "sdk-1"}}])
policy = zero.policies.create(account_id=account_id, name="devices", decision="non_identity",
                              include=[{"certificate": {}}], exclude=[{"group": {"id": group.id}}])
assert policy.decision == "non_identity" and policy.reusable is True
assert [found.id for found in zero.policies.list(account_id=account_id)] == [policy.id]
app = zero.applications.create(account_id=account_id, domain="a.sdk.example/admin", type="self_hosted", name="admin",
                               policies=[{"id": policy.id, "precedence": 1}])
assert zero.applications.get(app_id=app.id, account_id=account_id).domain == "a.sdk.example/admin"
assert [found.id for found in zero.applications.list(account_id=account_id)] == [app.id]
for named, number in [({"name": "ADM"}, 1), ({"name": "adm", "exact": True}, 0), ({"name": "admin", "exact": True}, 1), ({"domain": "/admin"}, 1),
                      ({"search": "sdk.example"}, 1), ({"search": "other"}, 0)]:
    assert len(list(zero.applications.list(account_id=account_id, **named))) == number, named
assert [found.id for found in zero.groups.list(account_id=account_id, name="ops")] == [group.id]
assert list(zero.groups.list(account_id=account_id, search="none")) == []
fails(cloudflare.ConflictError, zero.policies.delete, policy_id=policy.id, account_id=account_id)
fails(cloudflare.BadRequestError, zero.policies.create, account_id=account_id, name="x", decision="allow",
      include=[{"email": {"email": "a@example.com"}}])
# Policies of the application's own, whole in the application or under it.
own = zero.applications.policies
made_own = own.create(app_id=app.id, account_id=account_id, precedence=2,
                      extra_body={"name": "boss", "decision": "allow", "include": [{"common_name": {"common_name": "boss"}}]})
assert [found.id for found in own.list(app_id=app.id, account_id=account_id)] == [policy.id, made_own.id]
own.update(policy_id=made_own.id, app_id=app.id, account_id=account_id,
           extra_body={"name": "boss", "decision": "deny", "include": [{"everyone": {}}]})
assert own.get(policy_id=made_own.id, app_id=app.id, account_id=account_id).decision == "deny"
assert own.delete(policy_id=made_own.id, app_id=app.id, account_id=account_id).id == made_own.id
inline = zero.applications.create(account_id=account_id, domain="b.sdk.example", type="self_hosted", name="inline", policies=[
    {"name": "any", "decision": "non_identity", "include": [{"certificate": {}}], "precedence": 1}, policy.id])
assert [found.name for found in inline.policies] == ["any", "devices"], inline.policies
zero.applications.delete(app_id=inline.id, account_id=account_id)
zero.applications.delete(app_id=app.id, account_id=account_id)
zero.policies.delete(policy_id=policy.id, account_id=account_id)
zero.groups.delete(group_id=group.id, account_id=account_id)

# Rules of the zone.
phase = client.rulesets.phases
rules = [{"expression": "not cf.tls_client_auth.cert_verified", "action": "block", "description": "devices only"}]
phase.update(ruleset_phase="http_request_firewall_custom", zone_id=zone.id, rules=rules)
ruleset = phase.get(ruleset_phase="http_request_firewall_custom", zone_id=zone.id)
assert ruleset.rules[0].action == "block" and ruleset.phase == "http_request_firewall_custom"
assert [found.id for found in client.rulesets.list(zone_id=zone.id)] == [ruleset.id]
with_one = client.rulesets.rules.create(ruleset_id=ruleset.id, zone_id=zone.id, action="log", expression='mqtt.topic contains "x"',
                                        position={"index": 1})
# The SDK types these answers as "a ruleset or anything", and so hands them out as they came.
assert [rule["action"] for rule in with_one["rules"]] == ["log", "block"]
rule_id = with_one["rules"][0]["id"]
edited = client.rulesets.rules.edit(rule_id=rule_id, ruleset_id=ruleset.id, zone_id=zone.id, action="log", enabled=False)
assert edited["rules"][0]["enabled"] is False and edited["rules"][0]["expression"] == 'mqtt.topic contains "x"'
assert len(client.rulesets.rules.delete(rule_id=rule_id, ruleset_id=ruleset.id, zone_id=zone.id)["rules"]) == 1
assert client.rulesets.get(ruleset_id=ruleset.id, zone_id=zone.id).id == ruleset.id
wrong = fails(cloudflare.BadRequestError, phase.update, ruleset_phase="http_request_firewall_custom", zone_id=zone.id,
              rules=[{"expression": "ssl and", "action": "block"}])
assert wrong.body["errors"][0]["source"]["pointer"] == "/rules/0/expression"

assert client.rulesets.delete(ruleset_id=ruleset.id, zone_id=zone.id) is None
assert list(client.rulesets.list(zone_id=zone.id)) == []
again = client.rulesets.create(zone_id=zone.id, kind="zone", name="default", phase="http_request_firewall_custom", rules=rules)
assert again["rules"][0]["expression"] == rules[0]["expression"]
fails(cloudflare.ConflictError, client.rulesets.create, zone_id=zone.id, kind="zone", name="second", phase="http_request_firewall_custom", rules=[])
fails(cloudflare.BadRequestError, client.rulesets.create, zone_id=zone.id, kind="zone", name="other", phase="http_ratelimit", rules=[])

# Headers that the zone's origins are sent.
transforms = client.managed_transforms
assert [(found.id, found.enabled) for found in transforms.list(zone_id=zone.id).managed_request_headers] == [("add_client_certificate_headers", True)]
off = transforms.edit(zone_id=zone.id, managed_request_headers=[{"id": "add_client_certificate_headers", "enabled": False}], managed_response_headers=[])
assert off.managed_request_headers[0].enabled is False and off.managed_response_headers == []
assert transforms.list(zone_id=zone.id).managed_request_headers[0].enabled is False
fails(cloudflare.BadRequestError, transforms.edit, zone_id=zone.id, managed_request_headers=[],
      managed_response_headers=[{"id": "remove_x-powered-by_header", "enabled": True}])
transforms.delete(zone_id=zone.id)
assert transforms.list(zone_id=zone.id).managed_request_headers[0].enabled is True

# Certificates that origins are shown.
pulls = client.origin_tls_client_auth
pair = {}
for level in [pulls.zone_certificates, pulls.hostname_certificates]:
    pull_pem, pull_key = certificate("pull", of_ca=False)
    shown = level.create(zone_id=zone.id, certificate=pull_pem, private_key=pull_key)
    assert shown.status == "active" and shown.certificate == pull_pem and "PRIVATE" not in str(shown)
    assert isinstance(shown.expires_on, datetime.datetime) and isinstance(shown.uploaded_on, datetime.datetime)
    assert level.get(shown.id, zone_id=zone.id).id == shown.id
    assert [found.id for found in level.list(zone_id=zone.id)] == [shown.id]
    twice = fails(cloudflare.ConflictError, level.create, zone_id=zone.id, certificate=pull_pem, private_key=pull_key)
    assert twice.body["errors"][0]["code"] == 1471
    fails(cloudflare.BadRequestError, level.create, zone_id=zone.id, certificate=pull_pem, private_key=leaf_key)
    fails(cloudflare.NotFoundError, level.get, "01890000-0000-7000-8000-000000000000", zone_id=zone.id)
    pair[level] = shown.id
assert pulls.settings.get(zone_id=zone.id).enabled is False
assert pulls.settings.update(zone_id=zone.id, enabled=True).enabled is True
named_id = pair[pulls.hostname_certificates]
wishes = [{"hostname": "Pull.sdk.example", "cert_id": named_id, "enabled": True}]
[set_pull] = pulls.hostnames.update(zone_id=zone.id, config=wishes)
assert (set_pull.hostname, set_pull.cert_id, set_pull.enabled, set_pull.cert_status) == ("pull.sdk.example", named_id, True, "active")
got = pulls.hostnames.get("pull.sdk.example", zone_id=zone.id)
assert got.cert_id == named_id and isinstance(got.created_at, datetime.datetime)
fails(cloudflare.ConflictError, pulls.hostname_certificates.delete, named_id, zone_id=zone.id)
fails(cloudflare.NotFoundError, pulls.zone_certificates.get, named_id, zone_id=zone.id)
fails(cloudflare.BadRequestError, pulls.hostnames.update, zone_id=zone.id, config=[{**wishes[0], "hostname": "pull.other.example"}])
[gone] = pulls.hostnames.update(zone_id=zone.id, config=[{"hostname": "pull.sdk.example", "enabled": None}])
assert gone.enabled is None
fails(cloudflare.NotFoundError, pulls.hostnames.get, "pull.sdk.example", zone_id=zone.id)
for level, shown_id in pair.items():
    assert level.delete(shown_id, zone_id=zone.id).id == shown_id
    assert list(level.list(zone_id=zone.id)) == []

# Answers as they come, and how often the client asks: what a repeat can't cure is asked once.
raw = client.zones.with_raw_response.get(zone_id=zone.id)
assert raw.headers["content-type"] == "application/json" and raw.parse().id == zone.id and raw.http_response.json()["success"] is True
asked = []
counting = Cloudflare(base_url=base_url + "/", api_token=token, http_client=cloudflare.DefaultHttpxClient(event_hooks={"request": [asked.append]}))
fails(cloudflare.ConflictError, counting.zones.create, account={"id": account_id}, name="sdk.example")
assert len(asked) == 1, asked
for wrong in [{"per_page": 0}, {"per_page": 1001}, {"per_page": 2.5}, {"page": -1}]:
    bounds = fails(cloudflare.BadRequestError, client.zones.list, **wrong)
    assert bounds.body["errors"][0]["source"]["pointer"] == "/" + next(iter(wrong)), bounds.body
assert client.zones.list(page=9).result == []
no_body = fails(cloudflare.BadRequestError, client.post, f"/zones/{zone.id}/client_certificates", cast_to=object)
assert no_body.errors[0].code == 1400 and no_body.status_code == 400
fails(cloudflare.NotFoundError, client.client_certificates.get, client_certificate_id="no id", zone_id=zone.id)
fails(cloudflare.NotFoundError, client.zones.get, zone_id="no id")

# Who may not, and who is unknown.
fails(cloudflare.AuthenticationError, Cloudflare(base_url=base_url, api_token="wrong", max_retries=0).zones.list)
print("everything passed")
