//! Key files: ours opened by openssl, theirs opened by us.

use muster_ca::file_key::{CaAlgorithm, FileKey, FileKeyError, Passphrase};
use muster_ca::keygen::GeneratedKey;
use muster_ca::signer::Signer;
use muster_policy::key::{KeyKind, WishedKey};

use crate::tools::Bench;

fn secret() -> Passphrase {
    Passphrase::new("horse".into())
}

#[test]
fn openssl_opens_what_is_written_here() {
    for algorithm in [CaAlgorithm::EcdsaP256, CaAlgorithm::EcdsaP384, CaAlgorithm::Rsa3072] {
        let bench = Bench::new();
        let key = FileKey::generate(algorithm).expect("a key");
        key.write_file(&bench.path("plain.pem"), None).expect("is written");
        key.write_file(&bench.path("secret.pem"), Some(&secret())).expect("is written");
        bench.openssl("pkey -in plain.pem -check -noout");
        bench.openssl("pkey -in plain.pem -pubout -outform DER -out plain.der");
        bench.openssl("pkey -in secret.pem -passin pass:horse -pubout -outform DER -out secret.der");
        assert_eq!(bench.read("plain.der"), key.spki_der());
        assert_eq!(bench.read("secret.der"), key.spki_der());
    }
}

#[test]
fn every_form_openssl_writes_is_opened() {
    let bench = Bench::new();
    bench.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out p256.pem");
    bench.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out p384.pem");
    bench.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem");
    bench.openssl("pkey -in p256.pem -traditional -out sec1.pem");
    bench.openssl("pkey -in p384.pem -traditional -out sec1-384.pem");
    bench.openssl("ecparam -name prime256v1 -genkey -out with-parameters.pem");
    bench.openssl("pkey -in rsa.pem -traditional -out pkcs1.pem");
    let encrypt = "pkcs8 -topk8 -passout pass:horse -in p256.pem";
    bench.openssl(&format!("{encrypt} -out pbkdf2.pem"));
    bench.openssl(&format!("{encrypt} -v2 aes-128-cbc -out aes128.pem"));
    bench.openssl(&format!("{encrypt} -scrypt -out scrypt.pem"));
    for name in [
        "p256.pem",
        "p384.pem",
        "rsa.pem",
        "sec1.pem",
        "sec1-384.pem",
        "with-parameters.pem",
        "pkcs1.pem",
        "pbkdf2.pem",
        "aes128.pem",
        "scrypt.pem",
    ] {
        let key = FileKey::read_pem(&bench.text(name), Some(&secret())).expect(name);
        bench.openssl(&format!("pkey -in {name} -passin pass:horse -pubout -outform DER -out public.der"));
        assert_eq!(bench.read("public.der"), key.spki_der(), "{name}");
        bench.openssl(&format!("pkey -in {name} -passin pass:horse -pubout -out public.pem"));
        bench.write("message", b"message");
        bench.write("signature", key.sign(b"message").expect("signs"));
        let digest = if name.contains("384") { "sha384" } else { "sha256" };
        bench.openssl(&format!("dgst -{digest} -verify public.pem -signature signature message"));
    }
}

#[test]
fn what_can_not_be_opened_is_told_apart() {
    let bench = Bench::new();
    let refused = |name: &str, passphrase: Option<&Passphrase>| {
        FileKey::read_pem(&bench.text(name), passphrase).expect_err(name)
    };
    bench.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out p256.pem");
    let encrypt = "pkcs8 -topk8 -passout pass:horse -in p256.pem";
    bench.openssl(&format!("{encrypt} -out pbkdf2.pem"));
    bench.openssl(&format!("{encrypt} -v2 des3 -out des3.pem"));
    bench.openssl("ec -in p256.pem -aes256 -passout pass:horse -out legacy.pem");
    bench.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out p521.pem");
    bench.openssl("genpkey -algorithm ED25519 -out ed25519.pem");
    bench.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out weak.pem");
    bench.openssl("pkey -in weak.pem -traditional -out weak1.pem");
    let wrong = Passphrase::new("wrong".into());
    assert!(matches!(refused("pbkdf2.pem", None), FileKeyError::PassphraseNeeded));
    assert!(matches!(refused("pbkdf2.pem", Some(&wrong)), FileKeyError::PassphraseWrong));
    for name in ["des3.pem", "legacy.pem", "p521.pem", "ed25519.pem"] {
        let error = refused(name, Some(&secret()));
        assert!(matches!(error, FileKeyError::Unsupported(_)), "{name}: {error}");
    }
    for name in ["weak.pem", "weak1.pem"] {
        let error = refused(name, None);
        assert!(matches!(error, FileKeyError::Weak), "{name}: {error}");
    }
}

#[test]
fn openssl_opens_keys_made_for_devices() {
    let bench = Bench::new();
    let wished = [
        WishedKey::Curve(KeyKind::EcdsaP256),
        WishedKey::Curve(KeyKind::EcdsaP384),
        WishedKey::Rsa { bits: 2048 },
        WishedKey::Rsa { bits: 3072 },
    ];
    for wished in wished {
        let key = GeneratedKey::generate(&wished).expect("is made");
        assert_eq!(key.wished_key(), wished);
        bench.write("key.der", &*key.pkcs8_der().expect("encodes"));
        bench.openssl("pkey -inform DER -in key.der -check -noout");
        bench.openssl("pkey -inform DER -in key.der -pubout -outform DER -out public.der");
        assert_eq!(bench.read("public.der"), key.subject_key().spki_der());
    }
}
