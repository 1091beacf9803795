//! One record at a time, by its key or through an index; and the lists that are short by nature.

use muster_policy::host::HostPattern;
use muster_policy::identity::{
    AccountId, CaId, CertificateId, RequestKey, SecretHash, Serial, TokenId, WebhookId, ZoneId,
};
use muster_policy::name::{DeviceId, Hostname, Label};
use muster_policy::profile::ProfileWritten;
use redb::ReadableTable;

use crate::act::associations::in_order;
use crate::codec;
use crate::keys;
use crate::reader::{Reader, page};
use crate::record::{
    Account, AdminToken, Association, AssociationScope, Ca, Certificate, Counters, CrlState, DeadLetter,
    Device, Document, DocumentKind, ForeignCa, ForeignListDer, ForeignName, ForeignRevoked, Host, Intent,
    OriginPull, OutboundLeaf, Request, RevokedEntry, Token, Webhook, WebhookProgress, Zone,
};
use crate::tables::TableName;
use crate::transaction::Fault;

impl Reader {
    /// An account.
    ///
    /// # Errors
    /// Here and below: when the file can't be read, or a record is broken.
    pub fn account(&self, id: AccountId) -> Result<Option<Account>, Fault> {
        self.get(&keys::account(id))
    }

    /// All accounts.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn accounts(&self) -> Result<Vec<Account>, Fault> {
        Ok(self.all(&[])?.into_iter().map(|(_, account)| account).collect())
    }

    /// How many of each an account has.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn counters(&self, account: AccountId) -> Result<Counters, Fault> {
        Ok(self.get(&keys::account(account))?.unwrap_or_default())
    }

    /// A zone.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn zone(&self, id: ZoneId) -> Result<Option<Zone>, Fault> {
        self.get(&keys::zone(id))
    }

    /// The zone of a domain.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn zone_by_name(&self, name: &Hostname) -> Result<Option<Zone>, Fault> {
        match self.get_raw(TableName::ZoneNames, &keys::zone_name(name))? {
            Some(id) => self.get(&id),
            None => Ok(None),
        }
    }

    /// The zones of an account, newest first.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn zones(&self, account: AccountId) -> Result<Vec<Zone>, Fault> {
        let mut zones: Vec<Zone> = self.all(&[])?.into_iter().map(|(_, zone)| zone).collect();
        zones.retain(|zone| zone.account == account);
        zones.sort_by_key(|zone| core::cmp::Reverse((zone.created_at, zone.id)));
        Ok(zones)
    }

    /// A hostname.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn host(&self, host: &HostPattern) -> Result<Option<Host>, Fault> {
        self.get(&keys::host(host))
    }

    /// The hostnames of an account, by name.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn hosts(&self, account: AccountId) -> Result<Vec<Host>, Fault> {
        let mut hosts: Vec<Host> = self.all(&[])?.into_iter().map(|(_, host)| host).collect();
        hosts.retain(|host| host.rule.account == account);
        Ok(hosts)
    }

    /// The hostnames that accept a CA, none for the managed ones, in the order they were given in.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn association(&self, scope: AssociationScope, ca: Option<CaId>) -> Result<Vec<HostPattern>, Fault> {
        let order: Association = self.get(&keys::association(scope, ca))?.unwrap_or_default();
        Ok(in_order(&order, scope, ca, &self.hosts(scope.account())?))
    }

    /// A document.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn document(
        &self,
        account: AccountId,
        kind: DocumentKind,
        id: CaId,
    ) -> Result<Option<Document>, Fault> {
        self.get(&keys::document(account, kind, id))
    }

    /// The documents of a kind, newest first.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn documents(&self, account: AccountId, kind: DocumentKind) -> Result<Vec<Document>, Fault> {
        Ok(self.all(&keys::documents(account, kind))?.into_iter().rev().map(|(_, found)| found).collect())
    }

    /// The uploaded leaves of an account, newest first.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn outbound_leaves(&self, account: AccountId) -> Result<Vec<OutboundLeaf>, Fault> {
        Ok(self.all(account.as_bytes())?.into_iter().rev().map(|(_, leaf)| leaf).collect())
    }

    /// An uploaded leaf.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn outbound_leaf(&self, account: AccountId, id: CaId) -> Result<Option<OutboundLeaf>, Fault> {
        self.get(&keys::outbound_leaf(account, id))
    }

    /// What the origins of a hostname are shown before what is the zone's.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn origin_pull(&self, zone: ZoneId, host: &HostPattern) -> Result<Option<OriginPull>, Fault> {
        self.get(&keys::origin_pull(zone, host))
    }

    /// The same of all hostnames of a zone, by name.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn origin_pulls(&self, zone: ZoneId) -> Result<Vec<OriginPull>, Fault> {
        Ok(self.all(zone.as_bytes())?.into_iter().map(|(_, pull)| pull).collect())
    }

    /// A CA.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn ca(&self, id: CaId) -> Result<Option<Ca>, Fault> {
        self.get(&keys::ca(id))
    }

    /// The CAs of an account, newest first.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn cas(&self, account: AccountId) -> Result<Vec<Ca>, Fault> {
        let mut cas: Vec<Ca> = self.all(&[])?.into_iter().map(|(_, ca)| ca).collect();
        cas.retain(|ca| ca.account == account);
        cas.sort_by_key(|ca| core::cmp::Reverse((ca.created_at, ca.id)));
        Ok(cas)
    }

    /// The newest revocation list of a CA.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn crl(&self, ca: CaId) -> Result<Option<CrlState>, Fault> {
        self.get(&keys::ca(ca))
    }

    /// Whether something was revoked or reactivated that the CA's newest list does not say.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn crl_is_behind(&self, ca: CaId) -> Result<bool, Fault> {
        Ok(self.meta::<u64>(&keys::crl_behind(ca))?.is_some())
    }

    /// A profile as written.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn profile(&self, account: AccountId, label: &Label) -> Result<Option<ProfileWritten>, Fault> {
        self.get(&keys::profile(account, label))
    }

    /// The profiles of an account, by name.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn profiles(&self, account: AccountId) -> Result<Vec<(Label, ProfileWritten)>, Fault> {
        let mut profiles = Vec::new();
        for (key, written) in self.all(account.as_bytes())? {
            let name = key.get(account.as_bytes().len()..).unwrap_or_default();
            let label = String::from_utf8_lossy(name).parse().map_err(|_| Fault::Corrupt {
                table: TableName::Profiles.as_str(),
                what: "a key holds no label".to_owned(),
            })?;
            profiles.push((label, written));
        }
        Ok(profiles)
    }

    /// A device.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn device(&self, account: AccountId, id: &DeviceId) -> Result<Option<Device>, Fault> {
        self.get(&keys::device(account, id))
    }

    /// The device that lists a manufacturer's serial.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn device_by_manufacturer_serial(
        &self,
        account: AccountId,
        serial: &str,
    ) -> Result<Option<Device>, Fault> {
        match self.get_raw(TableName::ManufacturerSerials, &keys::manufacturer_serial(account, serial))? {
            Some(id) => self.get(&keys::join(&[account.as_bytes(), &id])),
            None => Ok(None),
        }
    }

    /// A token.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn token(&self, account: AccountId, id: TokenId) -> Result<Option<Token>, Fault> {
        self.get(&keys::token(account, id))
    }

    /// The token of a secret.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn token_by_hash(&self, hash: SecretHash) -> Result<Option<Token>, Fault> {
        match self.get_raw(TableName::TokenHashes, &keys::secret(hash))? {
            Some(key) => self.get(&key),
            None => Ok(None),
        }
    }

    /// The admin token of a secret.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn admin_token_by_hash(&self, hash: SecretHash) -> Result<Option<AdminToken>, Fault> {
        match self.get_raw(TableName::AdminTokenHashes, &keys::secret(hash))? {
            Some(key) => self.get(&key),
            None => Ok(None),
        }
    }

    /// All admin tokens, newest first.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn admin_tokens(&self) -> Result<Vec<AdminToken>, Fault> {
        Ok(self.all(&[])?.into_iter().rev().map(|(_, token)| token).collect())
    }

    /// A certificate.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn certificate(&self, account: AccountId, id: CertificateId) -> Result<Option<Certificate>, Fault> {
        self.get(&keys::certificate(account, id))
    }

    /// The certificate with a serial of a CA.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn certificate_by_serial(&self, ca: CaId, serial: Serial) -> Result<Option<Certificate>, Fault> {
        match self.get_raw(TableName::Serials, &keys::serial(ca, serial))? {
            Some(key) => self.get(&key),
            None => Ok(None),
        }
    }

    /// The newest `limit` certificates of a device, newest first.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn certificates_of_device(
        &self,
        account: AccountId,
        device: &DeviceId,
        limit: usize,
    ) -> Result<Vec<Certificate>, Fault> {
        let prefix = keys::device_certificates(account, device);
        let index = self.table(TableName::DeviceCertificates)?;
        let mut certificates = Vec::new();
        for row in page::range(&index, &prefix)?.rev().take(limit) {
            let (key, _) = row?;
            let id = key.value().get(prefix.len()..).unwrap_or_default();
            certificates.extend(self.get(&keys::join(&[account.as_bytes(), id]))?);
        }
        Ok(certificates)
    }

    /// The webhooks of an account, newest first.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn webhooks(&self, account: AccountId) -> Result<Vec<Webhook>, Fault> {
        let webhooks = self.all(&keys::account(account))?;
        Ok(webhooks.into_iter().rev().map(|(_, webhook)| webhook).collect())
    }

    /// A webhook of an account, and how far it has come.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn webhook(
        &self,
        account: AccountId,
        id: WebhookId,
    ) -> Result<Option<(Webhook, WebhookProgress)>, Fault> {
        let key = keys::webhook(account, id);
        let Some(webhook) = self.get(&key)? else { return Ok(None) };
        Ok(Some((webhook, self.get(&key)?.unwrap_or_default())))
    }

    /// What a webhook could not deliver, newest first.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn dead_letters(&self, account: AccountId, id: WebhookId) -> Result<Vec<DeadLetter>, Fault> {
        let letters = self.all(&keys::webhook(account, id))?;
        Ok(letters.into_iter().rev().map(|(_, letter)| letter).collect())
    }

    /// Calls `each` for every revoked certificate that is stored, oldest first.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn for_each_revoked(
        &self,
        account: AccountId,
        mut each: impl FnMut(RevokedEntry),
    ) -> Result<(), Fault> {
        for row in page::range(&self.table(TableName::Revoked)?, account.as_bytes())? {
            let (_, value) = row?;
            each(codec::decode(TableName::Revoked, value.value())?);
        }
        Ok(())
    }

    /// What is known of the revocations of a CA beside those of certificates issued here.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn foreign_ca(&self, ca: CaId) -> Result<ForeignCa, Fault> {
        Ok(self.get(&keys::ca(ca))?.unwrap_or_default())
    }

    /// The newest list of a CA whose key is elsewhere.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn foreign_list(&self, ca: CaId) -> Result<Option<ForeignListDer>, Fault> {
        self.get(&keys::ca(ca))
    }

    /// Whether and why a certificate that was issued elsewhere is revoked.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn foreign_revoked(&self, ca: CaId, name: ForeignName) -> Result<Option<ForeignRevoked>, Fault> {
        self.get(&keys::foreign(ca, name))
    }

    /// Calls `each` for every certificate of a CA that was issued elsewhere and is revoked, by serial.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn for_each_foreign_revoked(
        &self,
        ca: CaId,
        mut each: impl FnMut(ForeignRevoked),
    ) -> Result<(), Fault> {
        for row in page::range(&self.table(TableName::ForeignRevoked)?, &keys::ca(ca))? {
            let (_, value) = row?;
            each(codec::decode(TableName::ForeignRevoked, value.value())?);
        }
        Ok(())
    }

    /// Calls `each` for every device of an account, by id.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn for_each_device(&self, account: AccountId, mut each: impl FnMut(Device)) -> Result<(), Fault> {
        for row in page::range(&self.table(TableName::Devices)?, account.as_bytes())? {
            let (_, value) = row?;
            each(codec::decode(TableName::Devices, value.value())?);
        }
        Ok(())
    }

    /// What a person has to decide, or did, about a request; none once it has its certificate.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn request(&self, key: RequestKey) -> Result<Option<Request>, Fault> {
        self.get(&keys::request(key))
    }

    /// The intents of what is being signed now.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn intents(&self) -> Result<Vec<Intent>, Fault> {
        Ok(self.all(&[])?.into_iter().map(|(_, intent)| intent).collect())
    }

    /// Whether the ledger holds no account yet.
    ///
    /// # Errors
    /// See [`Reader::account`].
    pub fn is_empty(&self) -> Result<bool, Fault> {
        Ok(self.table(TableName::Accounts)?.first()?.is_none())
    }
}
