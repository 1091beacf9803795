// Bouncy Castle's EST client: enrolls after a challenge, renews on both versions of TLS, has a key made, is refused.
//
//   java -cp JARS Enroll.java HOST:PORT CA_FILE DEVICE TOKEN
//
// Says what came of each step, one a line.

import java.io.FileInputStream;
import java.security.*;
import java.security.cert.*;
import java.security.spec.ECGenParameterSpec;
import java.util.*;
import javax.net.ssl.KeyManagerFactory;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.est.*;
import org.bouncycastle.est.jcajce.*;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.ContentSigner;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;
import org.bouncycastle.pkcs.jcajce.JcaPKCS10CertificationRequestBuilder;

public class Enroll {
    static X509CertificateHolder leaf(EnrollmentResponse response) {
        return response.getStore().getMatches(null).iterator().next();
    }

    static ESTAuth basic(String user, String secret) throws Exception {
        return new JcaHttpAuthBuilder(user, secret.toCharArray()).setProvider("BC").build();
    }

    public static void main(String[] args) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        String server = args[0], device = args[2], token = args[3];
        X509Certificate root = (X509Certificate)
            CertificateFactory.getInstance("X.509").generateCertificate(new FileInputStream(args[1]));
        Set<TrustAnchor> anchors = Set.of(new TrustAnchor(root, null));

        ESTService first = new JsseESTServiceBuilder(server, JcaJceUtils.getTrustAllTrustManager()).build();
        System.out.println("found " + first.getCACerts().getCertificateStore().getMatches(null).size() + " CA certificates");
        ESTService est = new JsseESTServiceBuilder(server, JcaJceUtils.getCertPathTrustManager(anchors, null)).build();
        System.out.println("attributes " + est.getCSRAttributes().hasAttributesResponse());

        KeyPairGenerator generator = KeyPairGenerator.getInstance("EC", "BC");
        generator.initialize(new ECGenParameterSpec("P-256"));
        KeyPair pair = generator.generateKeyPair();
        ContentSigner signer = new JcaContentSignerBuilder("SHA256withECDSA").setProvider("BC").build(pair.getPrivate());
        PKCS10CertificationRequest request =
            new JcaPKCS10CertificationRequestBuilder(new X500Name("CN=" + device), pair.getPublic()).build(signer);
        X509CertificateHolder enrolled = leaf(est.simpleEnroll(false, request, basic(device, token)));
        System.out.println("enrolled " + enrolled.getSubject());

        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        X509Certificate certificate = new JcaX509CertificateConverter().setProvider("BC").getCertificate(enrolled);
        store.setKeyEntry("device", pair.getPrivate(), new char[] {'x'}, new java.security.cert.Certificate[] {certificate});
        KeyManagerFactory keys = KeyManagerFactory.getInstance("SunX509");
        keys.init(store, new char[] {'x'});
        for (String version : List.of("TLSv1.2", "TLSv1.3")) {
            ESTService known = new JsseESTServiceBuilder(server, JcaJceUtils.getCertPathTrustManager(anchors, null))
                .withKeyManagers(keys.getKeyManagers()).withTLSVersion(version).build();
            boolean isNew = !leaf(known.simpleEnroll(true, request, null)).equals(enrolled);
            System.out.println("renewed on " + version + " " + isNew);
        }
        ESTService known = new JsseESTServiceBuilder(server, JcaJceUtils.getCertPathTrustManager(anchors, null))
            .withKeyManagers(keys.getKeyManagers()).build();
        EnrollmentResponse made = known.simpleEnrollWithServersideCreation(request, null);
        System.out.println("key made " + made.getPrivateKeyInfo().getPrivateKeyAlgorithm().getAlgorithm());
        try {
            est.simpleEnroll(false, request, basic(device, "wrong"));
        } catch (ESTException refused) {
            System.out.println("refused " + refused.getStatusCode());
        }
    }
}
