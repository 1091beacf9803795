//! A manufacturer with a CA of its own, and the certificates (IDevID) that its devices leave the factory with;
//! or a CA that hostnames accept, and the certificates of its devices.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};

use crate::{Identity, Server};

/// A manufacturer that a server knows.
pub struct Maker {
    issuer: Issuer<'static, KeyPair>,
    /// The certificates of the CAs between it and the one that the server knows, DER.
    path: Vec<Vec<u8>>,
}

impl Maker {
    /// Makes the server know a manufacturer, and these devices by the serial numbers that it gave them.
    pub fn known_to(server: &Server, devices: &[(&str, &str)]) -> Self {
        let (maker, _) = Self::imported(server, "manufacturer");
        let lines: String = devices.iter().map(|(id, serial)| format!("{id},{serial}\n")).collect();
        let file = server.scratch().join("made.csv");
        std::fs::write(&file, format!("id,manufacturer_serial\n{lines}")).expect("written");
        server.muster(&["device", "import", &file.display().to_string()]);
        maker
    }

    /// Makes the server let devices with certificates of this CA in at its hostnames; the CA's id, too.
    pub fn accepted_by(server: &Server) -> (Self, String) {
        Self::imported(server, "devices")
    }

    fn imported(server: &Server, purpose: &str) -> (Self, String) {
        let key = KeyPair::generate().expect("a key");
        let params = authority("Maker CA");
        let file = server.scratch().join("maker.pem");
        std::fs::write(&file, params.self_signed(&key).expect("a CA").pem()).expect("written");
        let file = file.display().to_string();
        let imported = server.muster_json(&["ca", "import", &file, "--use", purpose]);
        let id = imported["id"].as_str().unwrap_or_else(|| panic!("no id: {imported}")).to_owned();
        (Self { issuer: Issuer::new(params, key), path: Vec::new() }, id)
    }

    /// A CA below this one, as a factory has it.
    pub fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = authority(name);
        let certificate = params.signed_by(&key, &self.issuer).expect("a CA").der().to_vec();
        let path = [vec![certificate], self.path.clone()].concat();
        Self { issuer: Issuer::new(params, key), path }
    }

    /// A device's certificate with its key.
    pub fn idevid(&self, serial: &str) -> Identity {
        self.idevid_for(serial, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A certificate of that device with its key.
    pub fn device(&self, id: &str) -> Identity {
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name = DistinguishedName::new();
        leaf.distinguished_name.push(DnType::CommonName, id);
        self.issue(leaf, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Its own CRL, PEM, good for some seconds from now.
    pub fn crl(&self, number: u64, good_for_s: i64, revoked: &[&[u8]]) -> String {
        self.crl_of(None, number, good_for_s, revoked)
    }

    /// Its own CRL that names a distribution point.
    #[expect(clippy::disallowed_methods, reason = "the server goes by the machine's clock too")]
    pub fn crl_of(&self, point: Option<&str>, number: u64, good_for_s: i64, revoked: &[&[u8]]) -> String {
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
            issuing_distribution_point: point.map(|uri| CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint { uris: vec![uri.to_owned()] },
                scope: None,
            }),
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
        self.issue(leaf, purpose)
    }

    fn issue(&self, mut leaf: CertificateParams, purpose: ExtendedKeyUsagePurpose) -> Identity {
        leaf.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { chain: [vec![certificate.der().to_vec()], self.path.clone()].concat(), key }
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
