//! A manufacturer with a CA of its own, and the certificates (IDevID) that its devices leave the factory with.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber,
};

use crate::{Identity, Server};

/// A manufacturer that a server knows.
pub struct Maker {
    issuer: Issuer<'static, KeyPair>,
}

impl Maker {
    /// Makes the server know a manufacturer, and these devices by the serial numbers that it gave them.
    pub fn known_to(server: &Server, devices: &[(&str, &str)]) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Maker CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("a CA");
        let file = server.scratch().join("maker.pem");
        std::fs::write(&file, certificate.pem()).expect("written");
        server.muster(&["ca", "import", &file.display().to_string(), "--use", "manufacturer"]);
        let lines: String = devices.iter().map(|(id, serial)| format!("{id},{serial}\n")).collect();
        let file = server.scratch().join("made.csv");
        std::fs::write(&file, format!("id,manufacturer_serial\n{lines}")).expect("written");
        server.muster(&["device", "import", &file.display().to_string()]);
        Self { issuer: Issuer::new(params, key) }
    }

    /// A device's certificate with its key.
    pub fn idevid(&self, serial: &str) -> Identity {
        self.idevid_for(serial, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Its own CRL, PEM, good for some seconds from now.
    #[expect(clippy::disallowed_methods, reason = "the server goes by the machine's clock too")]
    pub fn crl(&self, number: u64, good_for_s: i64, revoked: &[&[u8]]) -> String {
        let now = time::OffsetDateTime::from(std::time::SystemTime::now());
        let entry = |serial: &&[u8]| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now - time::Duration::MINUTE,
            next_update: now + time::Duration::seconds(good_for_s),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).and_then(|crl| crl.pem()).expect("a CRL")
    }

    /// A device's certificate with another purpose than a device's.
    pub fn idevid_for(&self, serial: &str, purpose: ExtendedKeyUsagePurpose) -> Identity {
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name = DistinguishedName::new();
        // serialNumber, X.520.
        leaf.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), serial);
        leaf.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { chain: vec![certificate.der().to_vec()], key }
    }
}
